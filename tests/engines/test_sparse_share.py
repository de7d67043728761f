"""How much of an engine's weights is 2:4: by hand, and read in what each runtime has written."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from optkit.engines import onnxruntime
from optkit.engines import registry as engines
from optkit.engines.sparse_share import sparse_share
from optkit.graph.export import export
from optkit.tasks.classification import Classification
from tests.engines.conftest import CPU_KINDS
from tests.graph.models import LENGTH, bert, quantised, sparse

pytestmark = pytest.mark.slow


def test_whole_weights_and_groups_are_counted() -> None:
    sparse = np.tile(np.array([0, 3, 0, 5], np.int8), (8, 4))  # [out, in]: 32 groups
    dense = np.ones((2, 9), np.float32)  # 4 groups and a rest that is none
    dense[0, :3] = 0
    assert sparse_share([sparse, dense]) == {
        "sparse_weights": 1,
        "stored_weights": 2,
        "sparse_groups_kept": round(33 / 36, 6),
    }


def test_the_other_axis_is_not_sparse() -> None:
    sparse = np.tile(np.array([0, 3, 0, 5], np.int8), (8, 4))
    assert sparse_share([sparse.T])["sparse_weights"] == 0


def test_without_whole_groups_nothing_is_sparse() -> None:
    assert sparse_share([np.zeros((4, 3))]) == {"sparse_weights": 0, "stored_weights": 1, "sparse_groups_kept": None}
    assert sparse_share([])["sparse_groups_kept"] is None


def test_an_unsigned_weight_is_read_around_its_zero():
    stored = np.tile(np.array([128, 130, 128, 1], np.uint8), (8, 2)).T  # [in, out]
    product = helper.make_node("MatMulIntegerToFloat", ["a", "b"], ["c"])
    found = onnxruntime._weight(numpy_helper.from_array(stored), product)
    assert found[0, :4].tolist() == [0, 2, 0, -127]
    assert sparse_share([found])["sparse_weights"] == 1


ALL = [(kind, *how) for kind in CPU_KINDS for how in (("fp32", bert), ("int8", quantised))]


@pytest.mark.parametrize(
    ("kind", "precision", "make"), [one for one in ALL if one[1] in engines.runtime(one[0]).precisions(one[1] == "int8")]
)
def test_the_masks_are_found_in_the_artefact(kind, precision, make, built, tmp_path):
    graph = export(sparse(make()), tmp_path / "graph", LENGTH, Classification)
    (tmp_path / "engine").mkdir()
    engines.runtime(kind).build(graph, precision, tmp_path / "engine")
    found = engines.load(tmp_path / "engine", threads=1).evidence()
    assert (found["sparse_weights"], found["stored_weights"]) == (12, 14)  # 2 layers of 6; the pooler and the head
    assert 0.9 < found["sparse_groups_kept"] < 1
    dense = engines.load(built(kind, precision), threads=1).evidence()
    assert (dense["sparse_weights"], dense["stored_weights"]) == (0, 14)
    assert dense["sparse_groups_kept"] < 0.1
