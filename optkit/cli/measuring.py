"""Where the steps of a command run: in this process, or on a cluster; what measuring needs is there, or is said at once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from optkit.pipeline.cluster_settings import ClusterSettings

if TYPE_CHECKING:
    from optkit.pipeline.cluster_run import ClusterRun
    from optkit.pipeline.run_spec import RunSpec

On = Callable[[Iterable[str], "RunSpec"], AbstractContextManager["ClusterRun | None"]]
"""Looks at all nodes for techniques, by their modules, and what they are run on; what takes the steps there, or None."""


@contextmanager
def measuring(kinds: Sequence[str], settings: ClusterSettings) -> "Iterator[On]":
    """The place that is asked for, which should say that it cannot measure before anything is trained.

    Args:
        kinds: of engine that are to be measured; empty for all that are there.
        settings: of the cluster.

    Raises:
        MachineError: there is no server, no engine of a kind, or no cluster that has what is asked for.
    """
    if settings.address is not None:
        from optkit.pipeline.cluster import connected

        with connected(settings) as cluster:
            yield cluster.on
        return
    from optkit.engines import registry as engines
    from optkit.serving import install

    install.find()
    for kind in kinds:
        engines.require_running(kind)
    yield lambda modules, spec: nullcontext()
