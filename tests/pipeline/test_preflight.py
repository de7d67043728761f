"""What is said of a recipe before any training: from the configuration alone, with the numbers."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

from optkit import Distill, Quantize, Recipe, Sparsify
from optkit.core.errors import InputError
from optkit.models import loading
from optkit.models.loading import LoadedModel
from optkit.pipeline import preflight
from optkit.pipeline.preflight import check
from optkit.pipeline.run_spec import RunSpec
from optkit.tasks import registry
from optkit.tasks.base import Task


@pytest.fixture
def bert(tiny_tokenizer: BertTokenizerFast) -> LoadedModel:
    """BERT-base without its weights."""
    with torch.device("meta"):
        return LoadedModel(BertForSequenceClassification(BertConfig()), tiny_tokenizer)


def narrow(bert: LoadedModel, width: int, heads: int = 4) -> LoadedModel:
    config = BertConfig(hidden_size=width, num_attention_heads=heads, intermediate_size=width, num_hidden_layers=1)
    with torch.device("meta"):
        return replace(bert, model=BertForSequenceClassification(config))


def refusal(recipe: Recipe, start: LoadedModel, teacher: Callable[[str], LoadedModel] | None = None) -> str:
    with pytest.raises(InputError) as error:
        check(recipe, start, teacher or (lambda name: start))
    return str(error.value)


def test_bert_base_fits(bert: LoadedModel, caplog: pytest.LogCaptureFixture) -> None:
    stages = [Distill(layers=6), Sparsify(), Quantize(epochs=1)]
    check(Recipe(name="all", stages=stages), bert, lambda name: bert)
    assert not caplog.records
    assert bert.model.config.num_hidden_layers == 12, "the model that is asked about stays as it is"


def test_labels_beside_texts_without_labels_are_refused(bert: LoadedModel, tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("the plot")
    task = registry.load("classification", tiny_data, unlabelled=str(tmp_path / "more.txt"))
    check(Recipe(name="soft", stages=[Sparsify()]), bert, lambda name: bert, task)
    with pytest.raises(InputError, match=r"sparsify: label_weight is 0\.1, and --unlabelled brings texts without labels"):
        check(Recipe(name="hard", stages=[Sparsify(label_weight=0.1)]), bert, lambda name: bert, task)
    check(Recipe(name="alone", stages=[Sparsify(teacher=None, label_weight=1)]), bert, lambda name: bert, task)


def test_a_workload_that_is_longer_than_what_is_read_is_said(
    bert: LoadedModel, tiny_task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    check(Recipe(name="long", workload=[(1, 8), (2, 600)]), bert, lambda name: bert, tiny_task)
    longest = loading.max_length(bert, tiny_task)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("recipe 'long': its workload has 2x600 tokens") and said.endswith(f"chosen at 2x{longest}")


@pytest.mark.parametrize("threshold", [{"max_p99_ms": {"x": 2.0}}, {"min_speedup": {"8": 1.5, "7": 2.0}}])
def test_a_threshold_for_what_is_not_measured(bert: LoadedModel, threshold: dict) -> None:
    found = refusal(Recipe(name="fast", stages=[Quantize()], **threshold), bert)
    assert found in {
        "max_p99_ms names batch 'x'; expected batch sizes that are measured: 1, 8, 32",
        "min_speedup names batch '7'; expected batch sizes that are measured: 1, 8, 32",
    }
    check(Recipe(name="fast", stages=[Quantize()], min_speedup={"8": 1.5}, max_p99_ms=3), bert, lambda name: bert)


def test_a_student_of_width_312_stays_dense_in_the_most_part(bert: LoadedModel, caplog: pytest.LogCaptureFixture) -> None:
    check(Recipe(name="narrow", stages=[Distill(layers=2, hidden_size=312), Sparsify()]), bert, lambda name: bert)
    (record,) = caplog.records
    lines = record.getMessage().splitlines()
    # per layer: query, key, value and attention's output 312 × 312, and the intermediate 1248 × 312, but not 312 × 1248:
    # (4 * 312 + 1248) / (4 * 312 + 2 * 1248) = 2/3
    assert record.levelno == logging.WARNING
    assert lines[0] == (
        "narrow: 10 of 12 Linear modules stay dense, 67 % of the encoder's multiply-adds with weights "
        "(2:4 takes out in multiples of 8 and in of 16):"
    )
    assert lines[1] == "  bert.encoder.layer.0.attention.self.query: out 312 = 39 × 8 + 0, in 312 = 19 × 16 + 8"
    assert lines[5] == "  bert.encoder.layer.0.intermediate.dense: out 1248 = 156 × 8 + 0, in 312 = 19 × 16 + 8"
    assert len(lines) == 1 + 10 and not any("layer.0.output.dense" in line for line in lines if "attention" not in line)


def test_nothing_that_fits_is_refused(bert: LoadedModel) -> None:
    text = refusal(Recipe(name="sparse", stages=[Sparsify()]), narrow(bert, 20))
    assert text.splitlines() == [
        "none of the 6 Linear modules in the encoder can be 2:4 (2:4 takes out in multiples of 8 and in "
        "of 16); leave Sparsify out, or choose another hidden_size:",
        *(
            f"  bert.encoder.layer.0.{part}: out 20 = 2 × 8 + 4, in 20 = 1 × 16 + 4"
            for part in (
                *("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
                *("intermediate.dense", "output.dense"),
            )
        ),
    ]


def test_without_sparsify_any_width_will_do(bert: LoadedModel, caplog: pytest.LogCaptureFixture) -> None:
    check(Recipe(name="int8", stages=[Quantize(epochs=1)]), narrow(bert, 20), lambda name: narrow(bert, 20))
    assert not caplog.records


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Distill(layers=24), "a student of 24 layers is deeper than its teacher of 12; give at most 12"),
        (
            Distill(hidden_size=1024),
            "a student 1024 wide is wider than its teacher of 768; give at most 768",
        ),
        (
            Distill(hidden_size=200),
            "hidden_size=200 is not divided by the 12 attention heads of the teacher; give 192 or 204",
        ),
    ],
)
def test_students_that_cannot_be_made(stage: Distill, message: str, bert: LoadedModel) -> None:
    assert refusal(Recipe(name="small", stages=[stage]), bert) == message


def test_the_student_is_what_is_pruned(bert: LoadedModel) -> None:
    """The teacher fits, its student does not."""
    recipe = Recipe(name="both", stages=[Distill(hidden_size=36), Sparsify()])
    assert "none of the 72 Linear modules in the encoder can be 2:4" in refusal(recipe, bert)


@pytest.mark.parametrize("stage", [Distill(layers=6, teacher="./big"), Quantize(epochs=1, teacher="./big")])
def test_a_teacher_in_a_folder_is_looked_at(stage: Distill | Quantize, bert: LoadedModel) -> None:
    asked: list[str] = []
    other = BertTokenizerFast(vocab={word: index for index, word in enumerate(["[UNK]", "[PAD]", "else"])})

    def teacher(name: str) -> LoadedModel:
        asked.append(name)
        return replace(bert, tokenizer=other)

    recipe = Recipe(name="taught", stages=[stage])
    assert refusal(recipe, bert, teacher).startswith("teacher './big' has a vocabulary of ")
    assert asked == ["./big"]
    check(recipe, bert, lambda name: bert)


def test_a_shallow_teacher_in_a_folder_is_refused(bert: LoadedModel) -> None:
    text = refusal(
        Recipe(name="deep", stages=[Quantize(epochs=1, teacher="./one")]), bert, lambda name: narrow(bert, 768, 12)
    )
    assert text == "a student of 12 layers is deeper than its teacher './one' of 1; give fewer"


def test_representations_that_cannot_be_followed_are_refused(bert: LoadedModel) -> None:
    """768 is a multiple of 32, and the student's 36 is not: known before the teacher is trained."""
    stages = [Distill(hidden_size=36, relation_heads=32)]
    text = refusal(Recipe(name="small", stages=stages), bert)
    assert text == "relation_heads=32 does not divide the student's width of 36; give one of 1, 2, 3, 4, 6, 12"


