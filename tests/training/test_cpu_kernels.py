"""Kernels for training on a CPU compute what torch's own do, and leave a model as it was."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from optkit.models.loading import LoadedModel
from optkit.training import cpu_kernels


@pytest.fixture
def heads() -> list[torch.Tensor]:
    """Query, key and value [2, 3, 5, 4]."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 5, 4, generator=generator) for _ in range(3)]


MASK = torch.tensor([[True] * 5, [True, True, True, False, False]])[:, None, None].expand(2, 1, 5, 5)


def test_attention_is_torchs_in_value_and_gradient(heads: list[torch.Tensor]) -> None:
    found = [tensor.clone().requires_grad_() for tensor in heads]
    expected = [tensor.clone().requires_grad_() for tensor in heads]
    mixed, weights = cpu_kernels.attention(nn.Module(), *found, MASK)
    other = functional.scaled_dot_product_attention(*expected, attn_mask=MASK).transpose(1, 2)
    assert weights is None and mixed.shape == (2, 5, 3, 4) and torch.allclose(mixed, other, atol=1e-6)
    mixed.square().sum().backward()
    other.square().sum().backward()
    for own, theirs in zip(found, expected, strict=True):
        assert torch.allclose(own.grad, theirs.grad, atol=1e-5)


def test_attention_of_bf16_is_taken_in_float32(heads: list[torch.Tensor]) -> None:
    low = [tensor.bfloat16().requires_grad_() for tensor in heads]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = cpu_kernels.attention(nn.Module(), *low, MASK)
    exact = functional.scaled_dot_product_attention(*(tensor.float() for tensor in low), attn_mask=MASK)
    assert mixed.dtype == torch.bfloat16
    assert torch.equal(mixed, exact.bfloat16().transpose(1, 2))


def test_attention_with_dropout_is_right_in_the_mean(heads: list[torch.Tensor]) -> None:
    torch.manual_seed(0)
    query, key, value = heads
    drawn = torch.stack([cpu_kernels.attention(nn.Module(), query, key, value, MASK, 0.3, 0.2)[0] for _ in range(3000)])
    exact, _ = cpu_kernels.attention(nn.Module(), query, key, value, MASK, 0.3)
    assert drawn.std(0).mean() > 0.1
    assert (drawn.mean(0) - exact).abs().max() < 0.06


def test_attention_with_dropout_sees_no_padding(heads: list[torch.Tensor]) -> None:
    query, key, value = heads
    results = []
    for filling in (0.0, 1e6):
        torch.manual_seed(0)
        padded = value.clone()
        padded[1, :, 3:] = filling
        results.append(cpu_kernels.attention(nn.Module(), query, key, padded, MASK, None, 0.5)[0])
    assert torch.equal(*results)


@pytest.mark.parametrize("dropout", [0.0, 1e-9])
@pytest.mark.parametrize("special", ["causal", "grouped", "biased"])
def test_what_is_more_than_plain_attention_is_transformers_own(
    special: str, dropout: float, heads: list[torch.Tensor]
) -> None:
    query, key, value = heads
    module, mask, more = nn.Module(), MASK, {}
    module.is_causal = special == "causal"
    if special == "causal":
        mask = None
    elif special == "grouped":
        module.num_key_value_groups = 3
        key, value = key[:, :1], value[:, :1]
    else:
        more["position_bias"] = torch.arange(25.0).view(1, 1, 5, 5).expand(1, 3, 5, 5)
    found, _ = cpu_kernels.attention(module, query, key, value, mask, 0.5, dropout, **more)
    expected, _ = sdpa_attention_forward(module, query, key, value, mask, 0.0, 0.5, **more)
    assert torch.allclose(found, expected, atol=1e-5)
    plain, _ = cpu_kernels.attention(nn.Module(), *heads, MASK, 0.5)
    assert not torch.allclose(found, plain, atol=1e-2)


@pytest.mark.parametrize("probability", [0.1, 0.5])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_dropout_keeps_its_share_and_the_sum(probability: float, kind: torch.dtype) -> None:
    torch.manual_seed(0)
    ones = torch.ones(999, 1001, dtype=kind, requires_grad=True)
    dropped = cpu_kernels.drop(ones, probability)
    assert dropped.dtype == kind
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / (1 - probability), dtype=kind).item()}
    assert (dropped == 0).float().mean().item() == pytest.approx(probability, abs=0.002)
    dropped.sum().backward()
    assert torch.equal(ones.grad, dropped)
    for axis in (0, 1):  # neighbours come from the same random word, and are independent all the same
        both = (dropped == 0).float()
        pairs = both.narrow(axis, 0, 998) * both.narrow(axis, 1, 998)
        assert pairs.mean().item() == pytest.approx(probability**2, abs=0.003)


def test_dropout_follows_torchs_seed_and_the_mode() -> None:
    hidden, module = torch.randn(64, 64), cpu_kernels.FastDropout(0.5)
    torch.manual_seed(1)
    first = module(hidden)
    assert not torch.equal(module(hidden), first)
    torch.manual_seed(1)
    assert torch.equal(module(hidden), first)
    assert torch.equal(module.eval()(hidden), hidden)
    assert torch.equal(cpu_kernels.FastDropout(0.0)(hidden), hidden)


def test_a_model_is_given_back_as_it_was(tiny_model: LoadedModel) -> None:
    model = tiny_model.model
    feed = dict(tiny_model.tokenizer(["a lovely film", "this dull story with the cast"], padding=True, return_tensors="pt"))
    before, modules = model.eval()(**feed).logits, dict(model.named_modules())
    with pytest.raises(RuntimeError, match="stop"), cpu_kernels.fast(nn.ModuleList([model])):
        assert model.config._attn_implementation in set(ALL_MASK_ATTENTION_FUNCTIONS) - {"sdpa"}
        assert sum(type(part) is cpu_kernels.FastDropout for part in model.modules()) == 8
        assert torch.allclose(model(**feed).logits, before, atol=1e-6)
        raise RuntimeError("stop")
    assert dict(model.named_modules()) == modules and model.config._attn_implementation == "sdpa"
    assert torch.equal(model(**feed).logits, before)


@pytest.mark.parametrize(
    ("own", "expected"), [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "None")]
)
def test_threads_wait_briefly_for_one_another_unless_told_how(own: dict[str, str], expected: str) -> None:
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in names} | own
    script = "import os, sys, optkit; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, "False"]
