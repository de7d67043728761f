"""`optkit build --engine tensorrt` where there is no GPU: trained, exported, rewritten, built, with evidence and config."""

import json
from dataclasses import replace

import pytest
from transformers import BertConfig, BertModel

from optkit.cli.app import main
from optkit.core.errors import InputError, MachineError
from optkit.core.json_door import read_json
from optkit.engines import build_only
from optkit.engines import registry as engines
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.build_plans import planned
from optkit.recipe import finder
from optkit.serving.config import parse
from optkit.tasks.registry import load
from tests.conftest import main_ends

pytestmark = [
    pytest.mark.skipif(engines.runtime("tensorrt").runs_here(), reason="there is a GPU: plans are built and timed"),
    pytest.mark.slow,
]
TRAINING = "Training(epochs=1, learning_rate=3e-3, batch_size=16, precision='fp32')"


RECIPES = {
    "baseline_fp32": "",
    "ptq_int8": "Quantize(calibrator='mse')",
    "per_tensor_int8": "Quantize(weights='per_tensor')",
    "distill_1l_sparse": "Distill(layers=1, epochs=1), Sparsify(epochs=0), Quantize(calibrator='mse')",
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory, tiny_tokenizer):
    """A folder with a baseline, a quantised recipe, and a pretrained model without a head, of 16 positions."""
    folder = tmp_path_factory.mktemp("workshop")
    (folder / "recipes").mkdir()
    for name, stages in RECIPES.items():
        text = "from optkit import Distill, Quantize, Recipe, Sparsify, Training\n\n"
        text += f"recipe = Recipe(name={name!r}, stages=[{stages}], training={TRAINING})\n"
        (folder / "recipes" / f"{name}.py").write_text(text)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(tiny_tokenizer), max_position_embeddings=16, **sizes)).save_pretrained(folder / "m")
    tiny_tokenizer.save_pretrained(folder / "m")
    return folder


@pytest.fixture(scope="module")
def spec(workshop, tiny_data):
    _, known = finder.find([str(path) for path in sorted((workshop / "recipes").iterdir())])
    task = load("classification", tiny_data)
    options = {"tensorrt": {"timing_cache": str(workshop / "kernels.timing")}}
    return RunSpec(task, str(workshop / "m"), 0, workshop / "checkpoints", known, ("tensorrt",), options=options)


@pytest.fixture(scope="module")
def int8(spec):
    """Folder of the quantised recipe's plans."""
    return planned(spec.recipes["ptq_int8"], spec, "tensorrt")


def test_a_quantised_recipe_leaves_a_plan_its_config_and_its_evidence(int8):
    folder = int8 / "int8"
    assert {path.name for path in folder.iterdir()} == {"1", "build.log", "config.pbtxt", "engine.json", "evidence.json"}
    assert (folder / "1" / "model.plan").stat().st_size > 10_000
    evidence = json.loads((folder / "evidence.json").read_text())
    assert evidence["int8_gemm_share"] > 0.9
    assert evidence["graph"]["covered_gemms"] == evidence["graph"]["encoder_gemms"] == 12
    assert evidence["graph"]["quantized_residuals"] == evidence["graph"]["residuals"] == 4
    record = json.loads((folder / "engine.json").read_text())
    assert (record["kind"], record["precision"], record["variant"]) == ("tensorrt", "int8", "fp16")
    config = parse((folder / "config.pbtxt").read_text())
    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 64)
    assert [tensor.name for tensor in config.input] == record["inputs"]


def test_weights_with_one_scale_each_give_gemms_that_write_int8(spec):
    folder = planned(spec.recipes["per_tensor_int8"], spec, "tensorrt") / "int8"
    record, evidence = (json.loads((folder / name).read_text()) for name in ("engine.json", "evidence.json"))
    assert record["variant"] == "int8-out"
    assert evidence["gemm_outputs"] == {"int8": 10, "fp16": 3, "fp32": 1}
    encoder = {name: kinds for name, kinds in evidence["gemms"].items() if "/layer." in name}
    assert {kinds["weight"] for kinds in encoder.values()} == {"int8"}
    written = {name: kinds["output"] for name, kinds in encoder.items()}
    assert {name for name, kind in written.items() if kind != "int8"} == {
        f"/model/bert/encoder/layer.{layer}/intermediate/dense/MatMul" for layer in (0, 1)
    }
    stored = engines.runtime("tensorrt").stored_evidence(folder)
    assert "gemms" not in stored and stored["gemm_outputs"] == evidence["gemm_outputs"]


