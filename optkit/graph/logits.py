"""A model as a plain function from token tensors to logits, which is what is traced into a graph and compared with it."""

import contextlib
import inspect
import itertools
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from optkit.core.errors import InputError
from optkit.graph import attention_mask, deberta, rotary
from optkit.graph.attention_mask import Form
from optkit.models.families import encoder_linears, far, first_position, uncounted
from optkit.models.tokenizers import takes_segments
from optkit.tasks.base import TaskKind

SAME = 1e-4
"""Largest difference of a model in PyTorch from itself, given its mask in another form, relative to the largest logit."""

Feed = dict[str, torch.Tensor]


class Logits(nn.Module):
    """A model as a plain function from token tensors to one logits tensor.

    It makes position ids, unless the model shall count by itself, and, in the form that the model takes, the mask; see
    `optkit.graph.attention_mask`. A model that does not count its padding does not count it among a text's tokens either.
    """

    def __init__(self, model: PreTrainedModel, max_length: int, task: TaskKind, form: Form, counts: bool = False) -> None:
        super().__init__()
        self.model, self.task, self.form = model, task, form
        self.names = input_names(model)
        self.takes_positions = not counts and "position_ids" in inspect.signature(model.forward).parameters
        self.uncounted = uncounted(model)
        first = first_position(model)
        self.register_buffer("positions", torch.arange(first, first + max_length)[None], persistent=False)
        self.rotary = rotary.tables(model, torch.arange(max_length)[None])

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Logits of int64 [batch, sequence], in the order of `names`."""
        feed = dict(zip(self.names, tensors, strict=True))
        mask, positions = feed["attention_mask"], cast(torch.Tensor, self.positions)
        if self.form == "added":
            feed["attention_mask"] = attention_mask.additive(mask)
        if self.takes_positions:
            feed["position_ids"] = self._position_ids(feed["input_ids"])
        with contextlib.ExitStack() as stack:
            if self.form == "inside":
                own = positions[:, : feed["input_ids"].shape[1]]
                stack.enter_context(attention_mask.inside(self.model, mask, own))
            stack.enter_context(deberta.traceable(self.model, positions))
            stack.enter_context(rotary.traceable(self.rotary))
            return self.task.logits(self.model(**feed))

    def _position_ids(self, ids: torch.Tensor) -> torch.Tensor:
        """Position ids of tokens [batch, sequence]: [1, sequence] where every token counts."""
        if self.uncounted is None:
            return cast(torch.Tensor, self.positions)[:, : ids.shape[1]]
        counted = (ids != self.uncounted).long()
        return counted.cumsum(1) * counted + self.uncounted

    def infer(self, feed: Feed) -> NDArray[np.float32]:
        """Return the logits of a feed, int64 [batch, sequence], as an array."""
        with torch.no_grad():
            logits: NDArray[np.float32] = self(*feed.values()).numpy()
        return logits


def input_names(model: PreTrainedModel) -> list[str]:
    """The graph's inputs: `token_type_ids` only where the model tells more than one kind of token apart."""
    names = ["input_ids", "attention_mask"]
    return [*names, "token_type_ids"] if takes_segments(model) else names


def example(model: PreTrainedModel, names: list[str], batch: int, sequence: int) -> Feed:
    """A feed [batch, sequence] with padding on every row but the first; the same at every call.

    Padding's ids are among the first row's tokens too, as they are in texts with an unknown word, or with `</s>`, where
    these are the model's padding: whatever the model looks for by its id is there.
    """
    generator = torch.Generator().manual_seed(batch * 1000 + sequence)
    ids = torch.randint(0, model.config.vocab_size, (batch, sequence), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(1, batch):
        mask[row, max(1, sequence - row) :] = 0
    padding = getattr(model.config, "pad_token_id", None) or 0
    ids = ids.masked_fill(mask == 0, padding)
    for place, token in enumerate(dict.fromkeys((uncounted(model), padding)), start=1):
        if token is not None and place < sequence:
            ids[0, place] = token
    types = (torch.arange(sequence) >= sequence // 2).long().expand(batch, sequence) * mask
    return {name: {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}[name] for name in names}


def examples(model: PreTrainedModel, max_length: int) -> list[Feed]:
    """Return the feeds that a graph is compared on: short, of full length, and between where attention is local."""
    shapes = [(8, min(9, max_length)), (3, max_length)]
    if far(model.config) and max_length > 2 * 9:
        shapes.append((2, max_length // 2 + 1))
    return [example(model, input_names(model), *shape) for shape in shapes]


def plain_function(model: PreTrainedModel, max_length: int, task: TaskKind) -> Logits:
    """Return the model as a function to trace, with the first form of mask by which it computes what it does by itself.

    Raises:
        InputError: the logits are not finite, or those of one input differ.
    """
    feeds, differences = examples(model, max_length), list[float]()
    with floating(model), torch.no_grad():
        expected = [_real(task, task.logits(model(**feed)).numpy(), feed) for feed in feeds]
        # a model whose positions its modules do not tell, or that takes none for all rows, can but count by itself
        for counts, form in itertools.product((False, True), attention_mask.FORMS):
            wrapper = Logits(model, max_length, task, form, counts).eval()
            differences.append(_difference(wrapper, feeds, expected))
            if differences[-1] <= SAME:
                return wrapper
    raise InputError(
        f"{type(model).__name__} cannot be exported: its logits are not finite, or differ from call to call (by "
        f"{min(differences):.3g} of the largest); expected the same for the same input"
    )


def _difference(wrapper: Logits, feeds: list[Feed], expected: list[NDArray[Any]]) -> float:
    """Return the largest difference relative to the largest logit; infinity where the model does not take its mask so."""
    try:
        found = [_real(wrapper.task, wrapper.infer(feed), feed) for feed in feeds]
    except Exception:  # whatever the model's code raises
        return float("inf")
    pairs = list(zip(found, expected, strict=True))
    if any(one.shape != other.shape for one, other in pairs):
        return float("inf")
    return max(float(np.abs(one - other).max() / np.abs(other).max()) for one, other in pairs)


def _real(task: TaskKind, logits: NDArray[Any], feed: Feed) -> NDArray[Any]:
    """Return the logits without those of padding."""
    real: NDArray[Any] = task.unpadded(logits, feed["attention_mask"].numpy())
    return real


@contextlib.contextmanager
def floating(model: nn.Module) -> Iterator[None]:
    """The model with its quantisers switched off."""
    quantizers = list(_quantizers(model).values())
    for quantizer in quantizers:
        quantizer.disable()
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.enable()


def left_float(model: nn.Module) -> set[str]:
    """Return the names of the encoder's Linear modules that a quantised model leaves float; empty for a float model."""
    quantised = {name.rpartition(".")[0] for name in _quantizers(model)}
    return encoder_linears(model).keys() - quantised if quantised else set()


def _quantizers(model: nn.Module) -> dict[str, Any]:
    """The enabled quantisers, found by the name of their class: a float model is exported without importing ModelOpt, which
    takes seconds."""
    found = ((name, cast(Any, part)) for name, part in model.named_modules() if type(part).__name__ == "TensorQuantizer")
    return {name: part for name, part in found if part.is_enabled}
