"""A cluster of Ray's to run recipes on: found or started, looked at, and left as it was.

with connected(ClusterSettings("auto")) as cluster, cluster.on(modules_of(recipes), spec) as nodes:
    run_all(recipes, specs, nodes)
"""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from optkit.core import atomic, mirror, temporary
from optkit.core.cpu import available_threads
from optkit.core.errors import InputError, MachineError
from optkit.engines import registry as engines
from optkit.pipeline import cluster_nodes
from optkit.pipeline.cluster_nodes import MEASURE, Node, Share, trainings
from optkit.pipeline.cluster_run import ClusterRun
from optkit.pipeline.cluster_settings import AUTO, LOCAL, ClusterSettings
from optkit.pipeline.cluster_worker import Order
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.step_graph import Kind
from optkit.recipe.recipe import modules_of

EXTRA = "pip install 'optkit[cluster]'"
_ANSWER_S = 5.0
_TOKEN = ". Where the cluster wants a token, ~/.ray/auth_token or $RAY_AUTH_TOKEN has to be that of its head"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """A cluster that answers, and has what is asked of it."""

    ray: Any
    nodes: list[Node]
    shares: dict[Kind, Share]

    @contextmanager
    def on(self, techniques: Iterable[str], spec: RunSpec) -> Iterator[ClusterRun]:
        """Look at all nodes; the block gets what takes steps on them.

        Args:
            techniques: modules of the techniques that steps apply.
            spec: what they are run on; others of the same task, engines and `checkpoints/` may be run with it.

        Raises:
            MachineError: nodes do not fit the run, each other or this process, or do not share the store.
        """
        root = Path(os.path.abspath(spec.root))
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise atomic.disk_error(root, error) from error
        with temporary.folder(".cluster", root) as board:
            kinds = spec.engines
            modules = {type(spec.task).__module__, *techniques, *engines.modules(kinds)}
            own = _files({*techniques, *modules_of(spec.recipes.values())}), tuple(sorted(modules)), kinds
            names = tuple((node.id, node.name) for node in self.nodes)
            order = Order(root, board, Path.cwd(), *own, mirror.url_of(root), names)
            try:
                versions = cluster_nodes.require(self.ray, self.nodes, order)
                fresh, slots = any(node.gpus for node in self.nodes), trainings(self.nodes, self.shares["train"])
                yield ClusterRun(self.ray, order, self.shares, versions, fresh, slots)
            finally:
                with suppress(MachineError):  # a store that is gone has been said; nobody reads these notes
                    mirror.forget(board)


@contextmanager
def connected(settings: ClusterSettings) -> Iterator[Cluster]:
    """A connection to the cluster, for the time of the block.

    Raises:
        InputError: this is one of several processes that train together.
        MachineError: Ray is not installed, there is no cluster, it does not answer, or has not what is asked for.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("--cluster: found several processes, as of accelerate launch; start one, or leave --cluster out")
    if settings.address != LOCAL:
        _show_token(os.environ)
    ray = _ray()
    before = signal.getsignal(signal.SIGTERM)
    with ExitStack() as stack:
        how = _how(settings, stack)
        stack.callback(ray.shutdown)
        try:
            ray.init(**how, log_to_driver=True, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:  # of other versions, or not there
            raise MachineError(f"--cluster {settings.address}: {error}{_TOKEN * (settings.address != LOCAL)}") from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own would end with another status
        nodes = cluster_nodes.alive(ray)
        log.info(
            "cluster of %d nodes: %s",
            len(nodes),
            ", ".join(f"{node.name} ({node.cores} cores, {node.gpus} GPUs)" for node in nodes),
        )
        yield Cluster(ray, nodes, cluster_nodes.shares(nodes, settings))


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MachineError(f"--cluster needs the package ray. Install it: {EXTRA}") from error
    return ray


def _show_token(environment: MutableMapping[str, str]) -> None:
    """Have Ray show the token that this user has to a cluster, which it does only when told before it is imported."""
    given = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & environment.keys()
    if given or (Path(environment.get("HOME", "/")) / ".ray" / "auth_token").is_file():
        environment.setdefault("RAY_AUTH_MODE", "token")


def _how(settings: ClusterSettings, stack: ExitStack) -> dict[str, Any]:
    """How Ray is asked for the cluster."""
    address = str(settings.address)
    if address == LOCAL:
        folder = stack.enter_context(temporary.folder("optkit-ray"))
        own = {MEASURE: 1}
        return {
            "address": "local",
            "_temp_dir": str(folder),
            "num_cpus": available_threads(),
            "resources": own,
            "dashboard_host": "127.0.0.1",
        }
    if address == AUTO and (given := os.environ.get("RAY_ADDRESS", "")):
        _require_open(given if "://" in given else f"gcs://{given}")
    elif address != AUTO:
        _require_ray(address)
    return {"address": address}


def _require_open(address: str) -> None:
    """Raise `MachineError` unless somebody listens; Ray itself would try for a minute."""
    try:
        place = urlsplit(address)
        socket.create_connection((place.hostname or "", place.port or 0), _ANSWER_S).close()
    except (OSError, ValueError) as error:
        raise MachineError(
            f"cluster {address}: does not answer ({error}). Start it, or give the address of one that runs"
        ) from error


def _require_ray(address: str) -> None:
    """Raise `MachineError` unless Ray's client server listens there."""
    import grpc

    _require_open(address)
    place = urlsplit(address)
    with grpc.insecure_channel(f"{place.hostname}:{place.port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(_ANSWER_S)
        except grpc.FutureTimeoutError as error:
            raise MachineError(
                f"cluster {address}: something listens there that is not Ray's client server, whose port is 10001 unless "
                "`ray start --ray-client-server-port` said otherwise"
            ) from error


def _files(modules: Iterable[str]) -> tuple[Path, ...]:
    """Recipe files among modules: those that define techniques of their own."""
    files = {sys.modules[name].__file__ for name in modules if name.startswith("optkit_recipe_")}
    return tuple(sorted(Path(file).resolve() for file in files if file))
