"""Quantization of the tiny model: which tensors, with which scales, and how far the answers move."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from optkit import Quantize
from optkit.compression import quantizers
from optkit.compression.calibration import HistogramCalibrator
from optkit.compression.context import Context
from optkit.compression.quantize import Calibrator
from optkit.core.errors import InputError
from optkit.models.families import encoder_linears
from optkit.models.gelu import ClippedGELU
from optkit.models.loading import LoadedModel, inference
from optkit.tasks.base import Task
from optkit.tasks.collate import run
from optkit.training.loop import train
from optkit.training.losses import task_loss

CALIBRATORS: tuple[Calibrator, ...] = ("max", "percentile", "mse", "entropy", "kl")
QUERY = "bert.encoder.layer.0.attention.self.query"


def logits(loaded: LoadedModel, context: Context) -> np.ndarray:
    return np.stack(run(inference(loaded.model, context.task), context.features, 64, context.collator))


def signal_to_noise_db(signal: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10((signal**2).sum() / ((signal - other) ** 2).sum()))


def amax_of(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: quantiser.amax.clone() for name, quantiser in quantizers.quantisers(loaded.model).items()}


@pytest.fixture
def trained(tiny_model: LoadedModel, tiny_context: Context) -> LoadedModel:
    """A float model that answers the tiny task."""
    batches = tiny_context.batches(16)
    train(tiny_model.model, batches, task_loss(tiny_context.task), tiny_context.training, 0, tiny_context.logs)
    return tiny_model


def test_only_the_linears_of_the_encoder_are_quantised(tiny_model: LoadedModel, tiny_context: Context) -> None:
    linears = list(encoder_linears(tiny_model.model))
    Quantize(calibration_examples=16).apply(tiny_model, tiny_context)
    expected = {f"{name}.{kind}_quantizer" for name in linears for kind in ("input", "weight")}
    assert set(quantizers.quantisers(tiny_model.model)) == expected
    assert len(expected) == 2 * 2 * 6


def test_weights_have_a_scale_per_output_channel_and_activations_one(tiny_model: LoadedModel, tiny_context: Context) -> None:
    Quantize(calibration_examples=16).apply(tiny_model, tiny_context)
    for name, linear in encoder_linears(tiny_model.model).items():
        amax = amax_of(tiny_model)
        assert torch.equal(amax[f"{name}.weight_quantizer"], linear.weight.abs().amax(dim=1, keepdim=True))
        assert amax[f"{name}.input_quantizer"].shape == ()


def test_weights_are_rounded_as_symmetric_int8(tiny_model: LoadedModel, tiny_context: Context) -> None:
    Quantize(calibration_examples=16).apply(tiny_model, tiny_context)
    linear = tiny_model.model.get_submodule(QUERY)
    scale = linear.weight.abs().amax(dim=1, keepdim=True) / 127
    assert torch.allclose(linear.weight_quantizer(linear.weight), torch.round(linear.weight / scale) * scale, atol=1e-6)
    assert torch.equal(linear.weight_quantizer(-linear.weight), -linear.weight_quantizer(linear.weight))


def test_activations_are_rounded_and_clamped(tiny_model: LoadedModel, tiny_context: Context) -> None:
    Quantize(calibration_examples=16).apply(tiny_model, tiny_context)
    quantiser = tiny_model.model.get_submodule(QUERY).input_quantizer
    quantiser.amax = torch.tensor(1.27)  # the scale is 0.01
    given = torch.tensor([0.0, 0.004, 0.006, -0.006, 0.5, 1.27, 5.0])
    assert quantiser(given).tolist() == pytest.approx([0.0, 0.0, 0.01, -0.01, 0.5, 1.27, 1.27], abs=1e-6)


def test_the_max_calibrator_sees_every_example(tiny_model: LoadedModel, tiny_context: Context) -> None:
    largest: list[float] = []
    module = tiny_model.model.get_submodule(QUERY)
    module.register_forward_pre_hook(lambda _, inputs: largest.append(float(inputs[0].abs().max())))
    Quantize(calibration_examples=256).apply(tiny_model, tiny_context)
    assert len(largest) == 256 / 32
    assert float(amax_of(tiny_model)[f"{QUERY}.input_quantizer"]) == max(largest)


@pytest.mark.slow
@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_post_training_quantization_keeps_the_answers(
    calibrator: Calibrator, trained: LoadedModel, tiny_context: Context, tiny_task: Task
) -> None:
    before = logits(trained, tiny_context)
    assert Quantize(calibrator=calibrator).apply(trained, tiny_context) == []
    noise = signal_to_noise_db(before, logits(trained, tiny_context))
    assert 20 < noise < 80  # 6 dB per bit at the most; without any rounding there would be no noise at all


def test_the_histogram_calibrators_are_for_activations(tiny_model: LoadedModel) -> None:
    quantizers.insert(tiny_model.model, Quantize(calibrator="percentile", percentile=99.0))
    for name, quantiser in quantizers.quantisers(tiny_model.model).items():
        calibrator = quantiser._calibrator
        assert isinstance(calibrator, HistogramCalibrator) is name.endswith("input_quantizer")
        if isinstance(calibrator, HistogramCalibrator):
            assert (calibrator.method, calibrator.percentile) == ("percentile", 99.0)


def test_calibrators_choose_differently(tiny_model: LoadedModel, tiny_context: Context) -> None:
    found = {}
    start = {name: tensor.clone() for name, tensor in tiny_model.model.state_dict().items()}
    for stage in (Quantize(), Quantize(calibrator="percentile", percentile=90.0)):
        stage.apply(tiny_model, tiny_context)
        found[stage.calibrator] = amax_of(tiny_model)
        tiny_model.model.load_state_dict(start, strict=False)
    for name in found["max"]:
        if name.endswith("weight_quantizer"):
            assert torch.equal(found["max"][name], found["percentile"][name])
        else:
            assert 0 < found["percentile"][name] < 0.9 * found["max"][name]


def test_gelu_is_clipped_before_calibration(tiny_model: LoadedModel, tiny_context: Context) -> None:
    Quantize(gelu_clip=0.25).apply(tiny_model, tiny_context)
    layers = tiny_model.model.bert.encoder.layer
    assert all(isinstance(layer.intermediate.intermediate_act_fn, ClippedGELU) for layer in layers)
    for layer in range(2):
        assert float(amax_of(tiny_model)[f"bert.encoder.layer.{layer}.output.dense.input_quantizer"]) == 0.25


def test_gelu_clip_wants_a_gelu(tiny_model: LoadedModel, tiny_context: Context) -> None:
    config = BertConfig(**{**tiny_model.model.config.to_dict(), "hidden_act": "relu"})
    relu = replace(tiny_model, model=BertForSequenceClassification(config))
    with pytest.raises(InputError, match=r"gelu_clip=10: .* has hidden_act 'relu' in 2 feed-forward blocks; expect"):
        Quantize(gelu_clip=10).apply(relu, tiny_context)
    Quantize(calibration_examples=16).apply(relu, tiny_context)


def test_a_model_with_nothing_to_quantise(tiny_model: LoadedModel) -> None:
    config = BertConfig(**{**tiny_model.model.config.to_dict(), "num_hidden_layers": 0})
    message = "BertForSequenceClassification has no Linear modules in its encoder's layers .*: there is nothing to quantize"
    with pytest.raises(InputError, match=message):
        quantizers.insert(BertForSequenceClassification(config), Quantize())


def test_quantisers_without_a_scale_are_named(tiny_model: LoadedModel) -> None:
    quantizers.insert(tiny_model.model, Quantize())
    with pytest.raises(InputError, match=rf"24 quantisers have no finite, positive amax: {QUERY}\.input_quantizer, "):
        quantizers.check(tiny_model.model)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0])
def test_scales_that_cannot_be_are_named(value: float, tiny_model: LoadedModel, tiny_context: Context) -> None:
    Quantize(calibration_examples=16).apply(tiny_model, tiny_context)
    quantizers.check(tiny_model.model)
    tiny_model.model.get_submodule(QUERY).input_quantizer._amax.fill_(value)
    with pytest.raises(InputError, match=rf"1 quantisers have no finite, positive amax: {QUERY}\.input_quantizer; "):
        quantizers.check(tiny_model.model)


def test_a_layer_of_zeros_is_named(tiny_model: LoadedModel, tiny_context: Context) -> None:
    torch.nn.init.zeros_(tiny_model.model.get_submodule(QUERY).weight)
    with pytest.raises(InputError, match=rf"1 quantisers have .* amax: {QUERY}\.weight_quantizer; .* are all zero"):
        Quantize(calibration_examples=16).apply(tiny_model, tiny_context)


def test_a_channel_of_zeros_is_no_mistake(tiny_model: LoadedModel, tiny_context: Context) -> None:
    with torch.no_grad():
        tiny_model.model.get_submodule(QUERY).weight[3] = 0
    before = logits(tiny_model, tiny_context)
    Quantize().apply(tiny_model, tiny_context)
    assert signal_to_noise_db(before, logits(tiny_model, tiny_context)) > 20


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_an_activation_that_is_not_finite_is_the_users_to_know(
    calibrator: Calibrator, tiny_model: LoadedModel, tiny_context: Context
) -> None:
    with torch.no_grad():
        tiny_model.model.bert.embeddings.word_embeddings.weight[5] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        Quantize(calibrator=calibrator).apply(tiny_model, tiny_context)


def test_scales_from_elsewhere_take_the_place_of_calibration(tiny_model: LoadedModel, tiny_context: Context) -> None:
    linears = encoder_linears(tiny_model.model)
    tiny_model.amax = {f"{name}.input_quantizer": torch.tensor(3.0) for name in linears}
    flat = {f"{name}.weight_quantizer": torch.rand(linear.out_features) + 0.1 for name, linear in linears.items()}
    tiny_model.amax |= flat
    Quantize().apply(tiny_model, replace(tiny_context, features=None))  # type: ignore[arg-type]
    found = amax_of(tiny_model)
    assert float(found[f"{QUERY}.input_quantizer"]) == 3.0
    for name, scales in flat.items():
        assert torch.equal(found[name], scales.reshape(-1, 1))
    assert np.isfinite(logits(tiny_model, tiny_context)).all()


def test_scales_that_do_not_fit_are_all_named(tiny_model: LoadedModel) -> None:
    quantizers.insert(tiny_model.model, Quantize())
    scales = {f"{name}.input_quantizer": torch.tensor(1.0) for name in encoder_linears(tiny_model.model)}
    scales |= {f"{name}.weight_quantizer": torch.ones(32) for name in encoder_linears(tiny_model.model)}
    del scales[f"{QUERY}.input_quantizer"]
    with pytest.raises(InputError) as error:
        quantizers.load_amax(tiny_model.model, scales)
    assert str(error.value).splitlines() == [
        "the checkpoint's scales do not fit the model:",
        f"  - {QUERY}.input_quantizer: no scale",
        "  - bert.encoder.layer.0.intermediate.dense.weight_quantizer: 32 scales, expected 64",
        "  - bert.encoder.layer.1.intermediate.dense.weight_quantizer: 32 scales, expected 64",
    ]


@pytest.mark.slow
def test_training_moves_the_weights_and_not_the_scales(tiny_model: LoadedModel, tiny_context: Context) -> None:
    stage = Quantize(calibrator="percentile", epochs=2, learning_rate=1e-3, teacher=None)
    before = {name: linear.weight.clone() for name, linear in encoder_linears(tiny_model.model).items()}
    calibrated: dict[str, torch.Tensor] = {}
    handle = tiny_model.model.register_forward_pre_hook(
        lambda model, _: calibrated.update(amax_of(tiny_model)) if model.training and not calibrated else None
    )
    history = stage.apply(tiny_model, tiny_context)
    handle.remove()
    after = amax_of(tiny_model)
    assert after.keys() == calibrated.keys()
    assert all(torch.equal(after[name], calibrated[name]) for name in after)
    assert not any(torch.equal(linear.weight, before[name]) for name, linear in encoder_linears(tiny_model.model).items())
    assert history[-1]["loss"] < history[0]["loss"]
    assert max(entry["learning_rate"] for entry in history) <= 1e-3


@pytest.mark.slow
def test_training_brings_back_what_rounding_took(trained: LoadedModel, tiny_context: Context) -> None:
    before = logits(trained, tiny_context)
    stage = Quantize(calibrator="percentile", percentile=80, epochs=2, learning_rate=1e-3, label_weight=0.0)
    asked: list[str] = []

    def teacher(name: str) -> list[np.ndarray]:
        asked.append(name)
        return list(before)

    context = replace(tiny_context, teacher_logits=teacher)
    start = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    stage.model_copy(update={"epochs": 0}).apply(trained, context)
    untrained = signal_to_noise_db(before, logits(trained, tiny_context))
    assert asked == []
    trained.model.load_state_dict(start, strict=False)
    stage.apply(trained, context)
    assert {*asked} == {"baseline_fp32"}
    assert signal_to_noise_db(before, logits(trained, tiny_context)) > untrained + 2


def test_nothing_is_printed_to_standard_output(
    tiny_model: LoadedModel, tiny_context: Context, capfd: pytest.CaptureFixture[str]
) -> None:
    Quantize(calibration_examples=16).apply(tiny_model, tiny_context)
    assert capfd.readouterr().out == ""


def test_embeddings_move_by_half_a_step_of_their_word_at_most(tiny_model: LoadedModel) -> None:
    table = tiny_model.model.get_input_embeddings().weight
    with torch.no_grad():
        table[8] *= 1e-3
    before, largest = table.detach().clone(), table.detach().abs().amax(1, keepdim=True)
    quantizers.round_embeddings(tiny_model.model)
    moved = (table.detach() - before).abs()
    assert bool((moved <= largest / 254 * (1 + 1e-5)).all())
    assert bool((moved[1:].amax(1) > 0).all()) and not table[0].any(), "each word's row is rounded, the padding is zero"
    assert torch.allclose(table.detach().abs().amax(1, keepdim=True), largest, rtol=1e-6), "its largest value stays"
    multiples = table.detach() / (largest / 127).clamp_min(1e-30)
    assert torch.allclose(multiples, multiples.round(), atol=1e-4) and float(multiples.abs().max()) < 127.001
    again = table.detach().clone()
    quantizers.round_embeddings(tiny_model.model)
    assert torch.allclose(table.detach(), again, rtol=1e-6)


@pytest.mark.parametrize("embeddings", [False, True])
def test_embeddings_are_rounded_where_the_stage_says_so(
    embeddings: bool, tiny_model: LoadedModel, tiny_context: Context
) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_model.model.bert.embeddings.state_dict().items()}
    Quantize(embeddings=embeddings, calibration_examples=16).apply(tiny_model, tiny_context)
    changed = {
        n for n, tensor in tiny_model.model.bert.embeddings.state_dict().items() if not torch.equal(tensor, before[n])
    }
    assert changed == ({"word_embeddings.weight"} if embeddings else set())


def test_weights_per_tensor_have_one_scale_that_query_key_and_value_share(
    tiny_model: LoadedModel, tiny_context: Context
) -> None:
    Quantize(calibration_examples=16, weights="per_tensor").apply(tiny_model, tiny_context)
    amax = amax_of(tiny_model)
    linears = encoder_linears(tiny_model.model)
    largest = {name: float(linear.weight.detach().abs().max()) for name, linear in linears.items()}
    projections = [QUERY.replace("query", name) for name in ("query", "key", "value")]
    for name in linears:
        together = projections if name in projections else [name]
        if name.startswith("bert.encoder.layer.0."):
            assert amax[f"{name}.weight_quantizer"].shape == ()
            assert float(amax[f"{name}.weight_quantizer"]) == max(largest[each] for each in together)
    assert len({largest[name] for name in projections}) == 3


def test_training_keeps_the_scales_per_tensor_and_a_checkpoint_brings_them_back(
    tiny_model: LoadedModel, tiny_context: Context
) -> None:
    stage = Quantize(calibration_examples=16, weights="per_tensor", epochs=1, teacher=None)
    stage.apply(tiny_model, tiny_context)
    amax = amax_of(tiny_model)
    other = BertForSequenceClassification(tiny_model.model.config).eval()
    stage.restore(other, {f"{name}._amax": tensor for name, tensor in amax.items()})
    assert {name: float(found.amax) for name, found in quantizers.quantisers(other).items()} == {
        name: float(tensor) for name, tensor in amax.items()
    }


def test_scales_of_the_other_kind_are_refused_with_the_setting_that_takes_them(
    tiny_model: LoadedModel, tiny_context: Context
) -> None:
    Quantize(calibration_examples=16).apply(tiny_model, tiny_context)
    channels = {f"{name}._amax": tensor for name, tensor in amax_of(tiny_model).items()}
    fresh = BertForSequenceClassification(tiny_model.model.config).eval()
    with pytest.raises(InputError, match=r'scales, expected 1; take them with Quantize\(weights="per_channel"\)'):
        Quantize(weights="per_tensor").restore(fresh, channels)
    single = {name: tensor.max() for name, tensor in channels.items()}
    fresh = BertForSequenceClassification(tiny_model.model.config).eval()
    with pytest.raises(InputError, match=r'1 scales, expected \d+; take them with Quantize\(weights="per_tensor"\)'):
        Quantize().restore(fresh, single)
