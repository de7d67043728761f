"""The Python API: every example of the documents runs as it stands, and what is wrong is refused in the caller's words."""

import copy
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertTokenizerFast,
    Trainer,
    TrainingArguments,
)

import optkit
from optkit.core.errors import GateError, InputError
from optkit.models import families, two_to_four
from optkit.models.loading import LoadedModel, inference
from optkit.tasks.base import Task
from optkit.tasks.collate import Collator, run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
MODEL = "bert-base-uncased-finetuned"


def examples(document: str) -> dict[str, str]:
    """The Python of a document by heading, "" before the first."""
    parts = re.split(r"^## (.+)$", (ROOT / document).read_text(), flags=re.MULTILINE)
    texts = {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}
    code = {heading: "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)) for heading, text in texts.items()}
    return {heading: lines for heading, lines in code.items() if lines}


API = examples("docs/api.md")


@pytest.fixture
def desk(tiny_model: LoadedModel, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the data and the model that the examples name."""
    shutil.copytree(tiny_data, tmp_path / "reviews")
    tiny_model.model.save_pretrained(tmp_path / MODEL)
    tiny_model.tokenizer.save_pretrained(tmp_path / MODEL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def batches(tiny_task: Task, tiny_tokenizer: BertTokenizerFast) -> list[dict[str, torch.Tensor]]:
    """Inputs as a DataLoader gives them, labels included."""
    texts = ["a lovely film", "this dull story with the poor cast"]
    return [{**tiny_tokenizer(texts, padding=True, return_tensors="pt"), "labels": torch.tensor([1, 0])}]


@pytest.fixture
def held(desk: Path, batches: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
    """What the reader of the examples has at hand: a task, a model, a `Trainer` of it, batches."""
    names: dict[str, Any] = {"batches": batches}
    exec(API[""], names)
    rows = [{name: tensor[row] for name, tensor in batches[0].items()} for row in range(2)] * 8
    arguments = TrainingArguments(
        str(desk / "trainer"), num_train_epochs=1, learning_rate=1e-3, report_to=[], use_cpu=True, disable_tqdm=True
    )
    names["trainer"] = Trainer(names["model"].model, arguments, train_dataset=rows)
    ids, mask, types = (batches[0][name].numpy() for name in ("input_ids", "attention_mask", "token_type_ids"))
    return names | {"ids": ids, "mask": mask, "types": types}


@pytest.mark.server
@pytest.mark.parametrize("heading", [heading for heading in API if heading])
def test_examples_of_the_api(heading: str, held: dict[str, Any], desk: Path) -> None:
    exec(API[heading], held)
    assert {path.name for path in desk.iterdir()} <= {"reviews", MODEL, "out", "trainer"}, "nothing else is left behind"


def test_examples_in_the_readme(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(examples("README.md")["Your model, in Python"].split("from optkit import")[0], {})
    assert "accuracy" in capsys.readouterr().out


def test_every_public_name() -> None:
    assert set(optkit.__all__) <= set(dir(optkit))
    for name in optkit.__all__:
        assert getattr(optkit, name).__doc__, name
    with pytest.raises(AttributeError, match=r"'quantise'; it has .*quantize_"):
        optkit.quantise  # noqa: B018 looked up on purpose


def test_a_model_of_ones_own(tiny_config: BertConfig, batches: list[dict[str, torch.Tensor]], tmp_path: Path) -> None:
    """No task, no tokenizer, no `load_model`: only transformers."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(copy.deepcopy(tiny_config)).eval()
    before = model(**batches[0]).logits.detach().numpy()
    optkit.quantize_(model, optkit.Quantize(calibrator="max"), calibration=batches)
    after = model(**batches[0]).logits.detach().numpy()
    assert not np.array_equal(before, after), "the model itself is quantised"
    engine = optkit.build_engine(optkit.export_onnx(model, tmp_path), "onnxruntime", "int8")
    served = engine.infer({name: tensor.numpy() for name, tensor in batches[0].items()})
    assert np.abs(served - before).max() < 0.2 * np.abs(before).max()
    assert engine.evidence()["int8_gemm_share"] > 0.99
    with pytest.raises(InputError, match="found fake quantisers in the model, expected a float one"):
        optkit.sparsify_(model)
    again = optkit.load_engine(optkit.build_engine(tmp_path / "model.onnx", "onnxruntime", "int8").folder)
    assert np.array_equal(again.infer({name: tensor.numpy() for name, tensor in batches[0].items()}), served)


def test_a_question_answerer_without_a_task(tiny_config: BertConfig, batches: list[Any], tmp_path: Path) -> None:
    graph = optkit.export_onnx(BertForQuestionAnswering(copy.deepcopy(tiny_config)).eval(), tmp_path)
    logits = optkit.build_engine(graph, "onnxruntime", "fp32").infer({k: v.numpy() for k, v in batches[0].items()})
    assert logits.shape == (*batches[0]["input_ids"].shape, 2), "start and end, token by token"


def test_zeros_stay_while_ones_own_loop_trains(tiny_model: LoadedModel, batches: list[dict[str, torch.Tensor]]) -> None:
    optkit.sparsify_(tiny_model)
    weights = [linear.weight for linear in families.encoder_linears(tiny_model.model).values()]
    zeros = [weight == 0 for weight in weights]
    optimizer = torch.optim.SGD(tiny_model.model.parameters(), lr=0.1)
    with optkit.keep_sparse(tiny_model):
        tiny_model.model(**batches[0]).loss.backward()
        optimizer.step()
    assert all(bool((weight[zero] == 0).all()) for weight, zero in zip(weights, zeros, strict=True))
    assert len(two_to_four.sparse_linears(families.encoder_linears(tiny_model.model))) == len(weights)
    with pytest.raises(GateError, match="keep_sparse"), optkit.keep_sparse(tiny_model), torch.no_grad():
        weights[0].fill_(1.0)  # as an optimiser that moves weights without gradients


def test_nothing_is_trained_without_a_task_and_that_is_said(
    tiny_model: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    assert optkit.sparsify_(tiny_model) == []
    assert "Sparsify: nothing is trained, as there is no task" in caplog.text


def test_sparsegpt_wants_something_to_read(tiny_model: LoadedModel, batches: list[dict[str, torch.Tensor]]) -> None:
    stage = optkit.Sparsify(criterion="sparsegpt")
    with pytest.raises(InputError, match="sparsify_: found nothing that SparseGPT could read"):
        optkit.sparsify_(tiny_model, stage)
    optkit.sparsify_(tiny_model, stage, calibration=batches)
    two_to_four.check(families.prunable(tiny_model.model), "after it")


def test_a_student_leaves_its_teacher_as_it_is(tiny_model: LoadedModel, tiny_task: Task) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_model.model.state_dict().items()}
    student = optkit.distill(tiny_model, optkit.Distill(layers=1, epochs=0.25), tiny_task)
    assert student.model.config.num_hidden_layers == 1
    assert tiny_model.model.config.num_hidden_layers == 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_model.model.state_dict().items())


def test_several_teachers_are_averaged(tiny_model: LoadedModel, tiny_task: Task) -> None:
    """The model and one that always says the opposite: together they say nothing."""
    opposite = copy.deepcopy(tiny_model)
    with torch.no_grad():
        opposite.model.classifier.weight.neg_()
        opposite.model.classifier.bias.neg_()
    stage = optkit.Distill(layers=1, steps=60, representation_epochs=0, learning_rate=3e-3)
    student = optkit.distill(tiny_model, stage, tiny_task, teacher=[tiny_model, opposite])
    features, collator = tiny_task.encode("dev", student.tokenizer), Collator.of(tiny_task, student.tokenizer)
    logits = np.stack(run(inference(student.model, tiny_task), features, 32, collator))
    assert np.abs(logits[:, 0] - logits[:, 1]).max() < 0.1
    with pytest.raises(InputError, match="teacher: found an empty list"):
        optkit.distill(tiny_model, stage, tiny_task, teacher=[])
    with pytest.raises(InputError, match=r"teacher: found './big', expected a model, as optkit\.load_model\(folder, task\)"):
        optkit.distill(tiny_model, stage, tiny_task, teacher="./big")  # type: ignore[arg-type]


def test_a_model_that_is_changed_in_place_teaches_as_it_was(tiny_model: LoadedModel, tiny_task: Task) -> None:
    other, stage = copy.deepcopy(tiny_model), optkit.Quantize(calibrator="mse", steps=3)
    optkit.quantize_(other, stage, task=tiny_task, teacher=copy.deepcopy(tiny_model))
    for teacher in (None, tiny_model):
        model = copy.deepcopy(tiny_model)
        optkit.quantize_(model, stage, task=tiny_task, teacher=teacher and model)
        assert model.remarks == other.remarks, "the divergence from the teacher"


def test_a_teacher_that_is_given_twice_is_said(tiny_model: LoadedModel, tiny_task: Task) -> None:
    stage, other = optkit.Sparsify(steps=1, representation_epochs=0), copy.deepcopy(tiny_model)
    optkit.sparsify_(tiny_model, stage, task=tiny_task, teacher=[other, other])
    assert tiny_model.remarks == ["one of the teachers was given 2 times, and counts as often in the average"]


def test_a_delta_and_its_interval(tiny_model: LoadedModel, tiny_task: Task) -> None:
    untrained = optkit.evaluate(tiny_model, tiny_task)
    assert untrained.delta(untrained) == (0.0, 0.0, 0.0)
    assert untrained.value == untrained.scores["accuracy"]
    assert len(untrained.predictions) == len(untrained.outcomes) == 64
    student = optkit.evaluate(optkit.distill(tiny_model, optkit.Distill(layers=1, epochs=4), tiny_task), tiny_task)
    delta = student.delta(untrained)
    assert delta.points == pytest.approx(student.value - untrained.value)
    assert delta.low <= delta.points <= delta.high


def test_settings_and_models_of_another_kind_are_refused(
    tiny_model: LoadedModel, tiny_task: Task, tiny_config: BertConfig, batches: list[dict[str, torch.Tensor]]
) -> None:
    with pytest.raises(InputError, match=r"config: found Sparsify.*expected optkit.Quantize"):
        optkit.quantize_(tiny_model, optkit.Sparsify(), calibration=batches)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="distill: found no task"):
        optkit.distill(tiny_model, optkit.Distill(layers=1), None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="found nothing to read the model's activations on"):
        optkit.sparsify_(copy.deepcopy(tiny_model), optkit.Sparsify(criterion="magnitude", keep_dense="auto"))
    with pytest.raises(InputError, match="found teacher='distill_6l' in its settings"):
        optkit.quantize_(tiny_model, optkit.Quantize(epochs=1, teacher="distill_6l"), task=tiny_task)
    with pytest.raises(InputError, match="task: found 'classification', expected a task"):
        optkit.evaluate(tiny_model, "classification")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected a PreTrainedModel"):
        optkit.quantize_("model/", calibration=batches)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"weights are torch.float16, expected torch.float32; model.float\(\)"):
        optkit.sparsify_(BertForSequenceClassification(copy.deepcopy(tiny_config)).half())
    with pytest.raises(InputError, match="found no 2:4 weights"), optkit.keep_sparse(tiny_model):
        pass


