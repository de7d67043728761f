"""Recipes on a cluster of two nodes with one core each: the bytes of one process, and nothing lost with a node that dies."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from optkit.compression.registry import TECHNIQUES
from optkit.core.errors import InputError, MachineError
from optkit.core.step_cache import RECORD, read_record
from optkit.pipeline import cluster_nodes
from optkit.pipeline.cluster import Cluster, connected
from optkit.pipeline.cluster_nodes import MEASURE, Node, shares
from optkit.pipeline.cluster_settings import ClusterSettings
from optkit.pipeline.cluster_worker import Order
from optkit.pipeline.run import in_order
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.step_graph import Graph, graph_of
from optkit.recipe import finder
from optkit.recipe.recipe import modules_of
from optkit.tasks.registry import load
from optkit.training.resume import Snapshots

TRAINING = "Training(epochs=4, learning_rate=3e-3, batch_size=16, precision='fp32')"
RECIPES = {
    "ptq": "from optkit import Quantize\nSTAGES = [Quantize(calibrator='max', calibration_examples=16, epochs=0)]\n",
    "student": "from optkit import Distill\nSTAGES = [Distill(layers=1, representation_epochs=1, epochs=1)]\n",
    # a technique of its own, whose training takes long enough to be killed in its midst, and says where it runs
    "patient": """
import os, time
from pathlib import Path
from typing import ClassVar, Literal
from optkit import Stage
from optkit.compression.registry import TECHNIQUES
from optkit.training.loop import train
from optkit.training.losses import task_loss
from optkit.training.resume import Snapshots

Snapshots.every_s = 0.0

class Patient(Stage):
    technique: Literal["patient"] = "patient"
    order: ClassVar[int] = 25

    def apply(self, loaded, context):
        steps, plain = Path(os.environ["OPTKIT_TEST_STEPS"]), task_loss(context.task)

        def loss(model, batch):
            with steps.open("a") as file:
                file.write(f"{os.getpid()}\\n")
            time.sleep(float(os.environ.get("OPTKIT_TEST_STEP_S", "0")))
            return plain(model, batch)

        batches = context.batches(context.training.batch_size)
        return train(loaded.model, batches, loss, context.training, context.seed, context.logs, snapshots=context.snapshots)

TECHNIQUES.register("patient", Patient)
STAGES = [Patient()]
""",
}
STEPS = 4 * 256 // 16


@pytest.fixture(scope="module")
def workshop(
    tmp_path_factory: pytest.TempPathFactory, tiny_config: BertConfig, tiny_tokenizer: BertTokenizerFast
) -> Iterator[Path]:
    """A folder with recipes, a model without a head, and the file in which the patient training counts its steps."""
    folder = tmp_path_factory.mktemp("shop")
    for name, text in {**RECIPES, "baseline_fp32": "STAGES = []\n"}.items():
        rest = f"from optkit import Recipe, Training\nrecipe = Recipe(name={name!r}, stages=STAGES, training={TRAINING})\n"
        (folder / f"{name}.py").write_text(text + rest)
    torch.manual_seed(0)
    BertModel(tiny_config).save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPTKIT_TEST_STEPS", str(folder / "steps"))
        patch.setattr(Snapshots, "every_s", Snapshots.every_s)  # its recipe file, read in this process too, sets it
        yield folder
    TECHNIQUES.forget("patient")  # and makes its technique known


def spec_of(workshop: Path, data: Path, checkpoints: str) -> tuple[list[Any], RunSpec]:
    asked, known = finder.find([str(workshop / f"{name}.py") for name in RECIPES])
    return asked, RunSpec(load("classification", data), str(workshop / "model"), 0, workshop / checkpoints, known)


def without_measuring(graph: Graph) -> Graph:
    """What comes out the same every time."""
    return {title: step for title, step in graph.items() if step.kind in ("train", "teach", "export")}


def steps(workshop: Path) -> list[int]:
    """The process of each step of the patient training so far."""
    file = workshop / "steps"
    return [int(line) for line in file.read_text().split()] if file.is_file() else []


def contents(folder: Path) -> dict[str, Any]:
    """What the records of all steps say: keys, and the SHA-256 of all files."""
    return {str(path.relative_to(folder)): read_record(path.parent) for path in sorted(folder.rglob(RECORD))}


def kill_in_its_midst(workshop: Path, nodes: list[Any]) -> None:
    """Kill the node on which the patient training runs, when it has taken half of its steps."""
    while len(steps(workshop)) < STEPS // 2:
        time.sleep(0.1)
    worker = psutil.Process(steps(workshop)[0])
    (node,) = (node for node in nodes if node.all_processes["raylet"][0].process.pid == worker.ppid())
    for process in [psutil.Process(worker.ppid()), *psutil.Process(worker.ppid()).children(recursive=True)]:
        process.kill()
    nodes.remove(node)


@pytest.fixture(scope="module")
def nodes(workshop: Path) -> Iterator[Any]:
    """Two nodes that train and measure, with a core each, and a third that keeps the books."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # whatever token this user has
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        patch.setenv("OPTKIT_TEST_STEP_S", "0.3")
        both = [cluster.add_node(num_cpus=1, resources={MEASURE: 1}) for _ in range(2)]
        patch.delenv("OPTKIT_TEST_STEP_S")
        cluster.wait_for_nodes()
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield both
        cluster.shutdown()


