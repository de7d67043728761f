"""Outlier shift: the same answers from activations in the middle of their range, in every family that can hold it."""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from optkit import Quantize
from optkit.compression import outlier_shift, quantizers
from optkit.compression.context import Context
from optkit.compression.dataflow import norms, reads
from optkit.core.errors import OptkitError
from optkit.graph.export import export
from optkit.models.families import encoder_linears
from optkit.models.loading import LoadedModel
from tests.compression.encoders import OTHERS, encoder

FAMILIES = {"Bert": {}, "Roberta": {}, "RobertaPreLayerNorm": {}, **OTHERS}
ALL = {"Bert", "Roberta", "RobertaPreLayerNorm", "RoFormer", "XLM"}
"""Families in which no norm before a Linear is held back."""
NONE = {"EuroBert", "ModernBert"}
"""Families whose norms have no biases."""
FEED = {
    "input_ids": np.arange(3, 35).reshape(4, 8),
    "attention_mask": np.array([[1] * 8, [1] * 8, [1] * 5 + [0] * 3, [1] * 8]),
}


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = model(**{name: torch.from_numpy(array) for name, array in FEED.items()}).logits
    return output


def off_centre(name: str, changes: dict[str, object]) -> PreTrainedModel:
    """A model whose biases are random and whose norms have one channel that is far off."""
    model = encoder(name, **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.normal_(std=0.5)
        for norm in norms(model).values():
            norm.bias[3] += 20
    return model


def inputs_of(model: PreTrainedModel) -> dict[str, float]:
    """The largest absolute value that each Linear of the encoder reads."""
    found: dict[str, float] = {}
    hooks = [
        linear.register_forward_pre_hook(
            lambda _, given, name=name: found.update({name: max(found.get(name, 0), float(given[0].abs().max()))})
        )
        for name, linear in encoder_linears(model).items()
    ]
    logits(model)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_stay_and_activations_are_centred(name: str) -> None:
    model = off_centre(name, FAMILIES[name])
    before, read = logits(model), inputs_of(model)
    remark = outlier_shift.shift(model, FEED, logits)
    assert torch.allclose(logits(model), before, atol=1e-5 * float(before.abs().max()), rtol=1e-5)
    smaller = [name for name, largest in inputs_of(model).items() if largest < 0.6 * read[name]]
    assert bool(smaller) != (name in NONE)
    assert (remark == "") == (name in ALL)


def test_shifts_by_hand_on_two_layers(tiny_model: LoadedModel) -> None:
    """Ranges are symmetric then, and every bias has moved by what the shift of its input and its residual says."""
    model = tiny_model.model
    norm = model.bert.encoder.layer[0].attention.output.LayerNorm
    with torch.no_grad():
        norm.bias[3] += 20
    feed = {"input_ids": np.arange(1, 13).reshape(2, 6), "attention_mask": np.ones((2, 6), dtype=np.int64)}
    run = lambda given: given(**{name: torch.from_numpy(array) for name, array in feed.items()})  # noqa: E731
    before = copy.deepcopy(model.state_dict())
    outlier_shift.shift(model, feed, run)
    moved = before["bert.encoder.layer.0.attention.output.LayerNorm.bias"] - norm.bias
    layer = "bert.encoder.layer.0"
    weight = before[f"{layer}.intermediate.dense.weight"]
    after = model.state_dict()
    assert torch.allclose(
        after[f"{layer}.intermediate.dense.bias"], before[f"{layer}.intermediate.dense.bias"] + weight @ moved
    )
    assert torch.allclose(after[f"{layer}.output.dense.bias"], before[f"{layer}.output.dense.bias"] + moved)
    seen: list[torch.Tensor] = []
    norm.register_forward_hook(lambda *given: seen.append(given[-1]))
    run(model)
    values = seen[0].flatten(0, 1)
    assert torch.allclose(values.amax(0), -values.amin(0), atol=1e-5)
    unchanged = [name for name, value in after.items() if torch.equal(value, before[name])]
    assert {name for name in before if not name.endswith("bias")} <= {*unchanged}


@pytest.mark.parametrize(
    ("least", "largest", "worth"),
    [([-2.0, 10.0], [2.0, 14.0], True), ([-4.0, -1.0], [2.0, 1.0], True), ([-4.0, -3.0], [3.0, 4.0], False)],
)
def test_only_what_is_far_off_centre_is_worth_a_shift(least: list[float], largest: list[float], worth: bool) -> None:
    """Half ranges of 2, 3 and 3.5 against largest values of 14, 4 and 4: 14, 75 and 87.5 % remain."""
    assert outlier_shift.narrows(torch.tensor(least), torch.tensor(largest)) == worth


def test_what_reads_a_norm_is_known(tiny_model: LoadedModel) -> None:
    tiny_model.model.requires_grad_(False)
    ids = torch.arange(1, 13).reshape(2, 6)
    found = reads(tiny_model.model, {"input_ids": ids})
    layer = "bert.encoder.layer.0"
    vectors = {f"{layer}.attention.self.{name}" for name in ("query", "key", "value")}
    assert found["bert.embeddings.LayerNorm"].readers == vectors
    assert found["bert.embeddings.LayerNorm"].residuals == {f"{layer}.attention.output.dense"}
    assert found[f"{layer}.attention.output.LayerNorm"].readers == {f"{layer}.intermediate.dense"}
    assert found["bert.encoder.layer.1.output.LayerNorm"].hindrance
    assert not any(parameter.requires_grad for parameter in tiny_model.model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny_model.model.modules())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Albert", "albert_layers.0.attention.dense puts out is used elsewhere too"),
        ("ConvBert", "read by TransposeBackward0"),
        ("Deberta", "attention.self.in_proj has no bias"),
        ("DebertaV2", "attention.self.query_proj reads other tensors too"),
        ("ModernBert", "Linear modules read no norm that adds a bias"),
    ],
)
def test_what_cannot_be_shifted_is_said(name: str, reason: str) -> None:
    assert reason in outlier_shift.shift(off_centre(name, FAMILIES[name]), FEED, logits)


