"""Export of a model in memory: its ONNX graph, and its tokenizer and thresholds beside it."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from optkit.core.errors import InputError
from optkit.graph.export import export
from optkit.models import thresholds_file
from optkit.models.families import longest_input
from optkit.models.loading import Model, loaded_model
from optkit.tasks.base import Task

LONGEST = 512
"""Longest input of a graph in tokens, unless model, tokenizer or task set a smaller limit."""


def export_onnx(
    model: Model,
    folder: Path | str,
    *,
    task: Task | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int | None = None,
) -> Path:
    """Export a model to `model.onnx`, the graph that engines of every kind are built from, and check it against the model.

    Inputs are `input_ids`, `attention_mask` and, if the model has token types, `token_type_ids`, int64 [batch, sequence];
    the output is `logits`, such as [batch, classes]. Fake quantisers become QuantizeLinear and DequantizeLinear.

        graph = optkit.export_onnx(model, "out/")

    Args:
        model: a `LoadedModel`, as `load_model` returns it, or a `PreTrainedModel` with the head of a task.
        folder: folder for `model.onnx` and, if known, tokenizer and thresholds; created if missing.
        task: task of the model; by default that of its head.
        tokenizer: tokenizer of a bare model, stored beside the graph.
        max_length: longest input in tokens; by default the smallest limit of model, tokenizer and task, at most 512.

    Returns:
        Path of the graph.

    Raises:
        InputError: the model has the head of no known task or positions for fewer tokens, or the graph's logits differ.
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
    thresholds_file.write(Path(folder), loaded.thresholds)
    return path
