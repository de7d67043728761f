"""Graphs of tiny models, and engines built from them once per session."""

import pytest

from optkit.engines import registry as engines
from tests.graph.conftest import exported  # noqa: F401

CPU_KINDS = ("openvino", "onnxruntime")


@pytest.fixture(scope="session")
def built(exported, tmp_path_factory):  # noqa: F811
    """`(kind, precision, variant) -> folder` of an engine of the tiny classifier."""
    made = {}

    def get(kind, precision, variant=None, head="classification"):
        key = (kind, precision, variant, head)
        if key not in made:
            folder = tmp_path_factory.mktemp("engine")
            engines.runtime(kind).build(exported(head, precision == "int8")[1], precision, folder, variant)
            made[key] = folder
        return made[key]

    return get