def test_a_gelu_that_is_not_there_cannot_be_clipped(bert: LoadedModel) -> None:
    """Known from the modules, on the meta device, which stay as they are."""
    clipped = Recipe(name="clipped", stages=[Quantize(gelu_clip=10.0)])
    before = [type(module) for module in bert.model.modules()]
    check(clipped, bert, lambda name: bert)
    assert [type(module) for module in bert.model.modules()] == before
    with torch.device("meta"):
        relu = replace(bert, model=BertForSequenceClassification(BertConfig(hidden_act="relu", num_hidden_layers=2)))
    assert refusal(clipped, relu).startswith("gelu_clip=10: BertForSequenceClassification has hidden_act 'relu' in 2 feed-")


@pytest.fixture
def spec_of(
    tiny_config: BertConfig, tiny_tokenizer: BertTokenizerFast, tiny_task: Task, tmp_path: Path
) -> Callable[..., RunSpec]:
    """Makes a spec of recipes on the tiny BERT of two layers, from a folder without a head."""
    BertModel(tiny_config).save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")

    def make(*recipes: Recipe) -> RunSpec:
        known = {recipe.name: recipe for recipe in (Recipe(name="baseline_fp32"), *recipes)}
        return RunSpec(tiny_task, str(tmp_path / "model"), 0, tmp_path / "checkpoints", known)

    return make


