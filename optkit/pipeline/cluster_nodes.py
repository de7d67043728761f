"""The nodes of a cluster: what each has, and whether together they can do a run; all that can be wrong is said before it."""

import fcntl
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from optkit.core import mirror
from optkit.core.errors import MachineError
from optkit.pipeline import cluster_worker
from optkit.pipeline.cluster_settings import ClusterSettings
from optkit.pipeline.cluster_worker import HELD, Facts, Order
from optkit.pipeline.step_graph import Kind

MEASURE = "optkit_measure"
"""Ray's custom resource of the nodes that measure: each has one, so that it measures one thing at a time."""
_MOST_CORES = 4
_ANSWER_S = 300.0  # importing torch and Model Optimizer from a network's file system takes its time
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Node:
    """A node as Ray knows it."""

    id: str
    host: str
    cores: int
    gpus: int
    measures: bool
    alone: bool = True
    """Whether no other node has its host."""

    @property
    def name(self) -> str:
        """What it is called: its host, with the begin of Ray's id where that has several nodes."""
        return self.host if self.alone else f"{self.host} ({self.id[:8]})"


@dataclass(frozen=True)
class Share:
    """What a step takes of a node."""

    cores: int
    gpus: float = 0
    measures: bool = False

    def options(self) -> dict[str, Any]:
        """Return it as Ray's options; a lost step is put elsewhere by optkit, which says so."""
        resources = {MEASURE: 1} if self.measures else {}
        return {"num_cpus": self.cores, "num_gpus": self.gpus, "resources": resources, "max_retries": 0}


def alive(ray: Any) -> list[Node]:
    """Return the nodes that are there."""
    found = []
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            own = int(has.get("CPU", 0)), int(has.get("GPU", 0)), has.get(MEASURE, 0) > 0
            found.append(Node(node["NodeID"], node["NodeManagerHostname"], *own))
    hosts = Counter(node.host for node in found)
    return [replace(node, alone=hosts[node.host] == 1) for node in found]


def shares(nodes: Sequence[Node], settings: ClusterSettings) -> dict[Kind, Share]:
    """Return what steps take, by kind: a training what the user says, a measurement a whole node.

    Raises:
        MachineError: no node has what is asked for.
    """
    measuring = [node for node in nodes if node.measures]
    if not measuring:
        raise MachineError(
            f"cluster: no node has the resource {MEASURE}, and so none is there to measure. Start those that shall, all of "
            f"one kind, with: ray start … --resources='{{\"{MEASURE}\": 1}}'"
        )
    gpus = settings.train_gpus
    if gpus is None:
        gpus = float(any(node.gpus for node in nodes))
    training = [node for node in nodes if node.gpus >= gpus and node.cores]
    if not training:
        have = ", ".join(f"{node.name} {node.gpus}" for node in nodes)
        raise MachineError(
            f"--train-gpus {gpus:g}: no node of the cluster has as many GPUs: {have}. Add one, or ask for fewer"
        )
    most = max(node.cores for node in training)
    cores = settings.train_cores or min(_fair_cores(node, gpus) for node in training)
    if cores > most:
        raise MachineError(f"--train-cores {cores}: the largest node has {most}. Give {most} or fewer")
    train, one = Share(cores, gpus), Share(1)
    whole = Share(min(node.cores for node in measuring), min(node.gpus for node in measuring), measures=True)
    return {"train": train, "teach": train, "export": one, "engines": whole, "score": whole, "measure": whole}


def trainings(nodes: Sequence[Node], share: Share) -> int:
    """Return how many trainings the nodes take side by side."""
    found = 0
    for node in nodes:
        room = node.cores // share.cores
        found += min(room, int(node.gpus / share.gpus)) if share.gpus else room
    return max(1, found)


