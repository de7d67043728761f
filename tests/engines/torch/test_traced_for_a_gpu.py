"""Graphs traced as for a card, with tensors that have a place on it and no content: calls that its operators would refuse
for a type, a size or an order in memory are found without one."""

import numpy as np
import pytest
import torch
from onnx import TensorProto
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from optkit.engines.torch.compiling import exported as traced
from optkit.engines.torch.float8_products import to_float8
from optkit.engines.torch.fusions import fuse
from optkit.engines.torch.onnx_module import OnnxModule
from optkit.engines.torch.packing import pack
from optkit.engines.torch.sparse_products import Way, join_sparse_products
from optkit.graph import onnx_file
from optkit.graph.tensorrt.half_precision import to_16bit

pytest.importorskip("triton", reason="kernels of a GPU are written in Triton's language: pip install triton")
pytestmark = pytest.mark.slow
KINDS = {
    "fp16": {"packed_attention"},
    "int8": {"packed_attention", "int8_linear"},
    "fp8": {"packed_attention", "_scaled_mm"},
    "2:4 fp16": {"packed_attention", "_cslt_sparse_mm"},
    "2:4 int8": {"packed_attention", "_cslt_sparse_mm"},
}
"""Operators of a card that each kind must call."""


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_takes_the_calls(exported, monkeypatch, kind):
    graph = exported(is_quantised="8" in kind)[1]
    model = onnx_file.load(graph)
    fuse(model.graph, TensorProto.FLOAT16)
    if kind == "fp8":
        to_float8(model.graph, np.float16)
    assert pack(model.graph)
    to_16bit(model, "fp16")
    if "2:4" in kind:
        monkeypatch.setattr("optkit.engines.torch.sparse_products.is_two_to_four", lambda weight: True)
        assert join_sparse_products(model.graph, lambda product: Way(1, 0))["sparse_layers_chosen"] == 8
    module = OnnxModule(model.graph).eval()
    with FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True):
        for name, buffer in list(module.named_buffers()):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda"))
        program = traced(module, (4, 16), 4, 32, graph)
    names = {str(node.target).split(".")[1] for node in program.graph.nodes if "." in str(node.target)}
    assert names >= KINDS[kind]
    assert {
        node.meta["val"].device.type for node in program.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)
    } == {"cuda"}