@pytest.fixture(scope="module")
def cluster(nodes: list[Any]) -> Iterator[Cluster]:
    """A connection to the nodes, whose workers import what they need once."""
    with connected(ClusterSettings("auto")) as cluster:
        yield cluster


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@pytest.mark.slow
def test_a_node_that_dies_loses_nothing_and_the_bytes_are_those_of_one_process(
    workshop: Path, tiny_data: Path, nodes: list[Any], cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    recipes, alone = spec_of(workshop, tiny_data, "alone")
    in_order(without_measuring(graph_of(recipes, [alone])))
    assert len(steps(workshop)) == STEPS
    (workshop / "steps").unlink()
    recipes, spec = spec_of(workshop, tiny_data, "cluster")
    killer = threading.Thread(target=kill_in_its_midst, args=(workshop, nodes))
    killer.start()
    caplog.set_level("INFO", "optkit.pipeline.cluster_view")
    with cluster.on(modules_of(recipes), spec) as execute:
        execute(without_measuring(graph_of(recipes, [spec])))
    killer.join()
    places = {
        record.args[1] for record in caplog.records if record.msg == "%s: on node %s" and isinstance(record.args, tuple)
    }
    host = socket.gethostname()
    assert len(places) == 2 and all(str(place).startswith(f"{host} (") for place in places), "both are of one host"
    assert contents(workshop / "cluster") == contents(workshop / "alone")
    assert len(nodes) == 1 and "its node or process died" in caplog.text
    first, last = steps(workshop)[0], steps(workshop)[-1]
    assert first != last and steps(workshop).count(last) < STEPS, "it went on from its last snapshot"
    assert not list((workshop / "cluster").glob(".cluster*"))


@pytest.mark.slow
def test_nodes_that_do_not_fit_are_named(
    workshop: Path, tiny_data: Path, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes, spec = spec_of(workshop, tiny_data, "unfit")
    own = os.dup2(os.open(tmp_path, os.O_RDONLY), 900)  # a place that only this process has
    cluster = replace(cluster, nodes=cluster_nodes.alive(cluster.ray))
    blind = Order(Path("store"), Path(f"/proc/self/fd/{own}"), Path.cwd(), (), (), ())
    with pytest.raises(MachineError, match=r"store: expected a folder that all nodes share.*(\n.*)*does not see what is"):
        cluster_nodes.require(cluster.ray, cluster.nodes, blind)
    (tmp_path / "accelerate-0.1.dist-info").mkdir()
    (tmp_path / "accelerate-0.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: accelerate\nVersion: 0.1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    said = r"nodes differ.*\n  - node \S+ \([0-9a-f]{8}\) (.*\n.*)*has accelerate \d[\d.]* \(the driver: 0.1\)"
    with pytest.raises(MachineError, match=said), cluster.on(modules_of(recipes), spec):
        raise AssertionError
    os.close(own)


def test_nodes_of_one_host_are_told_apart() -> None:
    class Three:
        """Nodes as Ray describes them."""

        @staticmethod
        def nodes() -> list[dict[str, Any]]:
            ids = {"0a1b2c3d4e5f": "big", "f0e1d2c3b4a5": "big", "123456789abc": "small", "deadbeef0000": "small"}
            own = {"Resources": {"CPU": 4.0, MEASURE: 1.0}}
            return [
                {**own, "NodeID": at, "NodeManagerHostname": host, "Alive": at != "deadbeef0000"} for at, host in ids.items()
            ]

    assert [one.name for one in cluster_nodes.alive(Three)] == ["big (0a1b2c3d)", "big (f0e1d2c3)", "small"]


def node(host: str, cores: int = 4, gpus: int = 0, measures: bool = True) -> Node:
    return Node(host * 8, host, cores, gpus, measures)


def test_a_training_gets_what_is_asked_and_a_measurement_a_whole_node() -> None:
    found = shares([node("a", 8), node("b", 16, 8, measures=False)], ClusterSettings("auto", train_gpus=0.25))
    assert (found["train"].cores, found["train"].gpus, found["train"].measures) == (1, 0.25, False)
    assert shares([node("a", 64, 8)], ClusterSettings("auto"))["train"].cores == 4
    assert (found["score"].cores, found["score"].gpus, found["score"].measures) == (8, 0, True)
    assert shares([node("a", 2)], ClusterSettings("local"))["train"].gpus == 0
    assert shares([node("a", 2, 1)], ClusterSettings("local"))["train"].gpus == 1


@pytest.mark.parametrize(
    ("nodes_found", "asked", "said"),
    [
        ([node("a", measures=False)], {}, "no node has the resource optkit_measure"),
        ([node("a")], {"train_gpus": 1}, "--train-gpus 1: no node of the cluster has as many GPUs: a 0"),
        ([node("a"), node("b", 2)], {"train_cores": 5}, "--train-cores 5: the largest node has 4"),
    ],
)
def test_a_cluster_without_what_is_asked_for_is_refused(nodes_found: list[Node], asked: Any, said: str) -> None:
    with pytest.raises(MachineError, match=said):
        shares(nodes_found, ClusterSettings("auto", **asked))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"address": "ray://somewhere"}, "expected auto, local or ray://HOST:PORT"),
        ({"address": "10.0.0.1:6379"}, "expected auto, local or ray://HOST:PORT"),
        ({"address": "local", "train_cores": 0}, "expected 1 or more"),
        ({"address": "local", "train_gpus": 1.5}, "a part of one"),
        ({"address": "local", "train_gpus": float("nan")}, "a part of one"),
        ({"train_cores": 2}, "give --cluster too"),
    ],
)
def test_what_no_cluster_can_be_is_refused(given: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ClusterSettings(**given)


def test_processes_that_train_together_are_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="found several processes"), connected(ClusterSettings("local")):
        pass
