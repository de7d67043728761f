"""Sparsity of the tiny model: which weights go, and that their zeros outlive training, quantization, disk and graph."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from optkit import Quantize, Sparsify
from optkit.compression import checkpoint
from optkit.compression.context import Context
from optkit.compression.retrain import retrain
from optkit.core.errors import GateError, InputError
from optkit.graph.audit import audit
from optkit.graph.export import export
from optkit.models import two_to_four
from optkit.models.families import encoder_linears
from optkit.models.loading import LoadedModel, inference
from optkit.tasks.base import Task
from optkit.tasks.collate import run

QUERY = "bert.encoder.layer.0.attention.self.query"
PRUNE = Sparsify(epochs=0)


def weights(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: linear.weight.detach().clone() for name, linear in encoder_linears(loaded.model).items()}


def zeros(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: weight == 0 for name, weight in weights(loaded).items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def masks_of(loaded: LoadedModel, seed: int = 0) -> dict[str, torch.Tensor]:
    """Two of four at random for every Linear of the encoder, as apex's ASP would have left them."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, linear in encoder_linears(loaded.model).items():
        out, inner = linear.weight.shape
        places = torch.rand(out, inner // 4, 4, generator=generator).argsort(-1)
        found[name] = (places < 2).reshape(out, inner)
    return found


def test_magnitude_keeps_the_two_largest_of_four(tiny_model: LoadedModel, tiny_context: Context) -> None:
    query = tiny_model.model.get_submodule(QUERY)
    with torch.no_grad():
        query.weight[0, :12] = torch.tensor([0.1, -0.9, 0.2, 0.3, 4, 3, 2, 1, -0.5, 0.0, 0.0, 0.1])
    others = {name: tensor.clone() for name, tensor in tiny_model.model.state_dict().items()}
    assert PRUNE.apply(tiny_model, tiny_context) == []
    expected = torch.tensor([0.0, -0.9, 0, 0.3, 4, 3, 0, 0, -0.5, 0, 0, 0.1])
    assert torch.equal(query.weight[0, :12], expected)
    for name, before in others.items():
        now = tiny_model.model.state_dict()[name]
        assert bool(((now == before) | (now == 0)).all()), f"{name}: pruning by magnitude moves nothing"
    assert {name for name, before in others.items() if not torch.equal(tiny_model.model.state_dict()[name], before)} == {
        f"{name}.weight" for name in encoder_linears(tiny_model.model)
    }


def test_every_group_loses_its_two_smallest(tiny_model: LoadedModel, tiny_context: Context) -> None:
    before = weights(tiny_model)
    PRUNE.apply(tiny_model, tiny_context)
    for name, after in weights(tiny_model).items():
        groups, kept = before[name].reshape(-1, 4).abs(), (after != 0).reshape(-1, 4)
        assert bool((kept.sum(-1) == 2).all()), name
        largest = groups.sort(-1, descending=True).values[:, :2].sum(-1)
        assert torch.allclose((groups * kept).sum(-1), largest), name


def test_pruned_weights_have_no_negative_zero(tiny_model: LoadedModel, tiny_context: Context) -> None:
    PRUNE.apply(tiny_model, tiny_context)
    for weight in weights(tiny_model).values():
        assert not torch.signbit(weight[weight == 0]).any()


def test_nothing_of_model_optimizer_stays_in_the_model(tiny_model: LoadedModel, tiny_context: Context) -> None:
    names = set(tiny_model.model.state_dict())
    PRUNE.apply(tiny_model, tiny_context)
    assert set(tiny_model.model.state_dict()) == names
    assert all(type(linear) is torch.nn.Linear for linear in encoder_linears(tiny_model.model).values())


def test_sparsegpt_chooses_by_what_is_lost(tiny_model: LoadedModel, tiny_context: Context) -> None:
    """Its choice answers closer to the dense model than the choice by magnitude."""
    expected = run(inference(tiny_model.model, tiny_context.task), tiny_context.features, 64, tiny_context.collator)
    start, errors, masks = copy.deepcopy(tiny_model.model), {}, {}
    by_loss = Sparsify(criterion="sparsegpt", epochs=0, calibration_examples=256)
    for criterion, stage in {"magnitude": Sparsify(epochs=0), "sparsegpt": by_loss}.items():
        tiny_model.model = copy.deepcopy(start)
        stage.apply(tiny_model, tiny_context)
        two_to_four.check(encoder_linears(tiny_model.model), "after pruning")
        found = run(inference(tiny_model.model, tiny_context.task), tiny_context.features, 64, tiny_context.collator)
        errors[criterion] = float(np.square(np.stack(found) - np.stack(expected)).mean())
        masks[criterion] = zeros(tiny_model)
    assert not any(torch.equal(mask, masks["magnitude"][name]) for name, mask in masks["sparsegpt"].items())
    assert 0 < errors["sparsegpt"] < errors["magnitude"]


@pytest.mark.slow
def test_retraining_moves_what_stays_and_nothing_else(tiny_model: LoadedModel, tiny_context: Context) -> None:
    PRUNE.apply(tiny_model, tiny_context)
    mask, before = zeros(tiny_model), weights(tiny_model)
    history = Sparsify(epochs=4, teacher=None).apply(tiny_model, tiny_context)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert same(zeros(tiny_model), mask)
    assert not any(torch.equal(weight, before[name]) for name, weight in weights(tiny_model).items())


@pytest.mark.slow
def test_zeros_stay_through_every_stage_and_on_disk(
    tiny_model: LoadedModel, tiny_context: Context, tiny_task: Task, tmp_path: Path
) -> None:
    context = replace(tiny_context, training=tiny_context.training.model_copy(update={"weight_decay": 0.1}))
    stages = [Sparsify(epochs=1, teacher=None), Quantize(epochs=1, teacher=None, calibration_examples=32)]
    stages[0].apply(tiny_model, context)
    mask = zeros(tiny_model)
    assert all(float(of_weight.float().mean()) == 0.5 for of_weight in mask.values())
    (tmp_path / "sparse").mkdir()
    checkpoint.save(tiny_model, stages[:1], [], tmp_path / "sparse")
    loaded = checkpoint.load(tmp_path / "sparse", tiny_task)
    assert same(weights(loaded), weights(tiny_model))
    before = weights(loaded)
    stages[1].apply(loaded, context)
    assert same(zeros(loaded), mask), "quantization-aware training keeps them"
    assert not same(weights(loaded), before)
    quantised = loaded.model.get_submodule(QUERY)
    assert torch.equal(
        quantised.weight_quantizer(quantised.weight) == 0, mask[QUERY] | (quantised.weight.abs() < amax(quantised))
    )
    (tmp_path / "int8").mkdir()
    checkpoint.save(loaded, stages, [], tmp_path / "int8")
    assert same(weights(checkpoint.load(tmp_path / "int8", tiny_task)), weights(loaded))


def amax(linear: torch.nn.Module) -> torch.Tensor:
    """Half a step of each output channel's INT8 grid: what is smaller rounds to zero."""
    return linear.weight_quantizer.amax / 127 / 2  # type: ignore[union-attr,operator]


@pytest.mark.slow
@pytest.mark.parametrize("int8", [False, True])
def test_the_graph_is_sparse(int8: bool, tiny_model: LoadedModel, tiny_context: Context, tmp_path: Path) -> None:
    PRUNE.apply(tiny_model, tiny_context)
    if int8:
        Quantize(calibration_examples=32).apply(tiny_model, tiny_context)
    found = audit(export(tiny_model.model, tmp_path, 16, tiny_context.task))
    linears = encoder_linears(tiny_model.model)
    assert found.quantized is int8
    assert {name: found.sparse_groups_kept[name] for name in linears} == dict.fromkeys(linears, 1.0)
    found.check_sparse(linears)


def test_a_group_that_breaks_in_training_stops_the_run(tiny_model: LoadedModel, tiny_context: Context) -> None:
    PRUNE.apply(tiny_model, tiny_context)
    query, steps = tiny_model.model.get_submodule(QUERY), []

    def break_one(*_: object) -> None:
        steps.append(len(steps))
        if len(steps) == 3:
            query.weight.data[0, :4] = 1.0

    tiny_model.model.register_forward_pre_hook(break_one)
    with pytest.raises(GateError) as error:
        retrain(tiny_model, Sparsify(epochs=3, teacher=None), tiny_context, "sparse retraining")
    assert str(error.value).splitlines() == [
        "2:4 sparsity is broken after an epoch of sparse retraining in 1 of 12 Linear modules:",
        f"  {QUERY}: 99.6094% of its groups of four have two zeros, expected all",  # 255 of 32 * 8
    ]
    assert len(steps) == 256 / 16, "after the first epoch, not at the end"


def test_a_broken_checkpoint_is_refused(
    tiny_model: LoadedModel, tiny_context: Context, tiny_task: Task, tmp_path: Path
) -> None:
    PRUNE.apply(tiny_model, tiny_context)
    with torch.no_grad():
        tiny_model.model.get_submodule(QUERY).weight[5, 4:8] = 1.0
    checkpoint.save(tiny_model, [PRUNE], [], tmp_path)
    with pytest.raises(GateError, match=rf"broken in \S+/model\.safetensors in 1 of 12 Linear modules:\n  {QUERY}: 99\.6"):
        checkpoint.load(tmp_path, tiny_task)


def test_masks_from_elsewhere_are_applied(tiny_model: LoadedModel, tiny_context: Context) -> None:
    tiny_model.masks, before = masks_of(tiny_model), weights(tiny_model)
    PRUNE.apply(tiny_model, tiny_context)
    for name, after in weights(tiny_model).items():
        assert torch.equal(after, torch.where(tiny_model.masks[name], before[name], 0.0)), name


def test_masks_that_do_not_fit_are_all_named(tiny_model: LoadedModel, tiny_context: Context) -> None:
    tiny_model.masks, before = masks_of(tiny_model), weights(tiny_model)
    layer = "bert.encoder.layer.1"
    del tiny_model.masks[QUERY]
    tiny_model.masks[f"{layer}.output.dense"] = torch.ones(32, 32, dtype=torch.bool)
    tiny_model.masks[f"{layer}.intermediate.dense"][0, :4] = True
    tiny_model.masks["bert.encoder.layer.2.output.dense"] = torch.zeros(32, 64, dtype=torch.bool)
    with pytest.raises(InputError) as error:
        PRUNE.apply(tiny_model, tiny_context)
    assert str(error.value).splitlines() == [
        "the checkpoint's masks do not fit the model:",
        f"  - {QUERY}: no mask",
        f"  - {layer}.intermediate.dense: 99.8047% of the mask's groups of four are 2:4, expected all",  # 511 of 64 * 8
        f"  - {layer}.output.dense: mask [32, 32], expected [32, 64]",
        "  - bert.encoder.layer.2.output.dense: a mask for a module that is not there",
    ]
    assert same(weights(tiny_model), before), "nothing is changed before everything fits"


def test_a_model_with_nothing_to_prune(tiny_model: LoadedModel, tiny_config: BertConfig, tiny_context: Context) -> None:
    config = copy.deepcopy(tiny_config)
    config.hidden_size, config.intermediate_size = 20, 36
    narrow = replace(tiny_model, model=BertForSequenceClassification(config))
    with pytest.raises(InputError) as error:
        PRUNE.apply(narrow, tiny_context)
    assert str(error.value) == (
        "BertForSequenceClassification: none of its 12 encoder Linear modules can be 2:4 (out × in: 20 × 20, 20 × 36, "
        "36 × 20); expected out in multiples of 8 and in of 16. Leave Sparsify out, or choose another hidden_size"
    )


def test_nothing_is_printed_to_standard_output(
    tiny_model: LoadedModel, tiny_context: Context, capfd: pytest.CaptureFixture[str]
) -> None:
    Sparsify(criterion="sparsegpt", epochs=0, calibration_examples=16).apply(tiny_model, tiny_context)
    assert capfd.readouterr().out == ""


def test_masks_outside_the_encoder_are_passed_over(tiny_model: LoadedModel, tiny_context: Context) -> None:
    """ASP prunes every Linear of a fitting shape, the pooler too."""
    tiny_model.masks = masks_of(tiny_model)
    tiny_model.masks["bert.pooler.dense"] = torch.tensor([True, True, False, False]).repeat(32, 8)
    Sparsify(epochs=0).apply(tiny_model, tiny_context)
    two_to_four.check(encoder_linears(tiny_model.model), "after pruning")
