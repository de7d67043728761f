"""Repositories that are built take text where that was asked for, whatever backend runs the engine."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from transformers import BertModel

from optkit import Recipe, Training
from optkit.core.atomic import hashes
from optkit.core.errors import InputError
from optkit.engines import registry as engines
from optkit.engines.record import read_record
from optkit.pipeline import library_folder, repository_builder, repository_text
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.build_engines import converted
from optkit.serving import ensemble, repository
from optkit.serving.config import dumps, parse
from optkit.serving.config import read as read_config
from optkit.serving.server import Server
from optkit.serving.text_client import TextClient
from optkit.tasks.registry import load

pytestmark = pytest.mark.server

RECIPE = Recipe(name="baseline_fp32", training=Training(epochs=4, learning_rate=3e-3, batch_size=16, precision="fp32"))
MODEL = "classification_baseline_fp32"
NAMES = {MODEL, *ensemble.names(MODEL)}
STAND_IN = f'''
import os, sys
from pathlib import Path
sys.path[1:1] = filter(None, os.environ["OPTKIT_BACKEND_PYTHONPATH"].split(os.pathsep))
import triton_python_backend_utils as pb_utils
from optkit.engines import registry

class TritonPythonModel:
    def initialize(self, args):
        self.engine = registry.load(Path(args["model_repository"], "1", "{repository.ENGINE}"), 1)

    def execute(self, requests):
        feeds = [{{one.name(): one.as_numpy() for one in request.inputs()}} for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("logits", self.engine.infer(feed))]) for feed in feeds]
'''
"""Runs an engine in the place of a native backend, which the wheel's server does not have: no padding, no checks."""


@pytest.fixture(scope="module")
def spec(tmp_path_factory, tiny_config, tiny_tokenizer, tiny_data):
    folder = tmp_path_factory.mktemp("workshop")
    torch.manual_seed(0)
    BertModel(tiny_config).save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    task = load("classification", tiny_data)
    return RunSpec(task, str(folder / "model"), 0, folder / "checkpoints", {RECIPE.name: RECIPE})


@pytest.fixture(scope="module")
def built(spec, tmp_path_factory):
    """`kind -> folder` of the engine in the one precision that its backend computes in."""
    found = {}

    def get(kind):
        if kind not in found:
            made, found[kind] = converted(RECIPE, replace(spec, engines=(kind,))), tmp_path_factory.mktemp(kind)
            precision = engines.runtime(kind).precisions(False)[-1]  # what OpenVINO's backend computes in on this CPU
            shutil.copytree(made / precision, found[kind] / precision)
        return found[kind]

    return get


def asked(root, logs, rows):
    with Server(root, logs, [ensemble.pipeline(MODEL)]) as server, TextClient(server.url, MODEL) as client:
        return [(answer.label, answer.probability) for answer in client.ask([[row] for row in rows])]


def native_served(root, engine):
    """Put the stand-in where the native backend would run the engine; all else is as it was built."""
    config = parse((root / MODEL / "config.pbtxt").read_text())
    config.backend = "python"
    config.ClearField("parameters")
    (root / MODEL / "config.pbtxt").write_text(dumps(config))
    (root / MODEL / "1" / "model.py").write_text(STAND_IN)
    shutil.copytree(engine, root / MODEL / "1" / repository.ENGINE)
    return config.max_batch_size


@pytest.mark.parametrize(("kind", "batch"), [("onnxruntime", 64), ("openvino", 0)])
def test_text_is_answered_around_a_native_engine_as_around_optkits(kind, batch, spec, built, tmp_path):
    for flavour in repository_builder.FLAVOURS:
        command = repository_builder.write(RECIPE, spec, built(kind), tmp_path / flavour, flavour, text=True)
    steps = [
        {name: hashes(tmp_path / flavour / name) for name in NAMES - {MODEL}} for flavour in repository_builder.FLAVOURS
    ]
    assert steps[0] == steps[1]
    (engine,) = built(kind).iterdir()
    assert native_served(tmp_path / "native", engine) == batch
    rows = spec.task.examples("dev")["sentence"][:9]
    found, expected = (asked(tmp_path / one, tmp_path / "logs", rows) for one in ("native", "python"))
    assert [label for label, _ in found] == [label for label, _ in expected]
    assert [share for _, share in found] == pytest.approx([share for _, share in expected], abs=0.02)
    assert command.startswith(f"docker build -f {tmp_path}/native/optkit.Dockerfile -t tritonserver-optkit:26.")


