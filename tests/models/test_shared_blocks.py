"""Weights that share blocks: stored to the bit, and held while they are trained."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from optkit.core.errors import GateError
from optkit.models import shared_blocks
from optkit.training.averaging import RunningAverage


def share_(weight: torch.Tensor, size: int, different: int, seed: int = 0) -> torch.Tensor:
    """Fill a weight with blocks drawn from `different` ones; returns their codes."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(different, (weight.numel() // size,), generator=generator)
    with torch.no_grad():
        weight.copy_(torch.randn(different, size, generator=generator)[codes].view_as(weight))
    return codes


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [4, 8])
def test_a_weight_comes_back_bit_for_bit(precision: torch.dtype, size: int) -> None:
    weight, dense = torch.empty(96, 64, dtype=precision), torch.randn(96, 64)
    share_(weight, size, 40)
    weight[0, 0] = -0.0
    given = {"a.weight": weight, "a.bias": torch.arange(24.0), "b.weight": dense, "c": weight, "n.weight": torch.ones(64)}
    stored = shared_blocks.compress(given)
    assert set(stored) == {"a.weight.block_codes", "a.weight.block_values", "a.bias", "b.weight", "c", "n.weight"}
    assert stored["a.weight.block_codes"].dtype == torch.uint8 and stored["a.weight.block_codes"].shape == (96, 64 // size)
    assert stored["a.weight.block_values"].shape == (41, size) and stored["b.weight"] is dense
    back = shared_blocks.restore(stored)
    assert back.keys() == given.keys() and back["a.weight"].dtype == precision
    assert bits(back["a.weight"]) == bits(weight)


def test_gradients_are_means_by_hand() -> None:
    linear = nn.Linear(4, 16, bias=False)
    with torch.no_grad():
        linear.weight[:] = torch.tensor([1.0, 2, 3, 4])
        linear.weight[[3, 5]] = torch.tensor([4.0, 3, 2, 1])
    with shared_blocks.held(linear):
        (linear.weight * torch.arange(16.0).reshape(-1, 1) * torch.tensor([1.0, 1, 10, 1])).sum().backward()
    expected = torch.tensor([8.0, 8, 80, 8]).repeat(16, 1)  # (0 + 1 + … + 15 - 3 - 5) / 14 = 8
    expected[[3, 5]] = torch.tensor([4.0, 4, 40, 4])
    assert linear.weight.grad is not None and torch.equal(linear.weight.grad, expected)


def test_a_gradient_that_is_not_contiguous() -> None:
    linear, other = nn.Linear(32, 64, bias=False), torch.randn(5, 32)
    share_(linear.weight, 4, 10)
    plain = copy.deepcopy(linear)
    with shared_blocks.held(linear):
        (linear.weight.t() @ torch.randn(64, 5)).sum().backward()
        assert linear.weight.grad is not None and shared_blocks.find(linear.weight.grad) is not None
    plain(other).sum().backward()
    assert plain.weight.grad is not None


def test_blocks_stay_shared_bit_for_bit_through_adamw_and_averaging() -> None:
    torch.manual_seed(0)
    # 30 * 28 numbers are no multiple of what a CPU computes at once
    model = nn.Sequential(nn.Embedding(300, 28), nn.Linear(28, 30), nn.Tanh(), nn.Linear(30, 2))
    codes = [share_(model[index].weight, 4, 16, index) for index in (0, 1)]
    before, free = [model[index].weight.detach().clone() for index in (0, 1)], model[3].weight.detach().clone()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1, fused=True)
    average = RunningAverage(model, 0.9)
    with shared_blocks.held(model):
        for _ in range(20):
            words = torch.randint(300, (8, 6))
            nn.functional.cross_entropy(model(words).mean(1), words[:, 0] % 2).backward()
            optimiser.step()
            optimiser.zero_grad()
            average.update()
        average.finish()
    for index in (0, 1):
        blocks = model[index].weight.detach().view(-1, 4)
        first = torch.from_numpy(np.unique(codes[index].numpy(), return_index=True)[1])
        assert torch.equal(blocks, blocks[first][codes[index]])
        assert not torch.isclose(model[index].weight, before[index]).any(), "and they all have moved"
    assert not torch.equal(model[3].weight, free)


@pytest.mark.parametrize("size", [4, 8])
def test_few_blocks_stay_shared_whose_pairs_are_few_too(size: int) -> None:
    """Pairs of 8 different blocks are 64 at most, and look like shared blocks of twice the size."""
    torch.manual_seed(0)
    linear = nn.Linear(64, 96, bias=False)
    share_(linear.weight, size, 8)
    start = linear.weight.detach().clone()
    optimiser = torch.optim.AdamW(linear.parameters(), lr=1e-2)
    with shared_blocks.held(linear):
        for _ in range(5):
            linear(torch.randn(32, 64)).square().sum().backward()
            optimiser.step()
            optimiser.zero_grad()
    shared_blocks.check(nn.Sequential(linear), {"0": size}, "after training", most=8)
    assert not torch.isclose(linear.weight, start).any()
    with pytest.raises(GateError, match=f"0: more than 7 blocks of {size} differ"):
        shared_blocks.check(nn.Sequential(linear), {"0": size}, "after training", most=7)


def test_only_rounding_is_put_right() -> None:
    linear = nn.Linear(32, 64)
    share_(linear.weight, 4, 10)
    start = linear.weight.detach().clone()
    with shared_blocks.held(linear), torch.no_grad():
        linear.weight[3, 3] += 1e-6
    assert shared_blocks.find(linear.weight) is not None and torch.allclose(linear.weight, start, atol=1e-5)
    with shared_blocks.held(linear), torch.no_grad():
        linear.weight.add_(torch.randn(64, 32))
    with pytest.raises(GateError) as error:
        shared_blocks.check(nn.Sequential(linear), {"0": 4}, "after a step")
    assert str(error.value).splitlines() == [
        "shared blocks are broken after a step in 1 of 1 weights:",
        "  0: more than 256 blocks of 4 differ",
    ]


def test_what_is_dense_or_all_zero_is_not_held() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    nn.init.zeros_(model[1].weight)
    plain, values = copy.deepcopy(model), torch.randn(4, 64)
    with shared_blocks.held(model):
        model(values).square().sum().backward()
    plain(values).square().sum().backward()
    for linear, other in zip(model, plain, strict=True):
        assert linear.weight.grad is not None and torch.equal(linear.weight.grad, other.weight.grad)


def test_the_gradient_is_as_before_afterwards() -> None:
    linear = nn.Linear(32, 64)
    share_(linear.weight, 4, 10)
    with pytest.raises(RuntimeError), shared_blocks.held(linear):
        raise RuntimeError
    linear(torch.randn(3, 32)).square().sum().backward()
    assert linear.weight.grad is not None and shared_blocks.find(linear.weight.grad) is None
