"""What runs on a node of a cluster: it says what the node is, and takes a step."""

import fcntl
import importlib.metadata
import os
import platform
import socket
import sys
import time
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

import torch

from optkit.core import hardware, mirror, progress, step_cache
from optkit.core.code_version import code_version
from optkit.core.errors import InputError, MachineError, OptkitError
from optkit.core.patience import Patience
from optkit.engines import registry as engines
from optkit.models import families
from optkit.pipeline.step_graph import Graph
from optkit.recipe import finder
from optkit.serving import install, leftovers

HELD = "driver"
"""File on the board that the driver holds locked while it looks at the nodes."""
_SHOWS_UP_S = 5.0  # a network's file system may show a new file late
_PACKAGES = (
    *("optkit", "torch", "transformers", "accelerate", "datasets", "numpy"),
    *("nvidia-modelopt", "safetensors", "onnx", "onnxruntime"),
)
Locks = Literal["shared", "of each node", "none"]


@dataclass(frozen=True)
class Order:
    """What every node is told of a run."""

    root: Path
    """The folder `checkpoints/`, absolute."""
    board: Path
    """The run's own folder in it, by which nodes and driver see what the other has written."""
    place: Path
    """The driver's working folder: relative paths mean what they mean there, where a node has it."""
    recipes: tuple[Path, ...]
    """Files of recipes that define techniques of their own."""
    modules: tuple[str, ...]
    """Modules of techniques, task and runtimes, which are looked up by name."""
    kinds: tuple[str, ...]
    """Kinds of engine to build; empty for all that the measuring nodes have."""
    store: str | None = None
    """URL of the object store that `root` mirrors; None where all nodes share the folder itself."""
    names: tuple[tuple[str, str], ...] = ()
    """What the driver calls the nodes, beside Ray's ids of them."""

    def here(self, path: Path) -> Path:
        """Return where a path below `root` lies on this machine."""
        return path if self.store is None else mirror.place(self.store) / path.relative_to(self.root)


@dataclass(frozen=True)
class Facts:
    """What a node says of itself."""

    node: str
    versions: dict[str, str]
    machine: str
    """In words that are equal on machines of one kind."""
    lacks: str
    """Why it cannot measure; empty where it can."""
    sees: str
    """Why it does not share the store with the driver; empty where it does."""
    locks: Locks


@dataclass(frozen=True)
class Outcome:
    """How a step ended."""

    node: str
    seconds: float
    error: OptkitError | None
    made: tuple[Path, str] | None = None
    """The step's folder, as a path below `Order.root`, and its key, for a driver that has to fetch it from the store."""
    found: Any = None
    """What the step gave, where that is no folder."""


def facts(order: Order, mark: str) -> Facts:
    """Say what this node is; leaves a file called `mark` on the board."""
    progress.log_to_stderr()
    with redirect_stdout(sys.stderr):
        sees, locks = _store(order, mark)
        _prepare(order)
        return Facts(_own_name(order), versions(order), hardware.in_words(), _lacks(order.kinds), sees, locks)


def _own_name(order: Order) -> str:
    """What the driver calls this node; one that has joined since is called by its host."""
    import ray

    return dict(order.names).get(ray.get_runtime_context().get_node_id(), socket.gethostname())


def take(order: Order, graph: list[Any], name: str, cores: int, expected: dict[str, str]) -> Outcome:
    """Take a step of a graph, in as many threads as it has cores.

    Args:
        order: of the run.
        graph: reference to the graph, in a list so that it is read after the modules that it needs.
        name: title of the step.
        cores: that the step was given.
        expected: versions of the driver.
    """
    started, node = time.monotonic(), _own_name(order)
    progress.log_to_stderr()
    os.environ["OMP_NUM_THREADS"] = str(cores)
    torch.set_num_threads(cores)
    with redirect_stdout(sys.stderr):
        try:
            _prepare(order)
            if wrong := differences(expected, versions(order)):
                raise MachineError(f"node {node} has {wrong}; install the same there")
            leftovers.sweep()
            order.here(order.root)  # says that a store is out of reach, where the graph would not be read
            steps = _read(graph[0])
            _begin(order, list(steps).index(name), node)
            given = steps[name].run()
            made = _made(order, given)
        except OptkitError as error:
            return Outcome(node, time.monotonic() - started, error)
    return Outcome(node, time.monotonic() - started, None, made, None if isinstance(given, Path) else given)


def _begin(order: Order, number: int, node: str) -> None:
    """Leave word that a step has begun here."""
    word = order.here(order.board / f"{number}.started")
    word.parent.mkdir(exist_ok=True)
    word.write_text(node)
    mirror.send(word)


def _made(order: Order, folder: Any) -> tuple[Path, str] | None:
    """A step's folder, below the root of the driver, and its key; None where the driver sees it, or there is none."""
    if order.store is None or not isinstance(folder, Path):
        return None
    return order.root / folder.relative_to(order.here(order.root)), step_cache.key_at(folder)


def versions(order: Order) -> dict[str, str]:
    """Return what results depend on besides the settings: Python, the code, packages and runtimes by name."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package).partition("+")[0]  # nodes with and without a GPU
    runtimes = {f"runtime {kind}": version for kind, one in engines.RUNTIMES.working() if (version := one.version())}
    code, records = code_version(__name__, *order.modules), step_cache.key_of(families.records())
    return {**found, **runtimes, "code of optkit and plug-ins": code[:12], "records of families": records[:12]}


def differences(expected: dict[str, str], found: dict[str, str]) -> str:
    """Say which versions differ from the driver's; what only one of both has is none of the other's business."""
    both = [name for name in expected if name in found and expected[name] != found[name]]
    return ", ".join(f"{name} {found[name]} (the driver: {expected[name]})" for name in both)


@lru_cache(maxsize=1)
def _read(reference: Any) -> Graph:
    """The graph of a run, kept by the process: features are encoded once."""
    import ray

    graph: Graph = ray.get(reference)
    return graph


@cache
def _prepare(order: Order) -> None:
    """Go where the driver is, and import the recipes whose techniques the graph names."""
    with suppress(OSError):
        os.chdir(order.place)
    for path in order.recipes:
        if not path.is_file():
            raise InputError(
                f"{path}: defines a technique, and node {socket.gethostname()} does not have it. Put it where all nodes see "
                "it, or into a package that is installed there (see CONTRIBUTING.md)"
            )
        finder.load_module(path)


def _lacks(kinds: tuple[str, ...]) -> str:
    try:
        install.find()
        for kind in kinds:
            engines.require_running(kind)
        engines.installed()
    except OptkitError as error:
        return str(error)
    return ""


def _store(order: Order, mark: str) -> tuple[str, Locks]:
    """Whether this node sees what the driver wrote, and can write what the driver looks for; and how far locks go."""
    try:
        board = order.here(order.board)
        if not shows_up(held := board / HELD):
            return "it does not see what is written here", "none"
        (board / mark).touch()
        mirror.send(board / mark)
        if order.store:
            return "", "shared"  # no locks are needed: what is there already is not written again
        with held.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return "", "of each node"
    except BlockingIOError:
        return "", "shared"
    except OSError as error:
        return f"it cannot write there: {error}", "none"
    except OptkitError as error:
        return str(error), "none"


def shows_up(path: Path) -> bool:
    """Whether a file that was written on another machine shows up here within seconds."""
    patience = Patience(_SHOWS_UP_S)
    while not (path.is_file() or mirror.receive(path)):
        if patience.is_over():
            return False
        time.sleep(0.1)
    return True
