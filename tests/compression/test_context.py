"""What a technique may use: examples drawn by the seed."""

from dataclasses import replace

import torch

from optkit.compression.context import Context
from optkit.models.loading import LoadedModel


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