def test_the_image_is_said_and_written(spec, built, tmp_path):
    root, version = tmp_path / "my repository", read_record(built("onnxruntime") / "fp32")["runtime_version"]
    arguments = (RECIPE, spec, built("onnxruntime"), root, "native", f"26.09={version}")
    said = repository_builder.write(*arguments, text=True)
    assert said == (
        f"docker build -f '{root}/optkit.Dockerfile' -t tritonserver-optkit:26.09 . && "
        "docker run --rm -p 127.0.0.1:8000:8000 -p 127.0.0.1:8001:8001 -p 127.0.0.1:8002:8002 "
        f"-v '{root}:/models:ro' tritonserver-optkit:26.09 tritonserver --model-repository=/models "
        "--disable-auto-complete-config  # in a folder with optkit's wheel: pip wheel --no-deps -w . PATH/TO/optkit"
    )
    assert {path.name for path in root.iterdir()} == {*NAMES, "optkit.Dockerfile"}
    lines = (root / "optkit.Dockerfile").read_text().splitlines()
    assert lines[2] == "FROM nvcr.io/nvidia/tritonserver:26.09-py3"
    assert lines[-1].endswith("&& pip install numpy tokenizers pydantic")


def test_text_beside_a_model_that_is_there_is_not_replaced(spec, built, tmp_path):
    repository_builder.write(RECIPE, spec, built("onnxruntime"), tmp_path, "python", text=True)
    shutil.rmtree(tmp_path / MODEL)
    before = hashes(tmp_path)
    with pytest.raises(InputError, match=rf"model '{MODEL}_text_tokenizer' is already in"):
        repository_builder.write(RECIPE, spec, built("onnxruntime"), tmp_path, "native", text=True)
    assert hashes(tmp_path) == before
    repository_builder.write(RECIPE, spec, built("onnxruntime"), tmp_path, "native")  # without text it is only the model
    assert (tmp_path / MODEL / "1" / "model.onnx").is_file()


def test_an_engine_that_no_tokenizer_fits_is_refused(spec, built, tmp_path):
    repository_builder.write(RECIPE, spec, built("onnxruntime"), tmp_path, "python")
    config = read_config((tmp_path / MODEL / "config.pbtxt").read_text())
    with pytest.raises(InputError, match=r"--text: Triton's backend of onnxruntime has the tensors .*'segments'"):
        repository_text.around_native(replace(config, inputs=("input_ids", "segments")), built("onnxruntime") / "fp32")
    record = read_record(built("onnxruntime") / "fp32")
    shapes = [[1, 1], [8, 16], [64, 32]]
    tensors = {
        "inputs": [{"name": name, "dtype": "int64", "shape": [-1, -1]} for name in config.inputs],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": [-1, 2]}],
    }
    plan = {"kind": "tensorrt", "profiles": [dict.fromkeys(config.inputs, shapes)], "tensors": tensors}
    (folder := tmp_path / "plan").mkdir()
    (folder / "engine.json").write_text(json.dumps(record | plan))
    assert repository_text.around_native(replace(config, max_sequence=32), folder).max_batch_size == 64
    with pytest.raises(InputError, match=r"takes 32 tokens, and texts have up to 48. .* --option sequence=1,32,48"):
        repository_text.around_native(replace(config, max_sequence=48), folder)
    shapes[:] = [[rows, 32] for rows, _ in shapes]
    (folder / "engine.json").write_text(json.dumps(record | plan))
    with pytest.raises(InputError, match=r"has the tensors .*\[-1, 32\].* expected .*\[-1, -1\]"):
        repository_text.around_native(replace(config, max_sequence=32), folder)


def test_text_without_a_repository_is_refused_before_anything_is_built(tmp_path):
    with pytest.raises(InputError, match="--text: is of a model repository; add --flavour python or native"):
        repository_builder.check(None, tmp_path, (), text=True)
    with pytest.raises(InputError, match="--text: a folder of the flavour optimum holds the graph"):
        library_folder.check("optimum", tmp_path / "out", text=True)
