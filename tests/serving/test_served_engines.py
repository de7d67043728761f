"""Real engines inside the real server: what comes back is what the engine answers directly."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optkit.engines import registry as engines
from optkit.serving import repository
from optkit.serving.client import Client
from optkit.serving.config import ModelConfig
from optkit.serving.server import Server

pytestmark = pytest.mark.server

WIDTH, CLASSES, VOCABULARY = 16, 3, 200


def graph(path):
    """Masked sum of embeddings, of whose 800 blocks 20 differ, then a linear layer: [batch, sequence] to [batch, 3]."""
    random = np.random.default_rng(0)
    blocks = random.normal(size=(20, 4)).astype(np.float32)
    embedding = blocks[random.integers(0, 20, VOCABULARY * WIDTH // 4)].reshape(VOCABULARY, WIDTH)
    weight = random.normal(size=(WIDTH, CLASSES)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["tokens"]),  # [batch, sequence, width]
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["tokens", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "first"], ["sum"], keepdims=0),
        helper.make_node("MatMul", ["sum", "weight"], ["logits"]),
    ]
    constants = {"embedding": embedding, "weight": weight, "last": np.array([2]), "first": np.array([1])}
    model = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"]) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(model, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def feed(batch, sequence, seed=0):
    ids = np.random.default_rng(seed).integers(1, VOCABULARY, (batch, sequence))
    return {"input_ids": ids, "attention_mask": (ids % 5 > 0).astype(np.int64)}


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino", "torch"])
def test_the_server_answers_as_the_engine_does(kind, tmp_path):
    pytest.importorskip(kind)
    folder = tmp_path / "engine"
    folder.mkdir()
    engines.runtime(kind).build(graph(tmp_path / "model.onnx"), "fp32", folder)
    packed = [path.suffix for path in folder.glob("model.*.npz")]
    assert packed == ([".npz"] if kind != "torch" else []), "it is stored packed"
    config = ModelConfig(kind, ("input_ids", "attention_mask"), (CLASSES,), threads=1, queue_delay_us=20_000)
    repository.place(tmp_path / "repository", folder, config)
    engine = engines.load(folder, 1)
    feeds = [feed(batch, sequence, seed) for seed, (batch, sequence) in enumerate([(1, 7), (8, 32), (2, 128), (4, 1)])]
    with Server(tmp_path / "repository", tmp_path / "logs", [kind]) as server, Client(server.url, kind) as client:
        answers = client.infer_many(feeds, concurrency=4)
    for asked, answer in zip(feeds, answers, strict=True):
        np.testing.assert_allclose(answer, engine.infer(asked), rtol=1e-4, atol=1e-4)
