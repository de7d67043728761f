"""The commands that serve a repository, and ask and validate servers."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from optkit.cli.option_groups import data_settings, grouped
from optkit.cli.options import (
    DEFAULT_REPOSITORY,
    DEFAULT_URL,
    Checkpoints,
    ModelName,
    Name,
    Repository,
    Seed,
    TaskName,
    Trusted,
)
from optkit.core.errors import InputError
from optkit.tasks.data.data_settings import DataSettings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (serve, ask, grouped(data=data_settings)(validate)):
        app.command()(command)


def serve(
    repository: Repository = DEFAULT_REPOSITORY,
    port: Annotated[int, typer.Option(help="port of HTTP on 127.0.0.1; 0: a free one", min=0, max=65535)] = 8000,
    unpublished: Annotated[
        bool, typer.Option("--unpublished", help="the repository is one of `optkit build --flavour python`")
    ] = False,
    cache_mb: Annotated[
        int, typer.Option(help="memory for answers of models published with --cache; 0: they go without", min=0, metavar="N")
    ] = 0,
    trust: Trusted = None,
    grpc: Annotated[
        bool,
        typer.Option("--grpc", help="also listen for gRPC on the next port: requests without bounds, no control of models"),
    ] = False,
    max_request_mb: Annotated[
        int, typer.Option(help="largest body of a request, unpacked; what is larger is refused", min=1, metavar="N")
    ] = 16,
) -> None:
    """Serve a model repository with Triton on this machine until Ctrl-C; refused where a file is not as it was published.

    With --trust it is refused too where a live version is not signed by one of the keys, and what is served is a copy.

    Example: optkit serve --repository model_repository --port 8000
    """
    from optkit.registry import remote
    from optkit.registry.signing import Trust
    from optkit.registry.verify import require
    from optkit.serving import serve as serving

    if trust and unpublished:
        raise InputError("--trust and --unpublished: a repository of `optkit build` has no signatures; give one of them")
    trusted = Trust(trust) if trust else None
    with remote.reading(repository, to_serve=True, own=trusted is not None) as folder:
        if not unpublished:
            require(folder, trusted)
        serving.serve(folder, port, cache_mb=cache_mb, grpc=grpc, largest_body=max_request_mb * 2**20)


def ask(
    model: ModelName,
    text: Annotated[str, typer.Argument(help="text to classify, or question", metavar="TEXT")],
    context: Annotated[
        list[str] | None,
        typer.Option(
            help="passage with the answer, second text of a pair, or document; repeat it for several. Where a model of "
            "vectors has prompts: the name of one, such as query or document",
            metavar="TEXT",
        ),
    ] = None,
    url: Annotated[str | None, typer.Option(help=f"running server [default: {DEFAULT_URL}]", metavar="HOST:PORT")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="start a server of the repository for this question")] = False,
    repository: Repository = DEFAULT_REPOSITORY,
) -> None:
    """Ask a served model in words; print its answer.

    A label with its probability and then the others, the answer's words with their score, documents by their scores, or the
    first numbers of a vector.

    Example: optkit ask sample_qat_gelu10 "The plot is dull." --url 127.0.0.1:8000
    """
    from optkit.pipeline.ask import answer
    from optkit.registry import remote

    texts, *others = [[text, one] for one in context] if context else [[text]]
    if not serve:
        print(answer(model, texts, url or DEFAULT_URL, others=others))
        return
    with remote.reading(repository, to_serve=True) as folder:
        print(answer(model, texts, url or DEFAULT_URL, folder, others))


def validate(
    recipe: Annotated[str, typer.Argument(help="name of the recipe", metavar="RECIPE")],
    task: TaskName,
    data: DataSettings,
    url: Annotated[str, typer.Option(help="HTTP address of the running server", metavar="HOST:PORT")],
    model_name: Annotated[
        str | None, typer.Option(help="model on the server [default: PROJECT_RECIPE]", metavar="NAME")
    ] = None,
    name: Name = None,
    precision: Annotated[str | None, typer.Option(help="of the engine, where the recipe has several")] = None,
    seed: Seed = 0,
    timeout: Annotated[float, typer.Option(help="seconds for each request", min=0.1)] = 60.0,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> None:
    """Score the dev split through a server that runs already, and compare it with the recipe's engine and its baseline.

    The model may be of any backend of Triton that takes the recipe's inputs. Exit status 1: its answers are not the
    engine's, depend on how they are asked for, or are worse than the gate allows.

    Example: optkit validate qat_gelu10 --task sample --url 127.0.0.1:8000
    """
    from optkit.pipeline import projects
    from optkit.pipeline.remote_validation import Target
    from optkit.pipeline.remote_validation import validate as score
    from optkit.report import explain
    from optkit.tasks.registry import of_settings

    target = Target(url, model_name, timeout)
    home = projects.find(checkpoints, task, name, projects.Source.of(data.source, None))
    row = score(recipe, of_settings(task, data), checkpoints, target, seed, precision, home.name)
    sys.stdout.write(explain.judged(row))
    if row.verdict == "fail":
        raise typer.Exit(1)
