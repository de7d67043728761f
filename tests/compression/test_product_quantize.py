"""Product quantization of the tiny model: which weights, in which order, and that blocks outlive what follows."""

import copy
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig

from optkit import ProductQuantize, Quantize, Recipe, Sparsify
from optkit.compression import block_clustering, checkpoint
from optkit.compression.context import Context
from optkit.core.errors import GateError, InputError
from optkit.core.settings import RecipeError
from optkit.models import loading, shared_blocks, two_to_four
from optkit.models.families import encoder_linears
from optkit.models.loading import LoadedModel
from optkit.tasks.base import Task

SMALL = ProductQuantize(centroids=16, embedding_block=4, epochs=0)
LAYERS = [f"bert.encoder.layer.{number}" for number in range(2)]
FEED_FORWARD = [f"{layer}.{name}" for layer in LAYERS for name in ("intermediate.dense", "output.dense")]
ATTENTION = [
    f"{layer}.attention.{name}" for layer in LAYERS for name in ("self.query", "self.key", "self.value", "output.dense")
]
EMBEDDINGS = [f"bert.embeddings.{kind}_embeddings" for kind in ("word", "position")]
QUANTISED = [*EMBEDDINGS, *ATTENTION, *FEED_FORWARD, "bert.pooler.dense"]


def weights(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    matrices = shared_blocks.matrices(loaded.model)
    return {name: part.weight.detach().clone() for name, part in matrices.items()}


def different(weight: torch.Tensor, block: int = 4) -> int:
    return len(np.unique(weight.detach().reshape(-1, block).numpy(), axis=0))


def test_centroids_by_hand() -> None:
    """Two layers, two clusters each: a block becomes the mean of those near it."""
    model = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 8))
    near = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 3], [-5, 0, 0, 0], [-7, 0, 0, 0]])
    codes = torch.arange(128) % 4
    with torch.no_grad():
        model[0].weight.copy_(near[codes].view(64, 8))
        model[1].weight.copy_(2 * near[codes].view(8, 64))
    for linear in model:
        block_clustering.quantise(linear.weight, 4, 2, seed=0)
    means = torch.tensor([[1.0, 1, 1, 2], [1, 1, 1, 2], [-6, 0, 0, 0], [-6, 0, 0, 0]])
    assert torch.allclose(model[0].weight, means[codes].view(64, 8))
    assert torch.allclose(model[1].weight, 2 * means[codes].view(8, 64))


