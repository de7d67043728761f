"""What each module costs by itself: divergences by hand, the choice under a budget, and layers that are really left out."""

import copy
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from optkit import Quantize, Sparsify
from optkit.compression import checkpoint, kept, quantizers, sensitivity
from optkit.compression.context import Context
from optkit.compression.sensitivity import Effect, OneByOne
from optkit.core.errors import GateError, InputError
from optkit.graph.audit import audit
from optkit.graph.export import export
from optkit.models import two_to_four
from optkit.models.families import encoder_linears
from optkit.models.loading import LoadedModel
from optkit.tasks.base import Feed, TaskKind
from optkit.tasks.classification import Classification
from optkit.tasks.regression import Regression

QUERY, OUT = "bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.1.output.dense"
LINEARS = 12


def test_divergences_by_hand() -> None:
    """KL of 1/4, 3/4 from 1/2, 1/2, beside a decision that has not moved; and squared distances of values."""
    reference = [torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()]
    moved = [torch.tensor([[0.25, 0.75], [0.25, 0.75]]).log()]
    expected = 0.5 * (0.5 * torch.tensor(2.0).log() + 0.5 * torch.tensor(2 / 3).log())
    assert sensitivity._distance(moved, reference, Classification) == pytest.approx(float(expected))
    values = [torch.tensor([[1.0], [2.0]])], [torch.tensor([[1.5], [1.0]])]
    assert sensitivity._distance(*values, Regression) == pytest.approx((0.25 + 1) / 2)


def test_the_choice_by_hand() -> None:
    """What brings most comes first, where it fits; what brings nothing is never left."""
    found = [
        Effect("d", -0.2, 0.01),
        Effect("b", 1.2, 0.3),
        Effect("a", 0.5, 0.05),
        Effect("c", 0.6, 0.25),
        Effect("e", 0, 0.01),
    ]
    assert [effect.part for effect in sensitivity.choose(found, 0.3)] == ["b"]
    assert [effect.part for effect in sensitivity.choose(found, 0.29)] == ["c"]
    assert [effect.part for effect in sensitivity.choose(found, 0.9)] == ["b", "c", "a"]
    assert sensitivity.choose(found, 0.02) == []
    assert [effect.part for effect in sensitivity.choose(found, 0.9, least=0.5)] == ["b", "c"]


def test_gains_are_what_leaving_a_module_takes_away(tiny_model: LoadedModel, tiny_context: Context) -> None:
    trial = Quantize(calibration_examples=32).one_by_one(spoiled(tiny_model), tiny_context)
    feeds = list(tiny_context.feeds(64))
    found = {effect.part: effect for effect in sensitivity.gains(trial, feeds, tiny_context.task)}
    assert tuple(found) == trial.names and sum(effect.share for effect in found.values()) == pytest.approx(1)
    rest = [name for name in trial.names if name != OUT]
    without, whole = sensitivity.effects(trial, feeds, tiny_context.task, {"rest": rest, "all": trial.names})
    assert found[OUT].divergence == pytest.approx(whole.divergence - without.divergence)
    assert max(found.values(), key=lambda effect: effect.divergence).part == OUT


def test_a_choice_stands_only_if_it_helps_on_other_examples(tiny_model: LoadedModel, tiny_context: Context) -> None:
    trial = Quantize(calibration_examples=32).one_by_one(spoiled(tiny_model), tiny_context)
    asked: list[int] = []

    def of_out(trial: OneByOne, feeds: Sequence[Feed], task: TaskKind) -> list[Effect]:
        asked.append(len(feeds))
        return [Effect(OUT, 1, 0)]

    names, said = sensitivity.chosen(trial, tiny_context, of_out, "keep_float", "float", 0.5)
    assert asked == [2], "of eight batches"
    assert names == [OUT] and f"left float: {OUT}; " in said and "on other training examples" in said
    names, said = sensitivity.chosen(trial, tiny_context, lambda *given: [], "keep_float", "float", 0.5)
    assert names == [] and "50% of the multiply-adds: nothing is left float, as no module that fits is worth more" in said


