"""Export of a trained model to `model.onnx`: one clean graph that every engine is built from.

The exporter is PyTorch's TorchScript one (`dynamo=False`), the one that ModelOpt's quantisers know how to write
themselves with. The graph takes `input_ids`, `attention_mask` and, where the model has them, `token_type_ids`, int64
[batch, sequence], and gives `logits` of the task's axes, such as [batch, classes].
"""

import contextlib
import inspect
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from torch import nn
from transformers import PreTrainedModel

from optkit.core.errors import InputError
from optkit.graph import onnx_file, passes, reference
from optkit.graph.products import LAYERS_KEY
from optkit.models.families import family_of, first_position, longest_input, token_types
from optkit.tasks.base import TOKEN, TaskKind

OPSET = 17
"""First opset with LayerNormalization as one operator; TensorRT, OpenVINO and ONNX Runtime all read it."""

MASKED = -1e4
"""Value added to the scores of padding. exp(-1e4) is exactly 0 in float32, bf16 and FP16, and -1e4 is finite in all of them,
so that a row of padding alone gives numbers rather than NaN."""

TOLERANCE = 1e-3
"""Largest difference from PyTorch that a float graph may show, relative to the largest logit."""


_FREE = {"batch": "batch", TOKEN: "sequence"}
"""Axes of the logits whose size varies, and what the graph calls them."""


class Logits(nn.Module):
    """A model as a plain function from token tensors to one logits tensor.

    It makes the additive mask [batch, 1, 1, sequence] and the position ids itself, which keeps transformers' own mask
    code, much of it shape arithmetic, out of the graph.
    """

    def __init__(self, model: PreTrainedModel, max_length: int, task: TaskKind) -> None:
        super().__init__()
        self.model, self.task = model, task
        self.names = input_names(model)
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        first = first_position(model)
        self.register_buffer("positions", torch.arange(first, first + max_length)[None], persistent=False)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Logits of int64 [batch, sequence], in the order of `names`."""
        feed = dict(zip(self.names, tensors, strict=True))
        mask = feed["attention_mask"][:, None, None, :].to(torch.float32)
        feed["attention_mask"] = (1.0 - mask) * MASKED
        if self.takes_positions:
            feed["position_ids"] = cast(torch.Tensor, self.positions)[:, : feed["input_ids"].shape[1]]
        return self.task.logits(self.model(**feed))


def input_names(model: PreTrainedModel) -> list[str]:
    """The graph's inputs: `token_type_ids` only where the model tells more than one kind of token apart."""
    names = ["input_ids", "attention_mask"]
    takes_types = "token_type_ids" in inspect.signature(model.forward).parameters
    return [*names, "token_type_ids"] if takes_types and token_types(model.config) > 1 else names


def export(model: PreTrainedModel, folder: Path, max_length: int, task: TaskKind) -> Path:
    """Write `model.onnx`, with its weights in `model.onnx.data` from 2 GiB on, and check it against the model.

    Args:
        model: of the BERT family, with or without ModelOpt quantisers.
        folder: where `model.onnx` goes; made if missing.
        max_length: longest input in tokens the graph will see.
        task: whose head the model has.

    Returns:
        The path of the graph.

    Raises:
        InputError: `max_length` exceeds the model's position table, or the finished graph is invalid or does not compute
            what the model computes.
    """
    _check_length(model, max_length)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # PyTorch writes each tensor of a large model to a file of its own
        with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch, _ready_for_export(model):
            unchecked = Path(scratch) / "model.onnx"
            wrapper = Logits(model, max_length, task).eval()
            _trace(wrapper, unchecked, max_length)
            _clean_file(unchecked, family_of(model.config).layers)
            for batch, sequence in ((8, min(9, max_length)), (3, max_length)):
                _check_against_model(wrapper, unchecked, _example(model, wrapper.names, batch, sequence))
            return onnx_file.move(unchecked, folder)
    except onnx.checker.ValidationError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{type(model).__name__} cannot be exported: PyTorch makes an invalid graph of it ({reason})"
        ) from error


def _check_length(model: PreTrainedModel, max_length: int) -> None:
    table = longest_input(model) or max_length
    if not 2 <= max_length <= table:
        raise InputError(
            f"max_length is {max_length}, but {type(model).__name__} has positions for 2 to {table} tokens. "
            f"Give a max_length of at most {table}."
        )


