"""Charts are valid to Helm and Kubernetes, follow what was published and measured, and are refused where pods would fail."""

import dataclasses
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml

from optkit.cli.app import main
from optkit.core.errors import InputError, MachineError
from optkit.pipeline import chart_sizing
from optkit.pipeline.chart import Asked
from optkit.registry import rollback
from optkit.registry.signing import Trust
from tests.registry import small

from . import charts

pytestmark = pytest.mark.slow

QUEUE = {"off": [{"rate": 50.0, "per_compute": 0.2}, {"rate": 100.0, "per_compute": 2.2}], "on": []}
LOAD = {"p99_ms": 50.0, "queue": QUEUE, "memory_mb": {"off": 300.0, "on": None}}


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return small.release(tmp_path_factory.mktemp("engine") / "0", labels=small.LABELS)


@pytest.fixture(scope="module")
def repository(release, tmp_path_factory):
    """One model, of whose engine a load test was published."""
    return charts.publish(tmp_path_factory.mktemp("published") / "repository", release, {"load": LOAD})


@pytest.fixture(scope="module")
def plans(release, tmp_path_factory):
    """The same model as a plan for a GPU."""
    folder = tmp_path_factory.mktemp("plans")
    return charts.publish(folder / "repository", charts.plan(release, folder / "plan"))


def pod(documents, name):
    return documents["Deployment", name]["spec"]["template"]["spec"]


CHANGES = {
    "as it is": {},
    "gRPC": {"service": {"grpc": True}},
    "no autoscaler": {"autoscaling": {"enabled": False}, "metrics": {"enabled": False}, "networkPolicy": {"enabled": False}},
    "a store": {"pools": {"cpu": {"repository": {"claim": "", "endpoint": "http://minio:9000", "secret": "keys"}}}},
    "of others": {"serviceAccount": "reader", "imagePullSecrets": [{"name": "nvcr"}]},
    "KServe": {"kserve": {"enabled": True}},
}


@pytest.mark.parametrize("flavour", ["native", "python"])
def test_every_resource_is_valid_to_kubernetes(flavour, repository, plans, tmp_path):
    charts.chart(tmp_path / "chart", repository, plans, flavour=flavour)
    for values in CHANGES.values():
        found = charts.rendered(tmp_path / "chart", values)
        charts.require_valid(found)
        kinds = {kind for kind, _ in found}
        assert {"ConfigMap", "Service", "PodDisruptionBudget"} <= kinds
        assert ("InferenceService" in kinds) == (values is CHANGES["KServe"]) != ("Deployment" in kinds)
        assert ("HorizontalPodAutoscaler" in kinds) == (values is not CHANGES["no autoscaler"])


def test_a_field_that_kubernetes_does_not_know_is_found(repository, tmp_path):
    charts.chart(tmp_path / "chart", repository)
    found = charts.rendered(tmp_path / "chart")
    found["HorizontalPodAutoscaler", "sst2-cpu"]["spec"]["maxReplica"] = 3
    with pytest.raises(Exception, match="maxReplica"):
        charts.require_valid(found)


def test_plain_manifests_are_the_same_resources(repository, tmp_path):
    pytest.importorskip("helm_python", reason=charts.NO_HELM)
    charts.chart(tmp_path / "chart", repository)
    plain = list(yaml.safe_load_all((tmp_path / "chart" / "manifests.yaml").read_text()))
    assert None not in plain
    charts.require_valid(dict(enumerate(plain)))
    assert {one["kind"] for one in plain} == {kind for kind, _ in charts.rendered(tmp_path / "chart")}


def test_without_helm_the_chart_is_written_and_the_manifests_are_said_to_be_missing(repository, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "helm_python", None)
    said = charts.chart(tmp_path / "chart", repository)
    assert said[-1].startswith("manifests.yaml was not written, as Helm is not installed: pip install 'optkit[chart]'")
    assert (tmp_path / "chart" / "values.yaml").is_file() and not (tmp_path / "chart" / "manifests.yaml").exists()


