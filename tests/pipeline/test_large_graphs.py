"""Weights in a file beside the graph, from the export to what is published: everything that models over 2 GiB go through.

`python benchmarks/large.py` does it with a model of that size, which takes minutes and 12 GiB of memory.
"""

import json

import numpy as np
import onnx
import pytest
import torch
from transformers import BertModel

from optkit import Quantize, Recipe, Training
from optkit.compression import checkpoint
from optkit.core.step_cache import read_record
from optkit.engines import registry as engines
from optkit.engines import select
from optkit.graph import onnx_file
from optkit.pipeline.publish import Options, publish
from optkit.pipeline.run import run
from optkit.pipeline.run_spec import RunSpec
from optkit.registry import layout
from optkit.registry.verify import verify
from optkit.serving import native
from optkit.serving.client import Client
from optkit.serving.server import Server
from optkit.tasks.registry import load

pytestmark = pytest.mark.server

TRAINING = Training(epochs=4, learning_rate=3e-3, batch_size=16, precision="fp32")
RECIPES = {
    "baseline_fp32": Recipe(name="baseline_fp32", training=TRAINING, max_drop=20),
    "ptq_int8": Recipe(name="ptq_int8", stages=[Quantize(calibrator="mse")], training=TRAINING, max_drop=20),
}
MODEL, FILES = "classification_ptq_int8", {"model.onnx", "model.onnx.data"}
DATA = "engine/model.onnx.data"


@pytest.fixture(scope="module")
def spec(tmp_path_factory, tiny_config, tiny_tokenizer, tiny_data):
    """Both recipes, run and scored through the server, with engines of ONNX Runtime."""
    folder = tmp_path_factory.mktemp("workshop")
    torch.manual_seed(0)
    config = type(tiny_config)(**tiny_config.to_dict() | {"hidden_size": 64})
    BertModel(config).save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    task = load("classification", tiny_data)
    made = RunSpec(task, str(folder / "model"), 0, folder / "checkpoints", RECIPES, ("onnxruntime",), seconds=0.05)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(onnx_file, "LARGEST", 1)
        for recipe in RECIPES.values():
            run(recipe, made)
    return made


@pytest.fixture(scope="module")
def published(spec, tmp_path_factory):
    """The version of the quantised recipe, published after its trial in a server."""
    root = tmp_path_factory.mktemp("published") / "repository"
    return publish("ptq_int8", "classification", spec.root, root, options=Options(force=True, why="a test of files"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_graph_and_engines_are_two_files_each(spec, recipe):
    folder = spec.folder(RECIPES[recipe])
    (engine,) = [path.parent for path in folder.glob("engines/*/engine.json")]
    for place in (folder / "graph", engine):
        assert {path.name for path in place.iterdir()} >= FILES
        inside = onnx_file.structure(place / "model.onnx").graph.initializer
        assert all(len(tensor.raw_data) <= onnx_file.SMALL for tensor in inside)
        assert (place / "model.onnx.data").stat().st_size > 10_000
    assert set(read_record(folder / "graph")["files"]) > FILES
    assert json.loads((folder / "result.json").read_text())[0]["rungs"].keys() >= {"pytorch", "graph", "engine", "server"}


@pytest.mark.parametrize("quantised", [False, True])
def test_every_engine_for_this_cpu_agrees_with_the_graph(spec, quantised, tmp_path):
    recipe = RECIPES["ptq_int8" if quantised else "baseline_fp32"]
    loaded = checkpoint.load(spec.folder(recipe), spec.task)
    features = spec.features("dev", loaded.tokenizer)
    feeds = [spec.collator(loaded.tokenizer).feed(features.select(range(16)))]
    conversion = select.convert(
        spec.folder(recipe) / "graph" / "model.onnx",
        tmp_path,
        quantised=quantised,
        feeds=feeds,
        task=spec.task,
        max_length=16,
        shapes=[(1, 8)],
        rounds=1,
        threads=1,
    )
    able = {kind for kind in engines.installed() if engines.runtime(kind).precisions(quantised)}
    assert {one.kind for one in conversion.candidates} == able
    assert [one.refusal for one in conversion.candidates if not one.agreed] == []


def test_a_native_model_has_its_weights(spec, tmp_path):
    engine = spec.folder(RECIPES["ptq_int8"]) / "engines" / "int8"
    model = native.place(tmp_path, "native", engine)
    assert {path.name for path in (model / "1").iterdir()} == FILES
    onnx.load(model / "1" / "model.onnx")  # reads the weights, and raises where they are not there


def test_what_is_published_has_its_weights_and_answers(published, spec, tmp_path):
    root, engine = published.parents[1], engines.load(spec.folder(RECIPES["ptq_int8"]) / "engines" / "int8", 1)
    assert {f"engine/{name}" for name in FILES} < set(layout.provenance(published)["files"])
    assert verify(root) == []
    ids = np.array([[2, 6, 7, 15, 3], [2, 9, 12, 3, 0]])
    feed = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64), "token_type_ids": np.zeros_like(ids)}
    with Server(root, tmp_path / "logs", [MODEL]) as server, Client(server.url, MODEL) as client:
        np.testing.assert_allclose(client.infer(feed), engine.infer(feed), rtol=1e-4, atol=1e-5)


def test_a_changed_weight_is_found(published):
    path = published / DATA
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        (complaint,) = verify(published.parents[1])
        assert f"{DATA}: SHA-256 is" in complaint
        path.unlink()
        assert verify(published.parents[1]) == [f"{path}: missing"]
    finally:
        path.write_bytes(content)