def test_all_large_weights_are_quantised_and_nothing_else(tiny_model: LoadedModel, tiny_context: Context) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_model.model.state_dict().items()}
    assert SMALL.apply(tiny_model, tiny_context) == []
    changed = {name for name, tensor in tiny_model.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{name}.weight" for name in QUANTISED}
    assert all(different(weight) == 16 for name, weight in weights(tiny_model).items() if name in QUANTISED)
    SMALL.check(tiny_model.model, "after it")


def test_the_nearest_centroid_is_taken(tiny_model: LoadedModel, tiny_context: Context) -> None:
    before = weights(tiny_model)
    SMALL.apply(tiny_model, tiny_context)
    for name in QUANTISED:
        own, now = before[name].reshape(-1, 4), weights(tiny_model)[name].reshape(-1, 4)
        distances = torch.cdist(own.double(), now.double())
        assert torch.allclose(distances.diagonal(), distances.amin(1), atol=1e-4), name


def test_order_and_groups(tiny_model: LoadedModel) -> None:
    sizes = dict.fromkeys(QUANTISED, 4)
    found = block_clustering.in_groups(tiny_model.model, sizes, 2)
    assert found == [
        EMBEDDINGS,
        [*FEED_FORWARD[:3]],
        [*FEED_FORWARD[3:], "bert.pooler.dense"],
        ATTENTION[:4],
        ATTENTION[4:],
    ]
    assert [len(group) for group in block_clustering.in_groups(tiny_model.model, {ATTENTION[0]: 4}, 3)] == [1]


@pytest.mark.slow
def test_each_group_is_trained_with_what_is_free(tiny_model: LoadedModel, tiny_context: Context) -> None:
    """Five groups share the epochs; quantised weights move too, and stay shared."""
    quantised = copy.deepcopy(tiny_model)
    SMALL.apply(quantised, tiny_context)
    stage = SMALL.model_copy(update={"epochs": 10, "teacher": None, "ema": 0.9})
    history = stage.apply(tiny_model, tiny_context)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert len({entry["step"] for entry in history}) * 5 == len(history), "five trainings of equal length"
    stage.check(tiny_model.model, "after it")
    after, without = weights(tiny_model), weights(quantised)
    assert not any(torch.equal(after[name], without[name]) for name in after)


def test_steps_are_shared_out() -> None:
    stage = ProductQuantize(steps=7, representation_steps=2)
    parts = [stage._share(number, 5) for number in range(5)]
    assert [part.steps for part in parts] == [1, 1, 2, 1, 2]
    assert [part.representation_steps for part in parts] == [0, 0, 1, 0, 1]


def test_the_same_again(tiny_model: LoadedModel, tiny_context: Context) -> None:
    twin = copy.deepcopy(tiny_model)
    for loaded in (tiny_model, twin):
        SMALL.apply(loaded, tiny_context)
    assert all(torch.equal(weight, weights(twin)[name]) for name, weight in weights(tiny_model).items())


def test_blocks_stay_shared_through_quantization_aware_training_and_on_disk(
    tiny_model: LoadedModel, tiny_context: Context, tiny_task: Task, tmp_path: Path
) -> None:
    int8 = Quantize(epochs=1, teacher=None, calibration_examples=32, weights="per_tensor", embeddings=False, guard=False)
    stages = [SMALL, int8]
    SMALL.apply(tiny_model, tiny_context)
    before = weights(tiny_model)
    int8.apply(tiny_model, tiny_context)
    assert not any(torch.equal(weights(tiny_model)[name], before[name]) for name in QUANTISED)
    for stage in stages:
        stage.check(tiny_model.model, "after it")
    for name in set(QUANTISED).intersection(encoder_linears(tiny_model.model)):
        linear = tiny_model.model.get_submodule(name)
        assert different(linear.weight_quantizer(linear.weight)) <= 16, "one scale: what is rounded is shared too"
    checkpoint.save(tiny_model, stages, [], tmp_path)
    stored = (tmp_path / "model.safetensors").stat().st_size
    back = checkpoint.load(tmp_path, tiny_task)
    assert all(torch.equal(weight, weights(back)[name]) for name, weight in weights(tiny_model).items())
    assert stored < 0.5 * sum(tensor.numel() * 4 for tensor in tiny_model.model.state_dict().values())


def test_scales_that_part_shared_blocks_are_named(tiny_model: LoadedModel, tiny_context: Context) -> None:
    SMALL.apply(tiny_model, tiny_context)
    Quantize(calibration_examples=32).apply(tiny_model, tiny_context)
    SMALL.check(tiny_model.model, "after both")
    words, weights = tiny_model.remarks
    assert words == "quantize: the word embeddings share their blocks, and are left as they are"
    assert weights.startswith("quantize: 12 weights share their blocks") and 'weights="per_tensor" keeps them' in weights


def test_a_sparse_weight_stays_sparse(tiny_model: LoadedModel, tiny_context: Context) -> None:
    stages = [Sparsify(epochs=0), SMALL.model_copy(update={"epochs": 1, "teacher": None})]
    for stage in stages:
        stage.apply(tiny_model, tiny_context)
    for stage in stages:
        stage.check(tiny_model.model, "after both")
    two_to_four.check(encoder_linears(tiny_model.model), "after both")


def test_a_broken_checkpoint_is_refused(tiny_model: LoadedModel, tiny_task: Task, tmp_path: Path) -> None:
    checkpoint.save(tiny_model, [SMALL], [], tmp_path)
    with pytest.raises(GateError, match=r"blocks are broken in \S+/model\.safetensors in 15 of 15 weights:\n  bert\.emb"):
        checkpoint.load(tmp_path, tiny_task)


def test_a_packed_checkpoint_is_a_model_to_start_from(
    tiny_model: LoadedModel, tiny_context: Context, tiny_task: Task, tmp_path: Path
) -> None:
    SMALL.apply(tiny_model, tiny_context)
    checkpoint.save(tiny_model, [SMALL], [], tmp_path)
    found = loading.load(str(tmp_path), tiny_task)
    assert all(torch.equal(weight, weights(found)[name]) for name, weight in weights(tiny_model).items())


def test_what_cannot_be_quantised_is_named(
    tiny_model: LoadedModel, tiny_config: BertConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InputError, match="BertForSequenceClassification has no weight that product quantization would"):
        ProductQuantize().preflight(tiny_model.model, "small")  # blocks for 256 centroids are more than it has
    config = copy.deepcopy(tiny_config)
    config.intermediate_size = 66
    odd = type(tiny_model.model)(config)
    with caplog.at_level(logging.WARNING):
        assert SMALL.preflight(odd, "small") is odd
    assert "small: 4 weights stay as they are, 22 % of the model" in caplog.text
    assert f"\n  {LAYERS[0]}.output.dense: 32 × 66\n" in caplog.text


def test_its_place_among_stages() -> None:
    stages = [Quantize(), ProductQuantize()]
    assert [stage.technique for stage in Recipe(name="r", stages=stages[::-1]).stages] == ["product_quantize", "quantize"]
    with pytest.raises(RecipeError, match="expected product_quantize → quantize"):
        Recipe(name="r", stages=stages)
    with pytest.raises(RecipeError, match="block"):
        ProductQuantize(block=6).checked()  # type: ignore[arg-type]
