"""A question in words to a served model, and its answer as a person reads it."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from optkit.core import temporary
from optkit.registry import layout
from optkit.registry.live_server import Running
from optkit.registry.verify import require
from optkit.serving import ensemble
from optkit.serving.server import Server
from optkit.serving.text_client import TextClient


def answer(
    model: str, texts: Sequence[str], url: str, repository: Path | None = None, others: Sequence[Sequence[str]] = ()
) -> str:
    """Ask a model's text pipeline.

    Args:
        model: its name.
        texts: the text, the pair of texts, or question and passage.
        url: `host:port` of the server.
        repository: serve this one for the question, instead of asking a server that runs.
        others: texts of further examples, such as the same query with other documents.

    Raises:
        InputError: there is no such model, it takes no text, or other texts; or the repository is not as published.
        MachineError: the server is not there, cannot be started, or does not answer in time.
    """
    with ExitStack() as stack:
        if repository is not None:
            url = _serve(repository, model, stack)
        client = stack.enter_context(TextClient(Running(url).url, model))
        examples = [texts, *others]
        return client.form.shown(examples, client.ask(examples))


def _serve(repository: Path, model: str, stack: ExitStack) -> str:
    """Start a server of one model for as long as the stack lasts; gives its address."""
    require(repository)
    name = layout.find(repository, model.removesuffix(ensemble.SUFFIX)).name
    logs = stack.enter_context(temporary.folder("optkit-ask"))
    names = [each for each in (name, ensemble.pipeline(name)) if (repository / each).is_dir()]
    return stack.enter_context(Server(repository, logs, names)).url