def test_nothing_is_left_for_rounding(tiny_model: LoadedModel, tiny_context: Context) -> None:
    """All answers of a model hardly differ, so that INT8 moves them by less than FP32 rounds them."""
    with torch.no_grad():
        tiny_model.model.classifier.weight.mul_(1e-4)
    stage = Quantize(keep_float="auto", keep_budget=0.5, calibration_examples=32)
    stage.apply(tiny_model, tiny_context)
    assert kept.names(tiny_model.model, "quantize") == frozenset()
    assert "nothing is left float, as all modules together move the answers by no more than FP32" in tiny_model.remarks[0]
    values = [torch.tensor([[300.0], [400.0]])]
    assert sensitivity._rounding(values, Regression) == pytest.approx(125_000 * torch.finfo(torch.float32).eps)


def test_nothing_is_left_for_next_to_nothing(tiny_model: LoadedModel, tiny_context: Context) -> None:
    trial, task = Sparsify().one_by_one(tiny_model, tiny_context), tiny_context.task
    feeds = list(tiny_context.feeds(512))
    checked_on = [feed for number, feed in enumerate(feeds) if number % sensitivity.CHECKED]
    (whole,) = sensitivity.effects(trial, checked_on, task, {"all": trial.names})
    gains = sensitivity.gains(trial, checked_on, task)
    little = [one for one in gains if 0 < one.divergence < sensitivity.LEAST_TOGETHER * whole.divergence]
    assert little and whole.divergence > 1000 * sensitivity.ROUNDING
    names, said = sensitivity.chosen(trial, tiny_context, lambda *given: little[:1], "keep_dense", "dense", 0.5)
    assert names == [] and f"nothing is left dense, as it is not worth it: {little[0].part} together KL" in said
    alone = [Effect(OUT, whole.divergence / 2000, 0)]
    names, said = sensitivity.chosen(trial, tiny_context, lambda *given: alone, "keep_dense", "dense", 0.5)
    assert names == [] and "no module that fits is worth more than" in said


def spoiled(loaded: LoadedModel) -> LoadedModel:
    """A model in which one module can only lose: a channel that it reads is large, and matters little."""
    with torch.no_grad():
        linear = encoder_linears(loaded.model)[OUT]
        linear.weight.mul_(5)
        linear.weight[:, ::2] *= 0.01
        linear.weight[0, 1] = 300.0
    return loaded


@pytest.mark.parametrize("stage", [Quantize(calibration_examples=32), Sparsify()])
def test_each_module_alone_and_the_model_as_before(
    stage: Quantize | Sparsify, tiny_model: LoadedModel, tiny_context: Context
) -> None:
    before = copy.deepcopy(tiny_model.model.state_dict())
    trial = stage.one_by_one(tiny_model, tiny_context)
    assert len(trial.names) == LINEARS
    feeds = list(tiny_context.feeds(64))
    groups = {**sensitivity.singles(trial.names), **sensitivity.by_layer(trial.model, trial.names)}
    found = {effect.part: effect for effect in sensitivity.effects(trial, feeds, tiny_context.task, groups)}
    assert list(found)[-3:] == ["layer 0", "layer 1", "all"] and found["all"].share == pytest.approx(1)
    assert sum(found[name].share for name in trial.names) == pytest.approx(1)
    assert all(effect.divergence > 0 for effect in found.values())
    assert found["all"].divergence > max(found[name].divergence for name in trial.names)
    for name, tensor in tiny_model.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    again = sensitivity.effects(trial, feeds, tiny_context.task, {"all": trial.names})
    assert again == [found["all"]], "measuring changes nothing"


@pytest.mark.slow
def test_auto_leaves_float_what_costs_most(tiny_model: LoadedModel, tiny_context: Context, tmp_path: Path) -> None:
    loaded = spoiled(tiny_model)
    # as in training, beside what is left float: all scales, and the checkpoint, and the graph
    stage = Quantize(keep_float="auto", keep_budget=0.2, calibrator="kl", calibration_examples=64, embeddings=False)
    stage.apply(loaded, tiny_context)
    left = kept.names(loaded.model, "quantize")
    assert OUT in left and kept.share(encoder_linears(loaded.model), left) <= 0.2
    assert quantizers.by_linear(loaded.model).keys() == encoder_linears(loaded.model).keys() - left
    (remark,) = loaded.remarks
    assert remark.startswith("keep_float='auto', at most 20% of the multiply-adds: left float: ") and OUT in remark
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    checkpoint.save(loaded, [stage], [], folder)
    again = checkpoint.load(folder, tiny_context.task)
    assert kept.names(again.model, "quantize") == left and again.remarks == loaded.remarks
    feed = next(iter(tiny_context.feeds(16)))
    inputs = {name: torch.from_numpy(array) for name, array in feed.items()}
    assert torch.equal(again.model(**inputs).logits, loaded.model.eval()(**inputs).logits)
    found = audit(export(again.model, tmp_path / "graph", 16, tiny_context.task))
    stage.check_graph(found, again.model)
    assert (found.covered_gemms, set(found.kept_float)) == (LINEARS - len(left), left)
    assert found.covered_share == pytest.approx(1 - kept.share(encoder_linears(loaded.model), left))
    with pytest.raises(InputError, match="stays float, expected quantised"):
        found.check_quantised()