@contextlib.contextmanager
def _ready_for_export(model: PreTrainedModel) -> Iterator[None]:
    """The model in evaluation mode, with eager attention, on the CPU; its settings are given back afterwards."""
    training, attention = model.training, model.config._attn_implementation
    model.eval()
    # other implementations add IsNaN and Where to the graph
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(attention)
        model.train(training)


def _example(model: PreTrainedModel, names: list[str], batch: int, sequence: int) -> dict[str, torch.Tensor]:
    """A feed [batch, sequence] with padding on every row but the first; the same at every call."""
    generator = torch.Generator().manual_seed(batch * 1000 + sequence)
    ids = torch.randint(0, model.config.vocab_size, (batch, sequence), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(1, batch):
        mask[row, max(1, sequence - row) :] = 0
    padding = getattr(model.config, "pad_token_id", None) or 0
    ids = torch.where((mask == 0) | (ids == padding), torch.where(mask == 0, padding, (padding + 1) % 3), ids)
    types = (torch.arange(sequence) >= sequence // 2).long().expand(batch, sequence) * mask
    return {name: {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}[name] for name in names}


def _trace(wrapper: Logits, path: Path, max_length: int) -> None:
    """Run PyTorch's exporter. It is traced at a length that no dimension of the model has by accident."""
    example = _example(wrapper.model, wrapper.names, 2, min(7, max_length))
    axes = {name: {0: "batch", 1: "sequence"} for name in wrapper.names}
    axes["logits"] = {number: _FREE[axis] for number, axis in enumerate(wrapper.task.axes) if axis in _FREE}
    with torch.no_grad(), _quiet():
        torch.onnx.export(
            wrapper,
            tuple(example.values()),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=wrapper.names,
            output_names=["logits"],
            dynamic_axes=axes,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings that it is the older one, and that a Python number became a constant."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, torch.jit.TracerWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        log = logging.getLogger("torch.onnx")
        level = log.level
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)


def _clean_file(path: Path, layers: str) -> None:
    model = onnx_file.load(path)
    passes.clean(model.graph)
    if layers:  # those who read the file have no record
        model.graph.metadata_props.add(key=LAYERS_KEY, value=layers)
    model.producer_name = "optkit"
    onnx_file.save(model, path)
    onnx.checker.check_model(str(path), full_check=True)


def _check_against_model(wrapper: Logits, path: Path, feed: dict[str, torch.Tensor]) -> None:
    """Raise unless graph and model agree on a feed.

    `x * (127 / amax)` and `x / scale` differ in the last bit, so that now and then an activation rounds the other way,
    and later ones after it. Such a graph may be off by twice what quantisation itself moved the logits, not by more.
    """
    expected = _logits(wrapper, feed)
    with _float(wrapper.model):
        moved = np.abs(expected - _logits(wrapper, feed)).max()
    found = reference.infer(reference.load(path), {name: tensor.numpy() for name, tensor in feed.items()})
    difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
    allowed = max(TOLERANCE * max(1.0, float(np.abs(expected).max())), 2 * float(moved))
    if not difference <= allowed:
        raise InputError(
            f"The graph of {type(wrapper.model).__name__} differs from the model by {difference:.3g} on input_ids "
            f"{list(feed['input_ids'].shape)}, where at most {allowed:.3g} was expected (logits {list(found.shape)} "
            f"against {list(expected.shape)}). The model does something that tracing cannot follow, such as a branch "
            "that depends on its input; take it out of the model."
        )


def _logits(wrapper: Logits, feed: dict[str, torch.Tensor]) -> np.ndarray:
    with torch.no_grad():
        return wrapper(*feed.values()).numpy()


@contextlib.contextmanager
def _float(model: nn.Module) -> Iterator[None]:
    """The model with its quantisers switched off."""
    # by name: a float model is exported without importing ModelOpt, which takes seconds
    quantizers = [m for m in model.modules() if type(m).__name__ == "TensorQuantizer" and cast(Any, m).is_enabled]
    for quantizer in quantizers:
        cast(Any, quantizer).disable()
    try:
        yield
    finally:
        for quantizer in quantizers:
            cast(Any, quantizer).enable()
