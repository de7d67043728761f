"""The manifest for KubeRay: its pods are ones that Kubernetes takes, and they do what `optkit run --cluster` looks for."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from optkit.pipeline.cluster_nodes import MEASURE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def documents() -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all((ROOT / "docs" / "kuberay.yaml").read_text())}


def groups(cluster: Any) -> dict[str, Any]:
    spec = cluster["spec"]
    return {"head": spec["headGroupSpec"], **{group["groupName"]: group for group in spec["workerGroupSpecs"]}}


def test_kubernetes_takes_the_claim_and_every_pod(documents: dict[str, Any]) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="pip install -e '.[test]'")
    validator.validate(documents["PersistentVolumeClaim"], "1.37", strict=True)
    for name, group in groups(documents["RayCluster"]).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, **group["template"]}
        validator.validate(pod, "1.37", strict=True)


def test_every_pod_has_the_store_and_reports_nothing(documents: dict[str, Any]) -> None:
    claim = documents["PersistentVolumeClaim"]["metadata"]["name"]
    for group in groups(documents["RayCluster"]).values():
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        (store,) = (volume for volume in spec["volumes"] if "persistentVolumeClaim" in volume)
        assert store["persistentVolumeClaim"]["claimName"] == claim
        assert {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}[store["name"]] == "/store"
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
        assert spec["securityContext"]["runAsNonRoot"] and spec["automountServiceAccountToken"] is False


def test_one_kind_of_machine_measures(documents: dict[str, Any]) -> None:
    """Ray reads the resources as JSON in a quoted string: the operator puts it on a command line."""
    found = groups(documents["RayCluster"])
    assert [name for name, group in found.items() if "resources" in group["rayStartParams"]] == ["measuring"]
    said = found["measuring"]["rayStartParams"]["resources"]
    assert json.loads(json.loads(said)) == {MEASURE: 1}
    assert found["measuring"]["template"]["spec"]["nodeSelector"]
    assert found["head"]["rayStartParams"]["num-cpus"] == "0"


def test_it_is_the_version_of_ray_that_is_tested(documents: dict[str, Any]) -> None:
    pinned = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("ray==")]
    assert pinned == [f"ray=={documents['RayCluster']['spec']['rayVersion']}"]