def test_a_pod_is_confined(repository, tmp_path):
    charts.chart(tmp_path / "chart", repository)
    found = charts.rendered(tmp_path / "chart")
    spec = pod(found, "sst2-cpu")
    assert spec["securityContext"]["runAsNonRoot"] and spec["automountServiceAccountToken"] is False
    for container in (*spec["initContainers"], *spec["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    served = spec["containers"][0]
    assert "envFrom" not in served, "the store's keys are the fetching container's alone"
    assert {mount["name"]: mount.get("readOnly") for mount in served["volumeMounts"]}["models"]
    policy = found["NetworkPolicy", "sst2-cpu"]["spec"]
    assert policy["egress"] == [] and [one["ports"] for one in policy["ingress"]] == [
        [{"port": "http"}],
        [{"port": "metrics"}],
    ]


def test_replicas_are_sized_and_started_by_what_was_measured(repository, tmp_path):
    said = charts.chart(tmp_path / "chart", repository)
    found = charts.rendered(tmp_path / "chart")
    (metric,) = found["HorizontalPodAutoscaler", "sst2-cpu"]["spec"]["metrics"]
    # 80/s lie between 50/s and 100/s: 0.2 + 2.0 * 30 / 50
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "1400m"}
    assert metric["pods"]["metric"]["selector"] == {"matchLabels": {"model": small.MODEL}}
    assert pod(found, "sst2-cpu")["containers"][0]["resources"] == {
        "requests": {"cpu": "1", "memory": "300M"},
        "limits": {"cpu": "1", "memory": "975M"},
    }
    assert "100/s are held within a p99 of 50 ms" in said[0] and "guessed" not in said[0]
    assert 'key: "intra_op_thread_count"' in (tmp_path / "chart" / "files" / "cpu" / f"{small.MODEL}.pbtxt").read_text()


@pytest.mark.parametrize(
    ("load", "why"),
    [({}, "guessed, as optkit load has not"), ({**LOAD, "queue": {"off": [], "on": []}}, "no rate within a p99 of 50 ms")],
)
def test_what_nobody_measured_is_said_to_be_guessed(load, why, release, tmp_path):
    root = charts.publish(tmp_path / "repository", release, {"load": load})
    said = charts.chart(tmp_path / "chart", root)
    assert why in said[0]
    assert f'threshold: "{chart_sizing.GUESS * 1000:.0f}m"' in (tmp_path / "chart" / "values.yaml").read_text()


def packed(release, folder):
    """The release with its engine's graph in a packed file."""
    shutil.copytree(release.engine, folder)
    content = np.fromfile(folder / "model.onnx", np.uint8)
    np.savez(folder / "model.onnx.npz", places=np.zeros((0, 2), np.int64), rest=content)
    (folder / "model.onnx").unlink()
    return dataclasses.replace(release, engine=folder)


def test_a_packed_engine_is_for_optkit_s_pods_alone_and_sized_by_what_it_expands_to(release, tmp_path):
    evidence = {"load": {}, "evidence": {"expanded_bytes": 200_000_000}}
    root = charts.publish(tmp_path / "repository", packed(release, tmp_path / "engine"), evidence)
    with pytest.raises(InputError, match=r"its model\.onnx is published packed, .* --flavour python"):
        charts.chart(tmp_path / "native", root)
    charts.chart(tmp_path / "python", root, flavour="python")
    found = "".join(path.read_text() for path in sorted((tmp_path / "python").rglob("*")) if path.is_file())
    assert "model.onnx.npz" in found and "memory: 600M" in found  # 100 of the server, 100 of the instance, twice the engine


def test_a_gpu_is_a_values_file_away_and_one_name_serves_both(repository, plans, tmp_path):
    charts.chart(tmp_path / "chart", repository, plans)
    found = charts.rendered(tmp_path / "chart")
    (service,) = [one for (kind, _), one in found.items() if kind == "Service"]
    for name in ("sst2-cpu", "sst2-gpu"):
        labels = found["Deployment", name]["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
    assert pod(found, "sst2-cpu")["containers"][0]["image"] == "nvcr.io/nvidia/tritonserver:26.08-py3"
    on_gpu = pod(found, "sst2-gpu")
    assert on_gpu["containers"][0]["image"] == "nvcr.io/nvidia/tritonserver:26.07-py3"
    assert on_gpu["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert on_gpu["nodeSelector"] == {"nvidia.com/gpu.compute.major": "9", "nvidia.com/gpu.compute.minor": "0"}
    moved = charts.rendered(tmp_path / "chart", yaml.safe_load((tmp_path / "chart" / "values-gpu.yaml").read_text()))
    assert [name for kind, name in moved if kind == "Deployment"] == ["sst2-gpu"]
    assert moved["Service", "sst2"] == service


def test_a_plan_for_several_cards_asks_for_none(release, tmp_path):
    several = {"settings": {"version_compatible": False, "hardware": "ampere_plus"}}
    root = charts.publish(tmp_path / "repository", charts.plan(release, tmp_path / "plan", **several))
    charts.chart(tmp_path / "chart", root, containers=[])
    assert pod(charts.rendered(tmp_path / "chart"), "sst2-gpu")["nodeSelector"] == {}


def test_another_version_is_a_rolling_update_and_the_earlier_chart_comes_back(release, tmp_path):
    root, out = tmp_path / "repository", tmp_path / "chart"

    def rolled_out():
        charts.chart(out, str(root))
        found = charts.rendered(out)
        return found["Deployment", "sst2-cpu"]["spec"]["template"]["metadata"]["annotations"]["optkit/models"]

    charts.publish(root, release)
    first = rolled_out()
    assert rolled_out() == first
    charts.publish(root, small.release(tmp_path / "other", seed=1, labels=small.LABELS))
    assert rolled_out() != first
    assert 'appVersion: "classification_tiny=2"' in (out / "Chart.yaml").read_text()
    rollback.rollback(root, small.MODEL, None)
    assert rolled_out() == first


def test_older_containers_are_warned_of(repository, tmp_path, caplog):
    charts.chart(tmp_path / "chart", repository, containers=[])
    assert "container 26.08 has onnxruntime 1.28.0, and the engine was built by" in caplog.text


def test_what_pods_could_not_run_is_refused(release, repository, plans, tmp_path):
    with pytest.raises(MachineError, match=r"container 26\.08 has onnxruntime 1\.2, the engine was built by"):
        charts.chart(tmp_path / "chart", repository, containers=["26.08=1.2"])
    for flavour in ("native", "python"):
        folder = tmp_path / flavour
        root = charts.publish(folder / "repository", charts.plan(release, folder / "plan", offline=True))
        with pytest.raises(MachineError, match="built without a GPU, by TensorRT for RTX, and no container runs it"):
            charts.chart(tmp_path / "chart", root, flavour=flavour, **{"containers": []} if flavour == "native" else {})
    root = tmp_path / "both"
    charts.publish(root, charts.plan(small.release(tmp_path / "2", name="planned"), tmp_path / "plan"))
    charts.publish(root, release)
    with pytest.raises(
        InputError, match=r"some engines run on a GPU and others do not \(planned tensorrt, classification_tiny"
    ):
        charts.chart(tmp_path / "chart", str(root), models=["planned", small.MODEL])
    assert not (tmp_path / "chart").exists()


def test_pools_that_could_not_stand_behind_one_name_are_refused(release, repository, plans, tmp_path):
    with pytest.raises(InputError, match="both have engines for a CPU, and a chart has one pool of each kind"):
        charts.chart(tmp_path / "chart", repository, repository, containers=[charts.CONTAINER] * 2)
    other = small.release(tmp_path / "other", labels=("no", "yes", "perhaps"))
    other.provenance["labels"] = ["no", "yes", "perhaps"]
    mine = small.release(tmp_path / "mine", labels=small.LABELS)
    mine.provenance["labels"] = list(small.LABELS)
    roots = charts.publish(tmp_path / "a", mine), charts.publish(tmp_path / "b", charts.plan(other, tmp_path / "plan"))
    with pytest.raises(InputError, match=r"labels bad, good, neither, and this is for no, yes, perhaps"):
        charts.chart(tmp_path / "chart", *roots)
    root = charts.publish(tmp_path / "cards", charts.plan(mine, tmp_path / "9"))
    charts.publish(
        tmp_path / "cards", charts.plan(small.release(tmp_path / "x", name="older"), tmp_path / "8", capability=[8, 0])
    )
    with pytest.raises(InputError, match="built on different cards"):
        charts.chart(tmp_path / "chart", root, models=[small.MODEL, "older"], containers=[])


BAD_IMAGES = [
    "Optkit", "-optkit", "a..b", "a___b", "a/", "/a", "a//b", "a:", "a:-1", "a:1:2", "a@1", "my_host.example:5000/a",
    "-host.example/a", "a.b:port/a", "", " ", "optkit ", "optkit\n", "x" * 256, f"a:{'x' * 129}",
]  # fmt: skip
GOOD_IMAGES = ["optkit", "team/a:1.0", "localhost:5000/a__b/c-d.e_f", "Registry.Example/a", f"a:1@sha256:{'0' * 64}"]


@pytest.mark.parametrize("name", GOOD_IMAGES)
def test_images_by_every_kind_of_name_are_taken(name):
    assert Asked([small.MODEL], ["repository"], "python", images=[name]).images == [name]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"models": ["nothing"]}, "'nothing' is not in the repository"),
        ({"models": []}, "found none, expected at least one"),
        ({"models": [small.MODEL] * 2}, "each once"),
        ({"models": ["x" * 64]}, "no label of Kubernetes"),
        ({"flavour": "wasm", "images": []}, "--flavour wasm: expected one of native, python"),
        ({"images": [charts.IMAGE]}, "--image: found 1, expected 0"),
        ({"flavour": "python", "images": []}, "--image: found 0, expected 1"),
        ({"containers": ["26.08=1.31"] * 2}, "--container: found 2"),
        ({"flavour": "python", "images": ["x y"]}, "--image 'x y': expected an image's name"),
        ({"flavour": "python", "images": ["INVALID:::"]}, "--image 'INVALID:::': expected an image's name"),
        *(
            ({"flavour": "python", "images": [name]}, re.escape(f"--image {name!r}: expected an image"))
            for name in BAD_IMAGES
        ),
        ({"flavour": "python", "containers": ["26.08 x"]}, "--container '26.08 x': expected the year and month"),
        ({"containers": ["latest=1.31"]}, "--container 'latest=1.31': expected the year and month"),
        ({"flavour": "python", "containers": ["26.08=1.31"]}, "--container 26.08=1.31: is the image's base"),
    ],
)
def test_wrong_options_are_named(asked, why, repository, tmp_path):
    with pytest.raises(InputError, match=why):
        charts.chart(tmp_path / "chart", repository, **asked)