@pytest.mark.parametrize("epochs", [0, 1])
def test_patterns_name_what_stays_float(epochs: int, tiny_model: LoadedModel, tiny_context: Context) -> None:
    stage = Quantize(
        keep_float="*.attention.self.query", calibration_examples=16, epochs=epochs, teacher=None, weights="per_tensor",
        scale_rate=float(epochs),
    )  # fmt: skip
    stage.apply(tiny_model, tiny_context)
    assert kept.names(tiny_model.model, "quantize") == {QUERY, QUERY.replace("layer.0", "layer.1")}
    assert len(quantizers.by_linear(tiny_model.model)) == LINEARS - 2
    assert "keep_float: " in tiny_model.remarks[0] and "12.5% of the encoder's multiply-adds" in tiny_model.remarks[0]


def test_what_stays_dense(tiny_model: LoadedModel, tiny_context: Context, tmp_path: Path) -> None:
    stage = Sparsify(keep_dense="auto", keep_budget=0.3, criterion="sparsegpt", epochs=1, teacher=None)
    stage.apply(spoiled(tiny_model), tiny_context)
    left, linears = kept.names(tiny_model.model, "sparsify"), encoder_linears(tiny_model.model)
    assert left and kept.share(linears, left) <= 0.3
    assert two_to_four.sparse_linears(linears).keys() == linears.keys() - left
    assert tiny_model.remarks[0].startswith("keep_dense='auto', at most 30% of the multiply-adds: left dense: ")
    checkpoint.save(tiny_model, [stage], [], tmp_path)
    assert kept.names(checkpoint.load(tmp_path, tiny_context.task).model, "sparsify") == left
    found = audit(export(tiny_model.model, tmp_path / "graph", 16, tiny_context.task))
    stage.check_graph(found, tiny_model.model)
    kept.record(tiny_model.model, "sparsify", ())
    with pytest.raises(GateError, match=f"broken after all in {len(left)} of 12"):
        stage.check(tiny_model.model, "after all")


def test_sparse_then_quantised_keep_their_own(tiny_model: LoadedModel, tiny_context: Context) -> None:
    sparse = Sparsify(keep_dense=[OUT], epochs=0)
    sparse.apply(tiny_model, tiny_context)
    Quantize(keep_float=[QUERY], calibration_examples=16).apply(tiny_model, tiny_context)
    sparse.check(tiny_model.model, "after quantize")
    assert kept.names(tiny_model.model, "sparsify") == {OUT} and kept.names(tiny_model.model, "quantize") == {QUERY}
    again = Sparsify(epochs=0).one_by_one  # nothing of this is left when a stage comes again
    kept.record(tiny_model.model, "sparsify", ())
    kept.record(tiny_model.model, "quantize", ())
    assert again and not hasattr(tiny_model.model.config, kept.FIELD)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("*.quarry", "stands for none of the 12"), ("*", "leaves all 12 Linear modules as they are")],
)
def test_patterns_that_mean_nothing(pattern: str, message: str, tiny_model: LoadedModel) -> None:
    for stage in (Quantize(keep_float=pattern), Sparsify(keep_dense=(QUERY, pattern))):
        with pytest.raises(InputError, match=message):
            stage.preflight(tiny_model.model, "recipe")


def test_a_configuration_of_something_else(tiny_model: LoadedModel) -> None:
    tiny_model.model.config.optkit_kept = {"quantize": "all"}
    with pytest.raises(InputError, match="expected names of modules by technique"):
        kept.names(tiny_model.model, "quantize")
