"""Reads what a folder of sentence-transformers says of how its model makes vectors: pooling, normalisation, prompts, length.

Everything in it is used, or refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from optkit.core.errors import InputError
from optkit.core.json_door import read_json
from optkit.tasks.data.data_settings import SHORTEST
from optkit.tasks.data.tables import shown

FIELD = "sentence_embedding"
"""Field of a model's configuration with its head: `pooling`, `normalize`, `dimensions`, `trained`; and name of the vectors
[batch, dimensions] in its output, as sentence-transformers calls them."""
SETTINGS = "sentence"
"""Setting of a tokenizer: `prompts` that go before texts by name, "" being the default one, and `similarity`."""
POOLINGS = ("mean", "cls", "last")
WHOLE = "whole"
"""Normalisation of the whole vector, of which the first dimensions are kept then: they are shorter than 1."""
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
_DIMENSIONS = ("word_embedding_dimension", "embedding_dimension")
_USUAL: Mapping[str, tuple[Any, ...]] = {
    "transformer_task": ("feature-extraction",),
    "modality_config": ({"text": {"method": "forward", "method_output_name": "last_hidden_state"}},),
    "module_input_name": (FIELD,),
    "module_output_name": ("token_embeddings", FIELD),
    "processing_kwargs": ({},),
    "unpad_inputs": (True, False),
}
"""Values of further settings that change nothing."""
_PACKAGE = "sentence_transformers."
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
    __version__: NotRequired[Any]
    truncate_dim: NotRequired[int | None]
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
    pools_prompts: bool = True
    """Whether the tokens of prompts are pooled too."""
    dimensions: int | None = None
    """Number of leading dimensions that are kept; None keeps all."""
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
    if foreign := [one["type"] for one in modules if not one["type"].startswith(_PACKAGE)]:
        raise InputError(
            f"{path}: the module {foreign[0]!r} is none of sentence-transformers' own; no code of others is run"
        )
    if modules[0]["path"]:
        raise InputError(f"{path}: its Transformer lies in {modules[0]['path']}/, expected in the folder itself; {_AGAIN}")
    settings = _settings(folder)
    length = _length(folder)
    pooling = _read(_inside(folder, modules[1]["path"]) / "config.json", _Pooling, *_POOLING, *_DIMENSIONS)
    if (
        len(kinds) > 2
        and (normalize := _inside(folder, modules[2]["path"]) / "config.json").is_file()
        and modules[2]["path"]
    ):
        _read(normalize, dict[str, Any])
    return SentenceModel(
        _pooling(pooling, folder / modules[1]["path"]),
        "Normalize" in kinds,
        _similarity(settings, folder / _FILE),
        _prompts(settings, folder / _FILE),
        pooling.get("include_prompt") is not False,
        settings.get("truncate_dim"),
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
    """Return the prompt of a role: "query", "document", or "" for a text that is neither, which gets the default prompt.

    The default one is not that of a query or a document without its own, as in the library's `encode_query`.
    """
    names = {"query": _QUERY, "document": _DOCUMENT}.get(role, ("",))
    return next((prompts[name] for name in names if name in prompts), "")


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
    if prompts:  # the library would look no further than these two, which it always has
        prompts |= {role: prompt(prompts, role) for role in ("query", "document")}
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
    found = _read(path, _Settings) if path.is_file() else {}
    if (size := found.get("truncate_dim")) is not None and size < 1:
        raise InputError(f"{path}: truncate_dim is {size}, expected 1 or more; {_AGAIN}")
    if (kind := found.get("model_type", "SentenceTransformer")) != "SentenceTransformer":
        raise InputError(
            f"{path}: model_type is {kind!r}, expected SentenceTransformer, a model of one vector for each text"
        )
    return found


def _length(folder: Path) -> Any:
    paths = sorted(folder.glob("sentence_*_config.json"))
    found = _read(paths[0], _Length) if paths else {}
    if (length := found.get("max_seq_length")) is not None and length < SHORTEST:
        raise InputError(f"{paths[0]}: max_seq_length is {length}, expected {SHORTEST} tokens or more; {_AGAIN}")
    return found


def _read(path: Path, kind: Any, *more: str) -> Any:
    """Read a file of settings, all of which are known or as usual.

    Args:
        path: of the file.
        kind: annotation of the settings that are used.
        more: names of others that are.
    """
    found = read_json(path, kind, _AGAIN)
    known = {*getattr(kind, "__annotations__", ()), *more}
    for name, value in found.items():
        if name not in known and value is not None and value not in _USUAL.get(name, ()):
            raise InputError(f"{path}: {name} is {shown(value)}, which graphs do not compute. Choose a model without it")
    return found


def _pooling(found: Any, path: Path) -> str:
    modes = found.get("pooling_mode") or [name for key, name in _POOLING.items() if found.get(key)] or "mean"
    modes = [modes] if isinstance(modes, str) else modes
    names = ["last" if mode == "lasttoken" else mode for mode in modes]
    if len(names) != 1 or names[0] not in POOLINGS:
        raise InputError(
            f"{path}: its pooling is {' and '.join(modes)}; expected one of {', '.join(POOLINGS)}. Choose a model with it"
        )
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