def test_a_sparse_student_has_the_outputs_of_its_gemms_quantised(spec):
    folder = planned(spec.recipes["distill_1l_sparse"], spec, "tensorrt") / "int8"
    record, evidence = (json.loads((folder / name).read_text()) for name in ("engine.json", "evidence.json"))
    assert (record["variant"], record["settings"]["sparse"]) == ("fp16-outputs", True)
    assert evidence["sparse_weights"] == evidence["graph"]["encoder_gemms"] == 6  # one layer
    assert evidence["graph"]["quantized_attention_products"] == 2
    assert evidence["int8_gemm_share"] > 0.9
    assert evidence["sparse_layers_chosen"] is None  # which kernel runs is decided on the card


def test_nothing_is_said_to_have_been_timed_or_compared(int8):
    (candidate,) = read_json(int8 / "conversion.json")["candidates"]
    assert candidate["chosen"] and not candidate["agreed"] and candidate["ms"] == {}
    assert candidate["refusal"] == build_only.not_run(engines.runtime("tensorrt"))


def test_the_baseline_has_a_plan_in_each_precision(spec):
    folder = planned(spec.recipes["baseline_fp32"], spec, "tensorrt")
    found = {path.name: json.loads((path / "evidence.json").read_text()) for path in folder.iterdir() if path.is_dir()}
    assert set(found) == {"fp32", "fp16", "bf16"}
    for precision, evidence in found.items():
        assert evidence["gemm_precisions"] == {precision: 14}
        assert evidence["int8_gemm_share"] == 0


def test_plans_leave_the_engines_of_the_cpu_alone_and_are_not_built_twice(spec, int8):
    quantised = spec.recipes["ptq_int8"]
    folder = spec.folder(quantised)
    assert int8 == folder / "plans" and not (folder / "engines").exists()
    before = (int8 / "record.json").stat().st_mtime_ns
    assert planned(quantised, spec, "tensorrt") == int8
    assert (int8 / "record.json").stat().st_mtime_ns == before


def test_the_command_copies_the_plans(workshop, tiny_data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(workshop)
    common = ["--task", "classification", "--data", str(tiny_data), "--model", str(workshop / "m"), "--engine", "tensorrt"]
    shapes = ["--batch", "1,1,1/1,4,8", "--sequence", "1,8,16", "--variant", "fp16-attention"]
    with pytest.raises(SystemExit) as end:
        main(["build", "ptq_int8", *common, *shapes, "--out", str(tmp_path / "out")])
    assert end.value.code in (0, None), capsys.readouterr().err
    assert capsys.readouterr().out == f"{tmp_path / 'out'}\n"
    config = parse((tmp_path / "out" / "int8" / "config.pbtxt").read_text())
    assert config.max_batch_size == 8
    assert list(config.instance_group[0].profile) == ["0", "1"]
    evidence = json.loads((tmp_path / "out" / "int8" / "evidence.json").read_text())
    assert evidence["graph"]["quantized_attention_products"] == 4


def test_a_profile_beyond_the_positions_is_refused_and_what_was_built_stays(spec, int8):
    longer = replace(spec, options={"tensorrt": {"sequence": "1,16,512"}})
    before = (int8 / "record.json").read_text()
    with pytest.raises(InputError, match=r"sequences of up to 512 tokens, but the graph has positions for 16\. Give"):
        planned(spec.recipes["ptq_int8"], longer, "tensorrt")
    assert (int8 / "record.json").read_text() == before


def test_what_cannot_be_compared_here_is_refused(capsys):
    with pytest.raises(InputError, match="tensorrt and openvino: plans cannot be run on this machine"):
        build_only.only_built(["tensorrt", "openvino"])
    main_ends(["build", "ptq_int8", "--task", "sample", "--engine", "openvino", "--refit"], 2)
    assert "options of TensorRT were given without it: add --engine tensorrt" in capsys.readouterr().err
    assert build_only.only_built(["tensorrt"]) == "tensorrt"
    assert not build_only.only_built([])


def test_running_needs_a_gpu():
    with pytest.raises(MachineError, match=r"needs an NVIDIA GPU .* `optkit build RECIPE --task TASK --engine tensorrt`"):
        engines.require_running("tensorrt")
    engines.require_running("openvino")


def test_a_float_recipe_has_no_variants(spec):
    asked = replace(spec, options={"tensorrt": {"variant": "fp16-attention"}})
    with pytest.raises(InputError, match="only INT8 plans have variants"):
        planned(spec.recipes["baseline_fp32"], asked, "tensorrt")