def _fair_cores(node: Node, gpus: float) -> int:
    """How many cores a training gets if as many run as the node's GPUs are for."""
    return max(1, min(_MOST_CORES, node.cores // int(node.gpus / gpus if gpus else 1)))


def require(ray: Any, nodes: Sequence[Node], order: Order) -> dict[str, str]:
    """Raise `MachineError` unless the nodes fit each other, this process and the run; returns the versions of all."""
    versions = cluster_worker.versions(order)
    facts = _facts(ray, nodes, order)
    found = list(facts.values())
    unfit = [
        f"node {one.node} has {wrong}" for one in found if (wrong := cluster_worker.differences(versions, one.versions))
    ]
    if unfit:
        raise MachineError(
            "cluster: nodes differ, and results would with them:\n  - " + "\n  - ".join(unfit) + "\nInstall the same"
        )
    blind = [f"node {one.node}: {one.sees}" for one in found if one.sees]
    if blind:
        expected, fix = "a folder that all nodes share, such as one on NFS", "Mount the same there"
        if order.store:
            expected, fix = "a store that all nodes reach", "Give them the way there and its credentials"
        raise MachineError(
            f"{order.store or order.root}: expected {expected}:\n  - " + "\n  - ".join(blind) + f"\n{fix}, or give another "
            "folder with --checkpoints"
        )
    if alone := [one.node for one in found if one.locks != "shared"]:
        log.warning("%s: locks do not reach %s; take care that no other run writes there", order.root, ", ".join(alone))
    _require_measuring([one for node, one in facts.items() if node.measures])
    return versions


def _require_measuring(found: Sequence[Facts]) -> None:
    """Raise unless the measuring nodes are there, have the engines, and are machines of one kind."""
    if not found:
        raise MachineError(f"cluster: all nodes with the resource {MEASURE} are gone. Start one again")
    if lacking := [f"node {one.node}: {one.lacks}" for one in found if one.lacks]:
        raise MachineError("cluster: measuring needs the engines and a server:\n  - " + "\n  - ".join(lacking))
    if len({one.machine for one in found}) > 1:
        kinds = "\n  - ".join(f"{one.node}: {one.machine}" for one in found)
        raise MachineError(
            f"cluster: nodes of different kinds have the resource {MEASURE}, and what is compared is measured on one:\n"
            f"  - {kinds}\nGive it to those of one kind"
        )
    log.info("measuring on %s (%s)", found[0].machine, ", ".join(one.node for one in found))


def _facts(ray: Any, nodes: Sequence[Node], order: Order) -> dict[Node, Facts]:
    """What each node that is still there says of itself, while this process holds a lock that they try."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, max_retries=0)(cluster_worker.facts)
    with (order.board / HELD).open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        mirror.send(order.board / HELD)
        asked = {}
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node.id, soft=False)
            cards = node.gpus if node.measures else 0  # Ray hides the cards from what asks for none
            asked[ask.options(scheduling_strategy=there, num_gpus=cards).remote(order, node.id)] = node
        ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
        found = {node: _answer(ray, reference, node) for reference, node in asked.items()}
    return {node: replace(one, sees=one.sees or _unseen(order, node), node=node.name) for node, one in found.items() if one}


def _unseen(order: Order, node: Node) -> str:
    return "" if cluster_worker.shows_up(order.board / node.id) else "what it writes is not seen here"


def _answer(ray: Any, reference: Any, node: Node) -> Facts | None:
    """What a node answered, or None of one that has died, which Ray may notice half a minute later.

    Raises:
        MachineError: nothing, or it cannot even import optkit.
        OptkitError: what optkit raised there.
    """
    try:
        answer: Facts = ray.get(reference, timeout=0)
    except ray.exceptions.GetTimeoutError as error:
        raise MachineError(
            f"node {node.name} has not answered for {_ANSWER_S:g} s. Restart Ray there, or take it out"
        ) from error
    except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
        log.warning("node %s has died; the run goes on without it", node.name)
        return None
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1]
        raise MachineError(
            f"node {node.name}: {last}. Install there what is installed here: pip install 'optkit[cluster]'"
        ) from error
    return answer
