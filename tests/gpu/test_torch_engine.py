"""Engines of PyTorch's compiler on a card: they answer as their graph, with padding, without it, and from recorded runs."""

import numpy as np
import pytest

from optkit.core.gpu import gpus
from optkit.engines.torch.aot_engine import RUNTIME
from optkit.graph import reference
from tests.graph.conftest import exported  # noqa: F401
from tests.graph.models import feed

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason="no NVIDIA GPU here")]
NOISE = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 0.1, "int8": 0.15}
"""Allowed share of noise in the logits."""
ALL = [("fp32", "f32"), ("fp16", "fp16"), ("bf16", "bf16"), ("int8", "fp16"), ("int8", "bf16")]


@pytest.mark.parametrize(("precision", "variant"), ALL)
def test_an_engine_answers_as_its_graph(exported, tmp_path, precision, variant):  # noqa: F811
    graph = exported(is_quantised=precision == "int8")[1]
    RUNTIME.build(graph, precision, tmp_path, variant)
    handle, engine = reference.load(graph), RUNTIME.load(tmp_path)
    assert RUNTIME.evidence(engine)["packed"] == (precision != "fp32")
    for shape in ((1, 2), (3, 9), (8, 16)):
        batch = feed(*shape, 0)
        batch["attention_mask"][0, max(1, shape[1] // 2) :] = 0
        expected = reference.infer(handle, batch)
        signal = np.abs(expected - expected.mean()).mean()
        for _ in range(4):  # compiled, recorded, and replayed
            found = RUNTIME.infer(engine, batch)
            assert np.abs(found - expected).mean() < NOISE[precision] * signal
