"""Export of a trained model to `model.onnx`: one clean graph that every engine is built from.

The exporter is PyTorch's TorchScript one (`dynamo=False`), the one that ModelOpt's quantisers know how to write
themselves with; `dynamo=True` fails on them. What it cannot follow is written anew for the time of an export, as
`optkit.graph.deberta` does. The graph takes `input_ids`, `attention_mask` and, where the model has them,
`token_type_ids`, int64 [batch, sequence], and gives `logits` of the task's axes, such as [batch, classes].
"""

import contextlib
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from transformers import PreTrainedModel

from optkit.core import temporary
from optkit.core.errors import InputError, OptkitError
from optkit.graph import onnx_file, passes, reference
from optkit.graph.logits import Logits, example, examples, floating, left_float, plain_function
from optkit.graph.products import KEPT_KEY, LAYERS_KEY, LONGEST_KEY, PRODUCER, longest_sequence
from optkit.models.families import family_of, longest_input
from optkit.models.layers import plain
from optkit.tasks.base import TaskKind
from optkit.tasks.logits_axes import TOKEN

OPSET = 17
"""First opset with LayerNormalization as one operator; TensorRT, OpenVINO and ONNX Runtime all read it."""

TOLERANCE = 1e-3
"""Largest difference from PyTorch that a float graph may show, relative to the largest logit."""

REDRAWN = 3.0
"""Largest difference from PyTorch of a quantised graph, in multiples of what quantisation moves the logits: twice what noise
that is drawn anew differs by in the mean, √2."""

_FREE = {"batch": "batch", TOKEN: "sequence"}
"""Axes of the logits whose size varies, and what the graph calls them."""


def export(model: PreTrainedModel, folder: Path, max_length: int, task: TaskKind) -> Path:
    """Write `model.onnx`, with its weights in `model.onnx.data` from 2 GiB on, and check it against the model.

    Args:
        model: an encoder, with or without ModelOpt quantisers.
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
        with temporary.folder(".export", folder) as scratch, _ready_for_export(model):
            unchecked = scratch / "model.onnx"
            wrapper = plain_function(model, max_length, task)
            _trace(wrapper, unchecked, max_length)
            told = {LAYERS_KEY: family_of(model.config).layers, KEPT_KEY: ",".join(sorted(map(plain, left_float(model))))}
            _clean_file(unchecked, told, max_length)
            _check_against_model(wrapper, unchecked, examples(model, max_length))
            return onnx_file.move(unchecked, folder)
    except (OptkitError, OSError):
        raise
    except Exception as error:  # of the model's own code, of the exporter and of ONNX, which raise nearly everything
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{type(model).__name__} cannot be exported: PyTorch makes no valid graph of it "
            f"({type(error).__name__}: {reason})"
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


def _trace(wrapper: Logits, path: Path, max_length: int) -> None:
    """Run PyTorch's exporter. It is traced at a length that no dimension of the model has by accident."""
    given = example(wrapper.model, wrapper.names, 2, min(7, max_length))
    axes = {name: {0: "batch", 1: "sequence"} for name in wrapper.names}
    axes["logits"] = {number: _FREE[axis] for number, axis in enumerate(wrapper.task.axes) if axis in _FREE}
    with torch.no_grad(), _quiet():
        torch.onnx.export(
            wrapper,
            tuple(given.values()),
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


def _clean_file(path: Path, told: Mapping[str, str], longest: int) -> None:
    """Clean a graph, and write into it what those who read the file cannot know; empty texts are left out."""
    model = onnx_file.load(path)
    passes.clean(model.graph)
    for key, value in told.items():
        if value:
            model.graph.metadata_props.add(key=key, value=value)
    if longest_sequence(model.graph) is None:
        model.graph.metadata_props.add(key=LONGEST_KEY, value=str(longest))
    model.producer_name = PRODUCER
    onnx_file.save(model, path)
    onnx.checker.check_model(str(path), full_check=True)


def _check_against_model(wrapper: Logits, path: Path, feeds: Iterable[dict[str, torch.Tensor]]) -> None:
    """Raise unless graph and model agree on feeds.

    `x * (127 / amax)` and `x / scale` differ in the last bit, so that now and then an activation rounds the other way,
    and later ones after it: quantisation's noise is drawn anew. Such a graph may be off by `REDRAWN` times what
    quantisation itself moves the logits, in the root mean square over all feeds: single logits are off by more.
    """
    session, drawn, noise = reference.load(path), list[np.ndarray](), list[np.ndarray]()
    for feed in feeds:
        expected = wrapper.infer(feed)
        with floating(wrapper.model):
            noise.append((expected - wrapper.infer(feed)).ravel())
        found = reference.infer(session, {name: tensor.numpy() for name, tensor in feed.items()})
        same = found.shape == expected.shape
        drawn.append((found - expected).ravel() if same else np.array([np.inf]))
        difference, rounding = float(np.abs(drawn[-1]).max()), TOLERANCE * max(1.0, float(np.abs(expected).max()))
        allowed = REDRAWN * _rms(noise)
        if not difference <= rounding and not _rms(drawn) <= allowed:
            raise InputError(
                f"The graph of {type(wrapper.model).__name__} differs from the model by {difference:.3g} on input_ids "
                f"{list(feed['input_ids'].shape)}, where at most {max(rounding, allowed):.3g} was expected (logits "
                f"{list(found.shape)} against {list(expected.shape)}). The model does something that tracing cannot follow, "
                "such as a branch that depends on its input; take it out of the model."
            )


def _rms(parts: Sequence[np.ndarray]) -> float:
    """Return the root mean square of all numbers."""
    return float(np.sqrt(np.mean(np.square(np.concatenate(parts)))))
