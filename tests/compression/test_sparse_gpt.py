"""SparseGPT: its correction by hand, its error against that of the same masks without it, and what its layers read."""

import copy

import pytest
import torch
from torch import nn

from optkit.compression import sparse_gpt
from optkit.compression.context import Context
from optkit.core.errors import InputError
from optkit.models import two_to_four
from optkit.models.families import encoder_linears
from optkit.models.loading import LoadedModel


def test_the_correction_by_hand() -> None:
    """Channels 0 and 1 go together in the data: 1 takes over what 0 did. The diagonal's mean is 1.5, its damping 0.015."""
    weight = torch.tensor([[0.1, 1.0, 1.0, 0.01]])
    hessian = torch.tensor([[2.0, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    expected = torch.tensor([[0.0, 1 + 0.1 / 2.015, 1.0, 0.0]])
    torch.testing.assert_close(sparse_gpt.pruned(weight, hessian), expected)


def test_without_relations_nothing_is_corrected() -> None:
    """A small weight on a large input stays, as what it adds to the output is more."""
    hessian = torch.diag(torch.tensor([100.0, 1, 1, 0], dtype=torch.float64))
    found = sparse_gpt.pruned(torch.tensor([[0.5, 1.0, 2.0, 1.0]]), hessian)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.0, 2.0, 0.0]]))


def test_the_correction_lowers_the_error() -> None:
    """Over several blocks of channels, which are corrected in one go."""
    torch.manual_seed(0)
    weight, read = torch.randn(32, 288), torch.randn(2000, 288) @ torch.randn(288, 288)
    found = sparse_gpt.pruned(weight, (read.T @ read).double())
    assert bool((found == 0).unflatten(1, (-1, 4)).sum(-1).eq(2).all())
    errors = [float((read @ (weight - other).T).square().mean()) for other in (found, weight * (found != 0))]
    assert errors[0] < 0.7 * errors[1]


def test_a_block_is_corrected_to_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    weight, read = torch.randn(8, 64), torch.randn(200, 64)
    whole = sparse_gpt.pruned(weight, (read.T @ read).double())
    monkeypatch.setattr(sparse_gpt, "_BLOCK", 4)
    torch.testing.assert_close(sparse_gpt.pruned(weight, (read.T @ read).double()), whole)


def test_each_layer_reads_what_the_pruned_ones_before_it_put_out(tiny_model: LoadedModel, tiny_context: Context) -> None:
    dense = copy.deepcopy(tiny_model.model)
    linears = encoder_linears(tiny_model.model)

    def forward(model: nn.Module) -> None:
        tiny_context.run_examples(model, 64)

    sparse_gpt.prune(tiny_model.model, linears, forward)
    name = "bert.encoder.layer.1.attention.self.query"
    with sparse_gpt._watched(tiny_model.model, {name: linears[name]}) as hessians:
        forward(tiny_model.model)
    expected = sparse_gpt.pruned(dense.get_submodule(name).weight.detach(), hessians[name])
    torch.testing.assert_close(linears[name].weight.detach(), expected)
    two_to_four.check(linears, "after pruning")


def test_padding_is_not_read(tiny_model: LoadedModel) -> None:
    name = "bert.encoder.layer.0.attention.self.query"
    linears = {name: encoder_linears(tiny_model.model)[name]}
    ids = torch.tensor([[2, 5, 6, 3, 0, 0, 0, 0]])
    sums = []
    for tokens in (ids, ids[:, :4]):
        with sparse_gpt._watched(tiny_model.model.eval(), linears) as hessians, torch.no_grad():
            tiny_model.model(input_ids=tokens, attention_mask=(tokens != 0).long())
        sums.append(hessians[name])
    torch.testing.assert_close(sums[0], sums[1])


def test_activations_that_are_not_finite_are_named(tiny_model: LoadedModel, tiny_context: Context) -> None:
    with torch.no_grad():
        tiny_model.model.bert.embeddings.word_embeddings.weight.fill_(float("nan"))
    with pytest.raises(InputError, match=r"layer\.0\.\S+: what it reads is not finite"):
        sparse_gpt.prune(
            tiny_model.model, encoder_linears(tiny_model.model), lambda model: tiny_context.run_examples(model, 16)
        )
