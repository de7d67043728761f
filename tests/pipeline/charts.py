"""Repositories to make charts of, charts as Helm renders them, and what Kubernetes says of the result."""

import dataclasses
import json

import pytest
import yaml

from optkit.pipeline.chart import Asked, write
from optkit.registry.disk import locked
from optkit.registry.release import place
from tests.registry import small
from tests.serving.test_native import RECORD

CONTAINER = "26.08=1.31"
NO_HELM = "no Helm: pip install -e '.[test]'"
IMAGE = "registry.example/optkit-triton:1"
PLAN = {**RECORD, "settings": {"version_compatible": False, "hardware": "none"}, "capability": [9, 0], "default_threads": 16}


def publish(root, release, row=None):
    """Publish a release without a server; `row` replaces fields of its row."""
    if row is not None:
        changed = {**release.provenance, "row": {**release.provenance["row"], **row}}
        release = dataclasses.replace(release, provenance=changed)
    with locked(root, "test"):
        place(root, release, lambda staged: {"served_by": "nobody"})
    return str(root)


def plan(release, folder, **record):
    """The release with an engine of which only the record is true: a plan of TensorRT."""
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.plan").write_bytes(b"plan")
    (folder / "engine.json").write_text(json.dumps({**PLAN, **record}))
    return dataclasses.replace(release, engine=folder)


def chart(out, *repositories, flavour="native", models=(small.MODEL,), **asked):
    """Write a chart; returns what is said of it."""
    given = {"containers": [CONTAINER]} if flavour == "native" else {"images": [IMAGE] * len(repositories)}
    return write(Asked(models, repositories, flavour, **given | asked), out)


def rendered(out, values=None):
    """The documents that Helm makes of a chart, `{(kind, name): document}`."""
    helm = pytest.importorskip("helm_python", reason=NO_HELM)
    with helm.Chart.load(out) as loaded:
        texts = loaded.render(values or {}, name="sst2", namespace="text")
    every = [one for name, text in texts.items() if name.endswith(".yaml") for one in yaml.safe_load_all(text) if one]
    return {(one["kind"], one["metadata"]["name"]): one for one in every}


def require_valid(documents):
    """Compare documents with Kubernetes' own schemas; fields that it does not know are errors."""
    validator = pytest.importorskip("kubernetes_validate", reason="pip install -e '.[test]'")
    own = ("monitoring.coreos.com/v1", "serving.kserve.io/v1beta1")
    for one in documents.values():
        if one["apiVersion"] not in own:
            validator.validate(one, "1.37", strict=True)