def test_only_what_was_published_and_signed_gets_a_chart(release, tmp_path):
    root = tmp_path / "repository"
    charts.publish(root, release)
    trust = Trust([small.key(tmp_path, "publisher").with_suffix(".pub")])
    with pytest.raises(InputError, match="unsigned; publish it again with --sign KEY"):
        charts.chart(tmp_path / "chart", str(root), trust=trust)
    with (root / small.MODEL / "1" / "engine" / "model.onnx").open("ab") as file:
        file.write(b" ")
    with pytest.raises(InputError, match="is not what was published"):
        charts.chart(tmp_path / "chart", str(root))


def test_a_chart_replaces_a_chart_and_nothing_else(repository, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "one.txt").write_text("dear")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "Chart.yaml").write_text("apiVersion: v2\nname: somebody-elses\n")
    for name in ("letters", "other"):
        with pytest.raises(InputError, match="exists and holds no chart"):
            charts.chart(tmp_path / name, repository)
    charts.chart(tmp_path / "chart", repository, flavour="python")
    charts.chart(tmp_path / "chart", repository)
    assert not list((tmp_path / "chart").glob("Dockerfile*"))


def test_the_image_has_what_the_backends_import(repository, tmp_path):
    charts.chart(tmp_path / "chart", repository, flavour="python")
    text = (tmp_path / "chart" / "Dockerfile.cpu").read_text()
    code = (
        "import sys, types; sys.modules['triton_python_backend_utils'] = types.ModuleType('x')\n"
        "from optkit.serving.backend import answer, model, tokenizer\n"
        "from optkit.engines import registry; from pathlib import Path; from optkit.tasks.served import TextSettings\n"
        f"version = Path({repository!r}) / {small.MODEL!r} / '1'\n"
        "registry.load(version / 'engine', 1); TextSettings.read(next((version / 'text').glob('*_answer')) / '1')\n"
        "files = [getattr(one, '__file__', None) or '' for one in sys.modules.values()]\n"
        "print(*{one.split('site-packages/')[1].split('/')[0] for one in files if 'site-packages/' in one})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {one for one in done.stdout.split() if not one.startswith(("_", "typing_extensions.py"))}
    of_pydantic, of_runtime = (
        {"pydantic", "pydantic_core", "annotated_types", "typing_inspection"},
        {"onnxruntime", "flatbuffers"},
    )
    assert imported - of_pydantic - of_runtime <= {"numpy", "tokenizers"}
    assert "pip install numpy tokenizers pydantic" in text and "pip install 'onnxruntime==" in text


def test_the_command_says_what_it_wrote(repository, tmp_path, capsys):
    out = tmp_path / "chart"
    options = ["--repository", repository, "--container", charts.CONTAINER, "--out", str(out)]
    with pytest.raises(SystemExit) as end:
        main(["chart", small.MODEL, *options, "--checkpoints", str(tmp_path)])
    said = capsys.readouterr()
    assert end.value.code == 0 and said.out == f"{out}\n"
    assert "set pools.cpu.repository.claim" in said.err and "text pipelines are not served" in said.err