def test_the_stage_shifts_before_it_calibrates_and_adds_nothing(tiny_model: LoadedModel, tiny_context: Context) -> None:
    with torch.no_grad():
        for norm in norms(tiny_model.model).values():
            norm.bias[3] += 20
    plain = copy.deepcopy(tiny_model)
    Quantize(calibration_examples=16, embeddings=False).apply(plain, tiny_context)
    Quantize(calibration_examples=16, embeddings=False, shift=True).apply(tiny_model, tiny_context)
    assert tiny_model.remarks == []
    assert [*plain.model.state_dict()] == [*tiny_model.model.state_dict()]
    assert [type(one) for one in plain.model.modules()] == [type(one) for one in tiny_model.model.modules()]
    own, other = (quantizers.quantisers(loaded.model) for loaded in (tiny_model, plain))
    name = "bert.encoder.layer.0.intermediate.dense.input_quantizer"
    assert float(own[name].amax) < 0.5 * float(other[name].amax)


@pytest.mark.slow
def test_the_graph_is_the_same_but_for_its_numbers(tiny_model: LoadedModel, tiny_context: Context, tmp_path: Path) -> None:
    """The same operators on tensors of the same names, types and shapes: as fast and as large."""
    found = []
    with torch.no_grad():
        for parameter in tiny_model.model.parameters():
            if parameter.dim() == 1:
                parameter.normal_()  # equal biases, such as none, would be stored once
    for name, shift in (("plain", False), ("shifted", True)):
        loaded = copy.deepcopy(tiny_model)
        Quantize(calibration_examples=16, calibrator="kl", shift=shift).apply(loaded, tiny_context)
        (tmp_path / name).mkdir()
        graph = onnx.load(export(loaded.model, tmp_path / name, 16, tiny_context.task)).graph
        nodes = [(node.op_type, [*node.input], [*node.output]) for node in graph.node]
        found.append((nodes, [(one.name, one.data_type, [*one.dims]) for one in graph.initializer]))
    assert found[0] == found[1]
    sizes = [sum(path.stat().st_size for path in (tmp_path / name).iterdir()) for name in ("plain", "shifted")]
    assert sizes[0] == sizes[1]


def test_scales_of_a_checkpoint_keep_their_activations(tiny_model: LoadedModel, tiny_context: Context) -> None:
    linears: dict[str, nn.Linear] = encoder_linears(tiny_model.model)
    tiny_model.amax = {f"{name}.input_quantizer": torch.tensor(3.0) for name in linears}
    tiny_model.amax |= {f"{name}.weight_quantizer": torch.ones(linear.out_features) for name, linear in linears.items()}
    before = tiny_model.model.bert.embeddings.LayerNorm.bias.clone()
    Quantize(shift=True).apply(tiny_model, tiny_context)
    assert torch.equal(tiny_model.model.bert.embeddings.LayerNorm.bias, before)
    assert tiny_model.remarks == ["no outlier shift: the checkpoint's scales are for activations as they are"]


def test_hidden_states_that_are_followed_are_not_shifted() -> None:
    with pytest.raises(OptkitError, match="leave one of them out"):
        Quantize(shift=True, epochs=1, representation_epochs=1).checked()
