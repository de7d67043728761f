"""Recipes on a cluster whose nodes share an object store alone: the bytes of one process on a disk, and nothing lost."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optkit.core import mirror, step_cache
from optkit.core.errors import MachineError
from optkit.core.object_store import Store
from optkit.pipeline import cluster_nodes
from optkit.pipeline.cluster import Cluster, connected
from optkit.pipeline.cluster_nodes import MEASURE
from optkit.pipeline.cluster_settings import ClusterSettings
from optkit.pipeline.run import in_order
from optkit.pipeline.step_graph import graph_of, title
from optkit.recipe.recipe import modules_of
from tests.conftest import S3_KEYS, main_ends
from tests.pipeline import test_cluster
from tests.pipeline.test_cluster import STEPS, contents, free_port, kill_in_its_midst, spec_of, steps, without_measuring

workshop = test_cluster.workshop
URL = "s3://bucket/checkpoints"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def machines(s3: tuple[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, pytest.MonkeyPatch]]:
    """A folder for the caches of all machines, and the environment of this process, which is the driver's."""
    caches = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**S3_KEYS, "AWS_ENDPOINT": s3[0], "XDG_CACHE_HOME": str(caches / "driver")}.items():
            patch.setenv(name, value)
        yield caches, patch


@pytest.fixture(scope="module")
def nodes(workshop: Path, machines: tuple[Path, pytest.MonkeyPatch]) -> Iterator[tuple[Any, list[Any]]]:
    """A cluster, and its two nodes that train and measure, with a core and a cache each."""
    from ray.cluster_utils import Cluster

    caches, patch = machines
    patch.setenv("RAY_AUTH_MODE", "disabled")  # whatever token this user has
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    patch.setenv("OPTKIT_TEST_STEP_S", "0.3")
    both = []
    for name in ("a", "b"):
        patch.setenv("XDG_CACHE_HOME", str(caches / name))
        both.append(cluster.add_node(num_cpus=1, resources={MEASURE: 1}))
    patch.delenv("OPTKIT_TEST_STEP_S")
    patch.setenv("XDG_CACHE_HOME", str(caches / "driver"))
    cluster.wait_for_nodes()
    patch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster, both
    cluster.shutdown()


@pytest.fixture(scope="module")
def cluster(nodes: tuple[Any, list[Any]]) -> Iterator[Cluster]:
    """A connection to the nodes, whose workers import what they need once."""
    with connected(ClusterSettings("auto")) as cluster:
        yield cluster


def test_a_node_that_dies_loses_nothing_and_the_bytes_are_those_of_a_run_on_a_disk(
    workshop: Path,
    tiny_data: Path,
    nodes: tuple[Any, list[Any]],
    cluster: Cluster,
    machines: tuple[Path, pytest.MonkeyPatch],
    caplog: pytest.LogCaptureFixture,
) -> None:
    recipes, alone = spec_of(workshop, tiny_data, "alone")
    in_order(without_measuring(graph_of(recipes, [alone])))
    (workshop / "steps").unlink()
    spec = replace(alone, root=mirror.place(URL))
    graph = without_measuring(graph_of(recipes, [spec]))
    killer = threading.Thread(target=kill_in_its_midst, args=(workshop, nodes[1]))
    killer.start()
    with cluster.on(modules_of(recipes), spec) as execute:
        execute(graph)
    killer.join()
    assert len(nodes[1]) == 1 and "its node or process died" in caplog.text
    first, last, taken = steps(workshop)[0], steps(workshop)[-1], len(steps(workshop))
    assert first != last and steps(workshop).count(last) < STEPS, "it went on from its last snapshot"
    assert not Store(URL).below("files"), "neither snapshots nor notes of the run are left"
    caches, patch = machines
    assert all(list((caches / node).glob("optkit/mirrors/*/classification")) for node in ("a", "b"))
    patch.setenv("XDG_CACHE_HOME", str(caches / "newcomer"))
    newcomer = replace(spec, root=mirror.place(URL))
    in_order(without_measuring(graph_of(recipes, [newcomer])))
    patch.setenv("XDG_CACHE_HOME", str(caches / "driver"))
    assert contents(newcomer.root) == contents(alone.root) and len(steps(workshop)) == taken, "nothing is made again"
    for record in newcomer.root.rglob(step_cache.RECORD):
        step_cache.verify(record.parent)


@pytest.mark.server
def test_the_driver_judges_and_keeps_what_nodes_have_measured(
    workshop: Path, tiny_data: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes, spec = spec_of(workshop, tiny_data, "measured")
    spec = replace(spec, root=mirror.place(URL), engines=("onnxruntime",), seconds=0.05)
    (ptq,) = (recipe for recipe in recipes if recipe.name == "ptq")
    with cluster.on(ptq.modules, spec) as execute:
        found = execute(graph_of([ptq], [spec]))
    assert [row.recipe for row in found[title("judge", "ptq", spec)]] == ["ptq"]
    main_ends(["compare", "--task", "classification", "--checkpoints", URL], 0)
    table = capsys.readouterr().out
    assert " ptq " in table and " baseline_fp32 " in table
    for step in (".", "graph", "engines", "served"):
        step_cache.verify(spec.folder(ptq) / step)


def test_a_node_that_does_not_reach_the_store_is_named(
    workshop: Path, tiny_data: Path, nodes: tuple[Any, list[Any]], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comes last: the node stays."""
    recipes, spec = spec_of(workshop, tiny_data, "blind")
    spec = replace(spec, root=mirror.place(URL))
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{free_port()}")
        nodes[0].add_node(num_cpus=1)
    cluster = replace(cluster, nodes=cluster_nodes.alive(cluster.ray))
    said = rf"{URL}: expected a store that all nodes reach:\n  - node .*: checkpoints {URL}: cannot read store.json"
    with pytest.raises(MachineError, match=said), cluster.on(modules_of(recipes), spec):
        raise AssertionError
