"""Encoders with a head that makes one vector of a text: pooling over its tokens, and normalisation, inside the model.

What the head does stands in the model's configuration, under `FIELD`, so that checkpoints, students and graphs keep it.
"""

import inspect
from functools import cache
from typing import Any, cast

import torch
from torch.nn import functional
from transformers import MODEL_MAPPING, PreTrainedModel

from optkit.core.errors import InputError
from optkit.tasks.sentence_folder import FIELD, POOLINGS, WHOLE


class AutoModelForEmbedding:
    """Makes an encoder with the head from a configuration, or from a folder, as the Auto classes of transformers do."""

    @staticmethod
    def from_config(config: Any, **settings: Any) -> PreTrainedModel:
        """Return a model with random weights."""
        return cast(PreTrainedModel, _class_of(config.__class__)._from_config(config, **_without_code(settings)))

    @staticmethod
    def from_pretrained(folder: Any, *, config: Any, **settings: Any) -> Any:
        """Return what `PreTrainedModel.from_pretrained` does: the model, or with `output_loading_info` it and the report."""
        return _class_of(config.__class__).from_pretrained(folder, config=config, **_without_code(settings))


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Return one vector of each text, [batch, width].

    Args:
        hidden: hidden states [batch, sequence, width].
        mask: 1 for tokens and 0 for the padding after them, [batch, sequence].
        pooling: one of `POOLINGS`: the mean of the tokens, the first one, or the last one.
    """
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":  # the token before padding, or before the end
        mask = mask * (1 - functional.pad(mask[:, 1:], (0, 1)))
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1.0)


@cache
def _class_of(config: Any) -> type[PreTrainedModel]:
    """Return the class of a family's encoder with the head, made after that of its other heads.

    Raises:
        InputError: transformers has no encoder of the family, or knows it by no name inside of models with heads.
    """
    base: Any = MODEL_MAPPING.get(config, None)
    if not inspect.isclass(base) or not getattr(base, "base_model_prefix", ""):
        kind = getattr(config, "model_type", config.__name__)
        raise InputError(f"model type {kind!r} is not supported for embeddings: transformers has no one encoder of it")
    parent = next(one for one in base.__mro__[1:] if issubclass(one, PreTrainedModel))
    # transformers looks into the module of a class to learn which attention it has
    members = {"__module__": base.__module__, "__init__": _initialiser(base, parent), "forward": _forward(base)}
    return cast(type[PreTrainedModel], type(f"{base.__name__}ForEmbedding", (parent,), members))


def _initialiser(base: Any, parent: Any) -> Any:
    without_pooler = {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(base).parameters else {}

    def __init__(self: Any, config: Any) -> None:
        parent.__init__(self, config)
        setattr(self.config, FIELD, _checked(config))
        setattr(self, base.base_model_prefix, base(config, **without_pooler))
        self.post_init()

    return __init__


def _forward(base: Any) -> Any:
    def forward(self: Any, *args: Any, **inputs: Any) -> dict[str, torch.Tensor]:
        given = inspect.signature(base.forward).bind(self, *args, **inputs).arguments
        mask = given.get("attention_mask")
        if mask is None:
            mask = torch.ones(inputs["input_ids"].shape, dtype=torch.int64, device=self.device)
        hidden = self.base_model(*args, **inputs)[0]
        head = getattr(self.config, FIELD)
        vectors = pool(hidden, mask, head["pooling"])
        if head["normalize"] == WHOLE:
            vectors = _of_length_1(vectors)
        if head["dimensions"] < vectors.shape[1]:
            vectors = vectors[:, : head["dimensions"]]
        if head["normalize"] is True:
            vectors = _of_length_1(vectors)
        return {FIELD: vectors}

    forward.__signature__ = inspect.signature(base.forward)  # type: ignore[attr-defined]
    return forward


def _of_length_1(vectors: torch.Tensor) -> torch.Tensor:
    """Not by functional.normalize, whose graph leaves the number of dimensions open."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def _checked(config: Any) -> dict[str, Any]:
    """Return the head of a configuration, with no more dimensions than the model is wide."""
    head = getattr(config, FIELD, None)
    if not isinstance(head, dict) or head.get("pooling") not in POOLINGS:
        raise InputError(
            f"config.json: {FIELD} is {head!r}, expected pooling ({', '.join(POOLINGS)}), normalize, dimensions"
        )
    return {**head, "dimensions": min(head.get("dimensions") or config.hidden_size, config.hidden_size)}


def _without_code(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings without what the Auto classes take and models do not."""
    return {name: value for name, value in settings.items() if name != "trust_remote_code"}