DEEP = Recipe(name="deep", stages=[Distill(layers=9)])
TAUGHT = Recipe(name="taught", stages=[Quantize(epochs=1, teacher="deep")])
INT8 = Recipe(name="int8", stages=[Quantize()])


@pytest.mark.slow
def test_recipes_that_do_not_apply_are_told_apart(spec_of: Callable[..., RunSpec], caplog: pytest.LogCaptureFixture) -> None:
    """And those that learn from them, whether these were asked for or not."""
    spec = spec_of(DEEP, TAUGHT, INT8)
    deep = "a student of 9 layers is deeper than its teacher of 2; give at most 2"
    learns = "it learns from the recipe 'deep', which does not apply"
    assert preflight.refusals([INT8, TAUGHT, DEEP], spec) == {"deep": deep, "taught": learns}
    assert preflight.refusals([INT8, TAUGHT], spec) == {"taught": learns}
    assert f"recipe 'deep' is left out, it does not apply to this model: {deep}" in caplog.messages
    with pytest.raises(InputError, match=rf"^recipe 'deep': {deep}\nrecipe 'taught': {learns}$"):
        preflight.refusals([DEEP, TAUGHT], spec)
    with pytest.raises(InputError, match=r"^recipe 'taught': it learns from"):
        preflight.require([INT8, TAUGHT], spec)
    assert not (spec.root / spec.task.name / "baseline_fp32").exists()


def test_a_recipe_without_an_engine_here_is_left_out_before_training(
    spec_of: Callable[..., RunSpec], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """PyTorch's engines in INT8 are for a GPU; nodes of a cluster may have one."""
    monkeypatch.setattr("optkit.engines.torch.aot_engine.gpus", tuple)
    spec = replace(spec_of(INT8), engines=("torch",))
    lacks = preflight.refusals([spec.baseline, INT8], spec)
    assert list(lacks) == ["int8"]
    assert lacks["int8"].startswith("Engines torch: none is built from a quantised graph on this machine (CPU with ")
    assert f"recipe 'int8' is left out, it does not apply to this machine: {lacks['int8']}" in caplog.messages
    with pytest.raises(
        InputError, match=r"^recipe 'int8': Engines torch: none is built .* Choose among openvino, onnxruntime"
    ):
        preflight.require([INT8], spec)
    assert preflight.refusals([INT8], spec, here=False) == {}
    both = replace(spec, engines=("torch", "onnxruntime"))
    assert preflight.refusals([INT8], both) == {}
    assert "recipe 'int8': this machine builds no engine of kind torch from its graph" in caplog.messages


def test_the_trial_of_a_graph_is_made_once(spec_of: Callable[..., RunSpec], monkeypatch: pytest.MonkeyPatch) -> None:
    """Per architecture and kind of graph, in whatever process; a failed one is made again."""
    tried: list[bool] = []

    def count(config: BertConfig, task: Task, quantised: bool) -> None:
        tried.append(quantised)

    monkeypatch.setattr(preflight.trial_export, "trial_export", count)
    spec = spec_of(INT8)
    for _ in range(2):
        assert preflight.refusals([spec.baseline], spec) == {}
    assert tried == [False]
    for _ in range(2):
        preflight.require([INT8, replace_name(INT8)], spec)
    assert tried == [False, True]


def replace_name(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"name": "other"})


def test_a_graph_that_cannot_be_exported_is_known_before_training(
    spec_of: Callable[..., RunSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(config: BertConfig, task: Task, quantised: bool) -> None:
        if quantised:
            raise InputError("no graph in INT8")

    monkeypatch.setattr(preflight.trial_export, "trial_export", broken)
    spec = spec_of(INT8)
    for _ in range(2):  # what failed is not kept as done
        assert preflight.refusals([spec.baseline, INT8], spec) == {"int8": "no graph in INT8"}
    monkeypatch.setattr(preflight.trial_export, "trial_export", lambda *given: broken(*given[:2], quantised=True))
    elsewhere = replace(spec, root=spec.root / "elsewhere")
    with pytest.raises(InputError, match=r"^no graph in INT8$"):
        preflight.refusals([elsewhere.baseline, INT8], elsewhere)
