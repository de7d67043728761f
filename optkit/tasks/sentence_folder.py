"""Reads what a folder of sentence-transformers says of how its model makes vectors: pooling, normalisation, prompts, length.

Everything in it is used, or refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from optkit.core.errors import InputError
from optkit.core.json_door import read_json

FIELD = "sentence_embedding"
"""Field of a model's configuration with its head: `pooling`, `normalize`, `dimensions`, `trained`; and name of the vectors
[batch, dimensions] in its output, as sentence-transformers calls them."""
SETTINGS = "sentence"
"""Setting of a tokenizer: `prompts` that go before texts by name, "" being the default one, and `similarity`."""
POOLINGS = ("mean", "cls", "last")
SIMILARITIES = ("cosine", "dot")
MODULES = "modules.json"
_FILE = "config_sentence_transformers.json"
_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "last",
}
"""Names of poolings in older folders."""
_AGAIN = "save the model again with sentence-transformers"
_QUERY, _DOCUMENT = ("query",), ("document", "passage", "corpus")
"""Names of the prompts of either side, those that go first before the others, as sentence-transformers looks for them."""


class _Module(TypedDict):
    path: str
    type: str


class _Pooling(TypedDict, total=False):
    pooling_mode: str | list[str]
    include_prompt: bool


class _Length(TypedDict, total=False):
    max_seq_length: int | None
    do_lower_case: bool


class _Settings(TypedDict):
    prompts: NotRequired[dict[str, str | None]]
    default_prompt_name: NotRequired[str | None]
    similarity_fn_name: NotRequired[str | None]
    model_type: NotRequired[str]


@dataclass(frozen=True)
class SentenceModel:
    """How a model makes vectors of texts."""

    pooling: str = POOLINGS[0]
    normalize: bool = True
    similarity: str = SIMILARITIES[0]
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Prompts by name, and under "" the default one."""
    max_length: int | None = None
    lower_case: bool = False
    """Whether texts are put into small letters first."""


def read(folder: Path) -> SentenceModel | None:
    """Read a folder; None for one that sentence-transformers did not write.

    Raises:
        InputError: a module, a pooling or a setting that optkit's graphs do not compute.
    """
    if not (folder / MODULES).is_file():
        return None
    path = folder / MODULES
    modules = read_json(path, list[_Module], _AGAIN)
    kinds = [one["type"].rpartition(".")[2] for one in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise InputError(
            f"{path}: its modules are {', '.join(kinds)}; expected Transformer, Pooling, and perhaps Normalize, which a "
            "graph has. Choose a model without the others"
        )
    if modules[0]["path"]:
        raise InputError(f"{path}: its Transformer lies in {modules[0]['path']}/, expected in the folder itself; {_AGAIN}")
    settings = _settings(folder)
    length = _length(folder)
    return SentenceModel(
        _pooling(_inside(folder, modules[1]["path"]) / "config.json", bool(settings.get("prompts"))),
        "Normalize" in kinds,
        _similarity(settings, folder / _FILE),
        _prompts(settings, folder / _FILE),
        length.get("max_seq_length"),
        length.get("do_lower_case", False),
    )


def prompts_of(tokenizer: Any) -> dict[str, str]:
    """Return the prompts by name that a tokenizer's texts stand behind; empty without prompts."""
    return dict(tokenizer.init_kwargs.get(SETTINGS, {}).get("prompts", {}))


def by_dot(tokenizer: Any) -> bool:
    """Return whether vectors of a tokenizer's texts are compared by their dot products, and not by cosines."""
    return bool(tokenizer.init_kwargs.get(SETTINGS, {}).get("similarity") == "dot")


def prompt(prompts: Mapping[str, str], role: str) -> str:
    """Return the prompt of a role: "query", "document", or "" for a text that is neither."""
    names = {"query": _QUERY, "document": _DOCUMENT}.get(role, ())
    return next((prompts[name] for name in names if name in prompts), prompts.get("", ""))


def files(dimensions: int, tokenizer: Any) -> dict[str, Any]:
    """Return the files, by path, of a folder whose graph gives vectors already: each as its text's only token.

    Args:
        dimensions: of the vectors.
        tokenizer: of the model.
    """
    prompts = prompts_of(tokenizer)
    default = next((name for name, text in prompts.items() if name and text and text == prompts.get("")), None)
    if prompts.get("") and default is None:
        prompts["default"], default = prompts[""], "default"
    settings = {
        "prompts": {name: text for name, text in prompts.items() if name},
        "default_prompt_name": default,
        "similarity_fn_name": SIMILARITIES[by_dot(tokenizer)],
    }
    kinds = {"Transformer": "", "Pooling": "1_Pooling"}
    return {
        MODULES: [
            {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for place, (kind, path) in enumerate(kinds.items())
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": dimensions, "pooling_mode_cls_token": True},
        "sentence_bert_config.json": {"max_seq_length": tokenizer.model_max_length, "do_lower_case": False},
        _FILE: settings,
    }


def _inside(folder: Path, path: str) -> Path:
    """Return a module's folder, which is one of the model's."""
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise InputError(f"{folder / MODULES}: the path {path!r} leads out of the folder; {_AGAIN}")
    return folder / path


def _settings(folder: Path) -> Any:
    path = folder / _FILE
    found = read_json(path, _Settings, _AGAIN) if path.is_file() else {}
    if (kind := found.get("model_type", "SentenceTransformer")) != "SentenceTransformer":
        raise InputError(
            f"{path}: model_type is {kind!r}, expected SentenceTransformer, a model of one vector for each text"
        )
    return found


def _length(folder: Path) -> Any:
    paths = sorted(folder.glob("sentence_*_config.json"))
    return read_json(paths[0], _Length, _AGAIN) if paths else {}


def _pooling(path: Path, has_prompts: bool) -> str:
    found: Any = read_json(path, _Pooling, _AGAIN)
    modes = found.get("pooling_mode") or [name for key, name in _POOLING.items() if found.get(key)] or "mean"
    modes = [modes] if isinstance(modes, str) else modes
    names = ["last" if mode == "lasttoken" else mode for mode in modes]
    if len(names) != 1 or names[0] not in POOLINGS:
        raise InputError(
            f"{path}: its pooling is {' and '.join(modes)}; expected one of {', '.join(POOLINGS)}. Choose a model with it"
        )
    if has_prompts and found.get("include_prompt") is False:
        raise InputError(f"{path}: include_prompt is false, so that prompts are not pooled, which graphs cannot leave out")
    return names[0]


def _similarity(settings: Any, path: Path) -> str:
    name: str = settings.get("similarity_fn_name") or SIMILARITIES[0]
    if name not in SIMILARITIES:
        raise InputError(f"{path}: similarity_fn_name is {name!r}, expected one of {', '.join(SIMILARITIES)}")
    return name


def _prompts(settings: Any, path: Path) -> dict[str, str]:
    prompts = {name: text for name, text in (settings.get("prompts") or {}).items() if text is not None}
    default = settings.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise InputError(f"{path}: default_prompt_name is {default!r}, which is none of its prompts ({', '.join(prompts)})")
    if not any(prompts.values()):
        return {}
    return {**prompts, "": prompts[default] if default else ""}