def test_a_head_of_other_classes_is_refused(tiny_model: LoadedModel, tiny_task: Task, tiny_config: BertConfig) -> None:
    tokenizer, names = tiny_model.tokenizer, dict(tiny_model.model.config.id2label)
    tiny_model.model.config.id2label = dict(enumerate(reversed(names.values())))
    with pytest.raises(InputError, match="its head's classes are good, bad"):
        optkit.evaluate(tiny_model.model, tiny_task, tokenizer=tokenizer)
    with pytest.raises(InputError, match="another head than the task's"):
        optkit.evaluate(BertForQuestionAnswering(copy.deepcopy(tiny_config)), tiny_task, tokenizer=tokenizer)
    three = copy.deepcopy(tiny_config)
    three.num_labels = 3
    with pytest.raises(InputError, match="its head has 3 classes, the task has 2"):
        optkit.evaluate(BertForSequenceClassification(three), tiny_task, tokenizer=tokenizer)


def test_given_calibration_counts_before_the_scales_of_a_checkpoint(
    tiny_model: LoadedModel, tiny_task: Task, batches: list[dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    optkit.quantize_(copy.deepcopy(tiny_model), calibration=batches)
    scaled = copy.deepcopy(tiny_model)
    optkit.quantize_(scaled, calibration=batches)
    scaled.model.save_pretrained(tmp_path)
    tiny_model.tokenizer.save_pretrained(tmp_path)
    other = [{"input_ids": torch.full((1, 3), 7)}]
    fresh, given = optkit.load_model(tmp_path, tiny_task), copy.deepcopy(tiny_model)
    assert fresh.amax
    optkit.quantize_(fresh, calibration=other)
    optkit.quantize_(given, calibration=other)
    name = next(name for name in fresh.amax if "input_quantizer" in name)
    amax = [float(one.model.get_submodule(name).amax) for one in (fresh, given, scaled)]
    assert amax[0] == pytest.approx(amax[1], rel=1e-2)
    assert amax[0] != pytest.approx(amax[2], rel=1e-2)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"recipes": []}, "recipes: found"),
        ({"recipes": optkit.Quantize()}, "recipes: found"),
        ({"seeds": 0}, "seeds: found 0, expected one or more integers"),
        ({"seeds": []}, "seeds: found"),
        ({"engine": "onnx"}, "Engine kind 'onnx' is unknown"),
        ({"options": {"onnxrutime": {}}}, "Engine kind 'onnxrutime' is unknown"),
    ],
)
def test_a_run_refuses_what_it_cannot_do(
    change: dict[str, Any], told: str, tiny_model: LoadedModel, tiny_task: Task
) -> None:
    given = {"recipes": optkit.Recipe(name="r"), "task": tiny_task, "model": tiny_model} | change
    with pytest.raises(InputError, match=told):
        optkit.run(**given)


