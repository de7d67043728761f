"""Exporting a model that you hold: its ONNX graph, and its tokenizer beside it."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from optkit.core.errors import InputError
from optkit.graph.export import export
from optkit.models.families import longest_input
from optkit.models.loading import Model, loaded_model
from optkit.tasks.base import Task

LONGEST = 512
"""Tokens that a graph has positions for, where model, tokenizer and task do not say fewer."""


def export_onnx(
    model: Model,
    folder: Path | str,
    *,
    task: Task | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int | None = None,
) -> Path:
    """Write a model as `model.onnx`, one clean graph that every engine builds from, checked against the model itself.

    It takes `input_ids`, `attention_mask` and, where the model tells them apart, `token_type_ids`, int64 [batch, sequence],
    and gives `logits`, such as [batch, classes]. Fake quantisers become QuantizeLinear and DequantizeLinear.

        graph = optkit.export_onnx(model, "out/")

    Args:
        model: as `load_model` gives it, or a `PreTrainedModel` with the head of a task.
        folder: where `model.onnx` goes, and the tokenizer where it is known; made if missing.
        task: that the model answers; by default what its head is for.
        tokenizer: of a bare model, to be kept beside the graph.
        max_length: longest input in tokens; by default what model, tokenizer and task take, at most 512.

    Returns:
        The path of the graph.

    Raises:
        InputError: the model has no head that a task has, or positions for fewer tokens, or the graph computes otherwise.
    """
    loaded = loaded_model(model, tokenizer=tokenizer)
    kind = task or loaded.task
    if kind is None:
        raise InputError(f"{type(loaded.model).__name__}: found no task that it answers; give task=…")
    told = [getattr(loaded.tokenizer, "model_max_length", None), getattr(task, "max_length", None)]
    limits = [limit for limit in (longest_input(loaded.model), *told) if limit]
    length = max_length or min(LONGEST, *limits)
    path = export(loaded.model, Path(folder), length, kind)
    if loaded.tokenizer is not None:
        loaded.tokenizer.save_pretrained(folder)
    return path
