"""Heads of one value that end in a sigmoid, as cross-encoders of sentence-transformers do where their configuration says so.

The sigmoid is a part of the model, so that losses, graphs and servers have the value that the library would give.
"""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from optkit.core.errors import InputError

FIELD = "value_activation"
"""Field of a model's configuration with what its head ends in: "sigmoid" or "identity"."""
_SIGMOID, _IDENTITY = "sigmoid", "identity"
_PROBLEMS = {"multi_label_classification": _SIGMOID, "regression": _IDENTITY}


class AutoModelForValue:
    """Makes a model with one value from a configuration, or from a folder, as the Auto classes of transformers do."""

    @staticmethod
    def from_config(config: Any, **settings: Any) -> PreTrainedModel:
        """Return a model with random weights."""
        return _ending(AutoModelForSequenceClassification.from_config(config, **settings))

    @staticmethod
    def from_pretrained(folder: Any, *, config: Any, **settings: Any) -> Any:
        """Return what `PreTrainedModel.from_pretrained` does: the model, or with `output_loading_info` it and the report."""
        found = AutoModelForSequenceClassification.from_pretrained(folder, config=config, **settings)
        return (_ending(found[0]), *found[1:]) if isinstance(found, tuple) else _ending(found)


AutoModelForValue.__name__ = AutoModelForSequenceClassification.__name__  # what heads of models in memory are known by


def stated(config: Any) -> str | None:
    """Return what a configuration says that a head of one value ends in; None where it says nothing.

    Raises:
        InputError: something else than a sigmoid, or nothing.
    """
    if own := getattr(config, FIELD, None):
        return _known(own, FIELD)
    library = getattr(config, "sentence_transformers", None)
    told = library.get("activation_fn") if isinstance(library, dict) else None
    if told := told or getattr(config, "sbert_ce_default_activation_function", None):
        return _known(str(told).rpartition(".")[2].lower(), "activation_fn")
    return _PROBLEMS.get(getattr(config, "problem_type", None) or "")


def _known(activation: Any, name: str) -> str:
    if activation not in (_SIGMOID, _IDENTITY):
        raise InputError(f"config.json: {name} is {activation!r}, expected Sigmoid or Identity, which graphs of values have")
    return str(activation)


def ends_in_sigmoid(config: Any) -> bool:
    """Return whether a head of one value ends in a sigmoid."""
    return bool(config.num_labels == 1) and stated(config) == _SIGMOID


def check(model: PreTrainedModel) -> None:
    """Raise `InputError` for a model in memory that ends in no sigmoid, as transformers loads it, where one is stated."""
    if ends_in_sigmoid(model.config) and type(model) is not _with_sigmoid(type(model).__base__):
        raise InputError(
            f"{type(model).__name__}: its config states that its value ends in a sigmoid, which it does not compute itself; "
            "save it and give the folder to optkit.load_model"
        )


def adopt(config: Any) -> None:
    """Write down what a model's head ends in, before anything else is changed in its configuration."""
    setattr(config, FIELD, _SIGMOID if ends_in_sigmoid(config) else _IDENTITY)


def of_graph(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a `config.json` for a graph, whose output is the value: libraries add no sigmoid to it."""
    others = ("sentence_transformers", "sbert_ce_default_activation_function")
    return {**{name: told for name, told in config.items() if name not in others}, "problem_type": "regression"}


def _ending(model: Any) -> PreTrainedModel:
    if ends_in_sigmoid(model.config):
        model.__class__ = _with_sigmoid(cast(Any, type(model)))
    return cast(PreTrainedModel, model)


@cache
def _with_sigmoid(base: Any) -> type[PreTrainedModel]:
    """Return the class of a model whose logits go through a sigmoid; it has the name of the one without."""

    def forward(self: Any, *args: Any, **inputs: Any) -> Any:
        output = base.forward(self, *args, **inputs)
        output["logits"] = torch.sigmoid(output["logits"])
        return output

    forward.__signature__ = inspect.signature(base.forward)  # type: ignore[attr-defined]
    return cast(type[PreTrainedModel], type(base.__name__, (base,), {"__module__": base.__module__, "forward": forward}))