def test_a_run_starts_from_a_float_model(
    tiny_model: LoadedModel, tiny_task: Task, batches: list[dict[str, torch.Tensor]]
) -> None:
    optkit.quantize_(tiny_model, calibration=batches)
    with pytest.raises(InputError, match="expected the float model that recipes start from"):
        optkit.run(optkit.Recipe(name="r", stages=[optkit.Quantize()]), tiny_task, tiny_model)


def test_nothing_to_compare_is_said() -> None:
    with pytest.raises(InputError, match="found no rows"):
        optkit.compare([])


def test_what_is_missing_is_asked_for(
    tiny_config: BertConfig, tiny_task: Task, tiny_model: LoadedModel, tmp_path: Path
) -> None:
    bare = BertForSequenceClassification(copy.deepcopy(tiny_config))
    with pytest.raises(InputError, match="found nothing to calibrate on; expected calibration=batches"):
        optkit.quantize_(bare)
    with pytest.raises(InputError, match="need its tokenizer; give tokenizer="):
        optkit.evaluate(bare, tiny_task)
    with pytest.raises(InputError, match="found one batch, expected several"):
        optkit.quantize_(bare, calibration={"input_ids": [[1]]})
    for wrong, told in {
        "found no batch": [],
        "a batch that is a tuple": [([[1]], [[1]])],
        r"found input_ids \[3\]": [{"input_ids": [1, 2, 3]}],
        r"\[1, 2\] of float64": [{"input_ids": [[1.5, 2.0]]}],
        "rows of different lengths": [{"input_ids": [[1], [1, 2]]}],
        "of 17 tokens, the model has positions for 16": [{"input_ids": [[1] * 17]}],
        "from 1 to 900, the model knows 0 to 18": [{"input_ids": [[1, 900]]}],
    }.items():
        with pytest.raises(InputError, match=wrong):
            optkit.quantize_(bare, calibration=told)
    with pytest.raises(InputError, match="found a batch with labels, expected input_ids"):
        optkit.quantize_(bare, calibration=[{"labels": [1]}])
    with pytest.raises(InputError, match="BertForMaskedLM: no task has its head"):
        optkit.export_onnx(BertForMaskedLM(copy.deepcopy(tiny_config)), tmp_path)
    engine = optkit.build_engine(optkit.export_onnx(bare, tmp_path), "onnxruntime", "fp32")
    with pytest.raises(InputError, match="holds no engine"):
        optkit.build_engine(tmp_path / "model.onnx", "onnxruntime", "fp32", ROOT / "optkit")  # nothing of it is touched
    with pytest.raises(InputError, match="no tokenizer beside it or its graph; give tokenizer="):
        optkit.evaluate(engine, tiny_task)
    with pytest.raises(InputError, match="found twice"):
        optkit.run([optkit.Recipe(name="one"), optkit.Recipe(name="one")], tiny_task, tiny_model)
