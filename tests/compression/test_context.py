"""What a technique may use: examples drawn by the seed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from optkit.compression.context import Context
from optkit.core.errors import InputError
from optkit.models.loading import LoadedModel
from optkit.tasks.collate import Collator
from optkit.tasks.registry import load


def test_the_calibration_examples_are_drawn_by_the_seed(tiny_model: LoadedModel, tiny_context: Context) -> None:
    seen: list[torch.Tensor] = []
    tiny_model.model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True)
    drawn = []
    for seed in (0, 0, 1):
        seen.clear()
        replace(tiny_context, seed=seed).run_examples(tiny_model.model, 20)
        assert [len(batch) for batch in seen] == [20]
        drawn.append(seen[0].tolist())
    assert drawn[0] == drawn[1] != drawn[2]


def test_more_examples_than_there_are_means_all(tiny_model: LoadedModel, tiny_context: Context) -> None:
    seen: list[int] = []
    tiny_model.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    tiny_context.run_examples(tiny_model.model, 10_000)
    assert sum(seen) == 256 and max(seen) <= 32


def test_without_examples_it_says_what_to_give(tiny_model: LoadedModel, tiny_context: Context) -> None:
    with pytest.raises(InputError, match=r"expected calibration=batches, .* or task=… with training data"):
        replace(tiny_context, features=None).run_examples(tiny_model.model, 20)  # type: ignore[arg-type]


def test_batches_hold_several_of_a_group_where_the_task_has_groups(tiny_context: Context) -> None:
    task = load("sample_reranking")
    tokenizer = task.own_model().tokenizer
    features = task.encode("train", tokenizer)
    context = replace(tiny_context, task=task, features=features, collator=Collator.of(task, tokenizer))
    batches = context.batches(16)
    first, second = batches.epoch(0), batches.epoch(1)
    assert first != second and len(first) == len(second)
    queries = [batches.collate(indices, torch.device("cpu")).targets["queries"].tolist() for indices in first]
    assert np.mean([len(set(own)) for own in queries]) < 5  # of 300 queries, 16 rows at random have 15
