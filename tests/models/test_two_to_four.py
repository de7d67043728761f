"""2:4 sparsity: what counts as sparse, what holds it in training, and weights stored in half the space bit for bit."""

from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from optkit.core.errors import GateError
from optkit.models import two_to_four


def pruned(out: int = 16, inner: int = 32, seed: int = 0) -> torch.Tensor:
    """Random values [out, in], two zeros at random places of every four."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(out, inner // 4, 4, generator=generator).argsort(-1)
    values = torch.randn(out, inner // 4, 4, generator=generator)
    return torch.where(places < 2, values, 0.0).reshape(out, inner)


def linear(weight: torch.Tensor) -> nn.Linear:
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    module.weight.data.copy_(weight)
    return module


def test_groups_of_four_input_channels() -> None:
    weight = torch.ones(2, 9)  # [out, in]: 2 whole groups and a rest, for each of 2 outputs
    assert two_to_four.groups_kept(weight) == 0
    weight[0, [0, 2]] = 0
    assert two_to_four.groups_kept(weight) == 1 / 4
    weight[1, [4, 5, 6]] = 0
    weight[:, 8] = 0  # in no whole group
    assert two_to_four.groups_kept(weight) == 2 / 4
    assert two_to_four.groups_kept(torch.zeros(2, 3)) == 0


def test_two_zeros_across_the_border_of_two_groups_do_not_count() -> None:
    weight = torch.ones(1, 8)
    weight[0, [3, 4]] = 0
    assert two_to_four.groups_kept(weight) == 0


@pytest.mark.parametrize(
    ("shape", "fits"),
    [((8, 16), True), ((24, 48), True), ((4, 16), False), ((8, 8), False), ((16, 312), False), ((312, 16), True)],
)
def test_the_hardware_takes_multiples_of_8_and_16(shape: tuple[int, int], fits: bool) -> None:
    assert two_to_four.fits(torch.zeros(shape)) is fits
    assert two_to_four.is_sparse(torch.zeros(shape)) is fits


def test_a_vector_is_no_weight() -> None:
    assert not two_to_four.fits(torch.zeros(16)) and not two_to_four.fits(torch.zeros(8, 16, 1))


def test_those_that_are_sparse_are_found() -> None:
    linears = {"sparse": linear(pruned()), "dense": linear(torch.ones(16, 32)), "narrow": linear(torch.zeros(2, 8))}
    assert list(two_to_four.sparse_linears(linears)) == ["sparse"]


def test_a_branch_that_begins_at_zero_is_not_taken_for_a_mask() -> None:
    linear = nn.Linear(16, 8)
    nn.init.zeros_(linear.weight)
    assert two_to_four.is_sparse(linear.weight) and two_to_four.sparse_linears({"branch": linear}) == {}


def test_a_broken_group_is_named_with_its_share() -> None:
    linears = {"first": linear(pruned()), "second": linear(pruned(seed=1)), "third": linear(pruned(seed=2))}
    two_to_four.check(linears, "after pruning")
    linears["second"].weight.data[3, 8:12] = torch.tensor([1.0, 0.0, 2.0, 3.0])
    with pytest.raises(GateError) as error:
        two_to_four.check(linears, "after pruning")
    assert str(error.value).splitlines() == [
        "2:4 sparsity is broken after pruning in 1 of 3 Linear modules:",
        "  second: 99.2188% of its groups of four have two zeros, expected all",  # 127 of 16 * 8
    ]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_held_zeros_stay_under_adamw_with_weight_decay(precision: torch.dtype) -> None:
    module = linear(pruned())
    zeros, before = module.weight == 0, module.weight.detach().clone()
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.5, fused=True)
    data = torch.randn(8, 32, generator=torch.Generator().manual_seed(3))
    with two_to_four.held({"it": module}):
        for _ in range(5):
            with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
                module(data).float().square().sum().backward()
            optimiser.step()
            optimiser.zero_grad()
    assert torch.equal(module.weight == 0, zeros)
    assert not (module.weight[~zeros] == before[~zeros]).any(), "what stays is trained"
    assert not torch.signbit(module.weight[zeros]).any(), "a zero has no sign to be lost when it is compressed"


def test_a_weight_in_bfloat16_is_held_too() -> None:
    module = linear(pruned()).to(torch.bfloat16)
    zeros = module.weight == 0
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.5)
    with two_to_four.held({"it": module}):
        module(torch.ones(4, 32, dtype=torch.bfloat16)).float().square().sum().backward()
        optimiser.step()
    assert torch.equal(module.weight == 0, zeros)


def test_what_is_not_held_is_free_again() -> None:
    module = linear(pruned())
    with two_to_four.held({"it": module}):
        pass
    module(torch.ones(1, 32)).sum().backward()
    assert module.weight.grad is not None and bool((module.weight.grad == 1).all())


def test_a_frozen_weight_needs_no_holding() -> None:
    module = linear(pruned()).requires_grad_(False)
    with two_to_four.held({"it": module}):
        assert not module.weight._backward_hooks


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_a_weight_comes_back_bit_for_bit(precision: torch.dtype) -> None:
    weight = pruned(24, 64).to(precision)
    weight[0] = 0
    weight[1, 4:8] = torch.tensor([0.0, 0.0, 0.0, 5.0])
    stored = two_to_four.compress({"a.weight": weight, "a.bias": torch.arange(24.0)})
    assert set(stored) == {"a.weight.values_2to4", "a.weight.indices_2to4", "a.bias"}
    back = two_to_four.restore(stored)
    assert set(back) == {"a.weight", "a.bias"} and back["a.weight"].dtype == precision
    assert (
        back["a.weight"].numpy(force=True).tobytes() == weight.numpy().tobytes()
        if precision != torch.bfloat16
        else (torch.equal(back["a.weight"].view(torch.int16), weight.view(torch.int16)))
    )


def test_every_pattern_of_a_group_comes_back() -> None:
    """All groups of four with two zeros or more, and with values of both signs."""
    groups = [group for group in product([0.0, -1.5, 2.0], repeat=4) if group.count(0.0) >= 2]
    weight = torch.tensor(groups).flatten().repeat(8, 1)
    weight = torch.cat([weight, torch.zeros(8, -weight.shape[1] % 16)], dim=1)
    assert len(groups) == 6 * 4 + 4 * 2 + 1
    assert torch.equal(
        two_to_four.restore(two_to_four.compress({"weight": weight}))["weight"].view(torch.int32), weight.view(torch.int32)
    )


def test_values_and_indices_by_hand() -> None:
    weight = torch.zeros(8, 16)
    # places 1 and 3, 0 and 1, 2 alone (with the first zero), none (the first two zeros)
    weight[0] = torch.tensor([0, 7, 0, 8, 5, 6, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0])
    stored = two_to_four.compress({"weight": weight})
    assert stored["weight.values_2to4"].shape == (8, 8) and stored["weight.indices_2to4"].shape == (8, 2)
    assert stored["weight.values_2to4"][0].tolist() == [7, 8, 5, 6, 0, 9, 0, 0]
    assert stored["weight.indices_2to4"].dtype == torch.uint8
    first, second = stored["weight.indices_2to4"][0].tolist()
    assert first == 1 | 3 << 2 | 0 << 4 | 1 << 6
    assert second == 0 | 2 << 2 | 0 << 4 | 1 << 6


def test_what_is_not_sparse_is_stored_as_it_is() -> None:
    dense = {"a.weight": torch.ones(8, 16), "b.weight": torch.zeros(2, 8), "norm.weight": torch.zeros(16), "table": pruned()}
    stored = two_to_four.compress(dense)
    assert all(stored[name] is tensor for name, tensor in dense.items()) and len(stored) == len(dense)


def test_half_the_space_and_two_bits_per_value(tmp_path: Path) -> None:
    weight = pruned(256, 512)
    save_file(two_to_four.compress({"weight": weight}), tmp_path / "sparse")
    save_file({"weight": weight}, tmp_path / "dense")
    sizes = [(tmp_path / name).stat().st_size for name in ("sparse", "dense")]
    assert sizes[0] == pytest.approx(sizes[1] * (1 / 2 + 1 / 32), rel=1e-3)  # of 8 values in 32 bytes, 4 stay, and a byte


def test_negative_zeros_come_back_negative() -> None:
    """ASP's own `weight * mask` leaves negative zeros."""
    weight = torch.tensor([[-1.0, 2.0, 3.0, -4.0] * 4] * 8) * torch.tensor([0.0, 1.0, 1.0, 0.0] * 4)
    back = two_to_four.restore(two_to_four.compress({"weight": weight}))["weight"]
    assert torch.equal(back.view(torch.int32), weight.view(torch.int32))
