"""Graphs of tiny models, and engines built from them once per session."""

import pytest
from graph.conftest import exported  # noqa: F401

from optkit import engines


@pytest.fixture(scope="session")
def built(exported, tmp_path_factory):  # noqa: F811
    """`(kind, precision, variant) -> folder` of an engine of the tiny classifier."""
    made = {}

    def get(kind, precision, variant=None, head="classification"):
        key = (kind, precision, variant, head)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("engine")
            graph = exported(head, precision == "int8")[1]
            engines.module(kind).build(graph, precision, made[key], variant)
        return made[key]

    return get
