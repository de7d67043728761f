"""Tokenizers that fit their model: its inputs, its length and its words."""

import hashlib
import inspect
import json
import logging
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

from tokenizers import Tokenizer
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import SentencePieceExtractor

from optkit.core.errors import InputError
from optkit.core.json_door import read_json
from optkit.models import families
from optkit.tasks.sentence_folder import SETTINGS

FILES = (
    *("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "spm.model"),
    *("tokenizer.model", "tiktoken.model"),
)
"""Files of which one at least makes a folder's tokenizer; those after the first are converted into it."""
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_IN_FEATURES = ("unk_token", "cls_token", "sep_token", "pad_token", "bos_token", "eos_token")
"""Roles of the special tokens that a model may be given."""
_AGAIN = "save it again with tokenizer.save_pretrained"
_NO_LIMIT = 512
"""Longest input of a model and a tokenizer that both state none."""
_NEVER_SO_LONG = 10**6
"""From here on a tokenizer's limit is none, as 1e30 says."""
_RANDOM = ("dropout", "alpha", "nbest_size")
"""Settings of BPE and Unigram by which a text has other tokens each time."""
log = logging.getLogger(__name__)


class _Settings(TypedDict, total=False):
    model_max_length: float | None
    model_input_names: list[str]
    padding_side: Literal["left", "right"]
    truncation_side: Literal["left", "right"]


def load(folder: Path, source: str) -> PreTrainedTokenizerBase:
    """Load a folder's tokenizer as a fast one, converted where it is a SentencePiece or vocabulary file only.

    Raises:
        InputError: it cannot be converted; the message says what is missing.
    """
    present = [name for name in FILES if (folder / name).is_file()]
    if present and present[0].endswith(".model") and present[0] != "tiktoken.model":
        _check_convertible(folder / present[0], source)
    for name in filter(lambda name: (folder / name).is_file(), _SETTINGS):
        read_json(folder / name, _Settings, _AGAIN)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # of transformers and tokenizers, which raise nearly everything
        reason = next(iter(str(error).strip().splitlines()), "")
        where = folder / present[0] if present else folder
        raise InputError(f"{source}: {where} is no tokenizer ({type(error).__name__}: {reason:.200}); {_AGAIN}") from error
    if not tokenizer.is_fast:
        raise InputError(f"{source}: its tokenizer has no fast version; add a tokenizer.json to the folder")
    if present:
        _check_special(tokenizer, folder / present[0], source)
    settle(tokenizer, source)
    return cast(PreTrainedTokenizerBase, tokenizer)


def fit(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, source: str) -> None:
    """Change a tokenizer in place so that it gives inputs that its model takes, and no more tokens than that has positions
    for.

    Args:
        tokenizer: fast tokenizer.
        model: its model; may be on the meta device.
        source: what both belong to, for messages.

    Raises:
        InputError: the tokenizer has tokens or segments beyond the model's tables, or no padding token.
    """
    settle(tokenizer, source)
    _check_words(tokenizer, model, source)
    _find_padding(tokenizer, model, source)
    taken = ["input_ids", "attention_mask"]
    if takes_segments(model) and "token_type_ids" in tokenizer.model_input_names:
        _check_segments(tokenizer, model, source)
        taken.append("token_type_ids")
    given = [name for name in tokenizer.model_input_names if name in taken]
    tokenizer.model_input_names = list(dict.fromkeys([*given, *taken]))
    limits = [families.longest_input(model) or 0, tokenizer.model_max_length]
    # XLNet says -1, tokenizers say 1e30, or 512.0
    stated = [int(limit) for limit in limits if 1 <= limit < _NEVER_SO_LONG]
    tokenizer.model_max_length = min(stated, default=_NO_LIMIT)


def settle(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Change a tokenizer in place so that a text has the same tokens each time: no dropout, no samples."""
    reader = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    drawn = {name: value for name in _RANDOM if (value := getattr(reader, name, None))}
    for name in drawn:
        setattr(reader, name, None)
    if drawn:
        _say_settled(source, ", ".join(f"model.{name} {value:.3g}" for name, value in drawn.items()))


@cache
def _say_settled(source: str, settings: str) -> None:
    """Say once of a tokenizer, which is loaded several times."""
    said = "%s: its tokenizer has %s, by which a text has other tokens each time; left out, here and where it is served"
    log.warning(said, source, settings)


def takes_segments(model: PreTrainedModel) -> bool:
    """Return whether a model tells more than one kind of token apart, by `token_type_ids`."""
    return "token_type_ids" in inspect.signature(model.forward).parameters and families.token_types(model.config) > 1


def keep_first_segment(model: PreTrainedModel, source: str) -> None:
    """Take the embeddings of all segments but the first out of a model, in place.

    A tokenizer that gives no `token_type_ids` means the first segment everywhere, as in PyTorch; the graph then has no such
    input either.

    Raises:
        InputError: the model has no table of segments that is known.
    """
    tables = [
        table
        for name, table in model.named_modules()
        if isinstance(table, nn.Embedding) and "type" in name.rpartition(".")[2]
    ]
    if not tables:
        raise InputError(
            f"{source}: its tokenizer gives no token_type_ids, which {type(model).__name__} takes, and no table of "
            "them is known in it; add token_type_ids to model_input_names in tokenizer_config.json"
        )
    for table in tables:
        table.weight, table.num_embeddings = nn.Parameter(table.weight.detach()[:1].clone()), 1
    config = model.config
    setattr(config, next(name for name in families.family_of(config).token_types if getattr(config, name, None)), 1)


def differences(ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase) -> list[str]:
    """Return the parts in which two fast tokenizers differ, such as "normalizer"; empty if they read texts alike."""
    one, other = _parts(ours), _parts(theirs)
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of all that features depend on: the tokenizer's parts, inputs, length and side of truncation,
    and prompts before texts."""
    settings: list[Any] = [tokenizer.model_input_names, tokenizer.model_max_length, tokenizer.truncation_side]
    settings += [before] if (before := tokenizer.init_kwargs.get(SETTINGS)) else []
    content = json.dumps([_parts(tokenizer), settings], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _parts(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    stored = json.loads(cast(Any, tokenizer).backend_tokenizer.to_str())
    parts = {name: stored[name] for name in ("normalizer", "pre_tokenizer", "model", "post_processor", "added_tokens")}
    return {**parts, "split_special_tokens": True} if tokenizer.split_special_tokens else parts


def _check_convertible(path: Path, source: str) -> None:
    """Raise `InputError` where a SentencePiece model cannot be read; transformers would go on and ask for tiktoken."""
    try:
        SentencePieceExtractor(str(path))
    except Exception as error:  # ImportError, protobuf's own, or of the file
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise InputError(
            f"{source}: its tokenizer is {path.name} only and cannot be converted ({reason}); pip install sentencepiece "
            "protobuf, or save it as tokenizer.json where they are"
        ) from error


def _check_special(tokenizer: PreTrainedTokenizerBase, path: Path, source: str) -> None:
    """Raise `InputError` if a special token of features is in none of the tokenizer's files, so that it was made up."""
    named = [token for role in _IN_FEATURES if isinstance(token := tokenizer.special_tokens_map.get(role), str)]
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()}.intersection(named)
    known = _known(path) if added else None
    if known is not None and (lost := [token for token in dict.fromkeys(named) if token not in known]):
        raise InputError(
            f"{source}: its special tokens {', '.join(lost)} are not in {path.name}; take the tokenizer that the model was "
            "trained with"
        )


def _known(path: Path) -> Collection[str] | None:
    """Return the words of a tokenizer's file; None for one that leaves special tokens to transformers."""
    if path.name == "tokenizer.json":
        return Tokenizer.from_file(str(path)).get_vocab().keys()
    if path.name == "vocab.txt":
        return set(path.read_text(encoding="utf-8").splitlines())
    return None


def _check_words(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, source: str) -> None:
    rows = len(families.word_embeddings(model))
    beyond = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= rows)
    if beyond:
        shown = ", ".join(f"{token!r} ({number})" for number, token in beyond[:5])
        raise InputError(
            f"{source}: its tokenizer has {len(beyond)} tokens beyond the {rows} rows of the model's embeddings: "
            f"{shown}{', …' if len(beyond) > 5 else ''}. They were added without room for them: "
            "model.resize_token_embeddings(len(tokenizer)), train it, and save both again"
        )


def _find_padding(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, source: str) -> None:
    if tokenizer.pad_token_id is not None:
        return
    stated = getattr(model.config, "pad_token_id", None)
    token = None if stated is None else tokenizer.convert_ids_to_tokens(stated)
    if token is None:
        raise InputError(
            f"{source}: its tokenizer has no padding token, and config.json has no pad_token_id; set pad_token in "
            "tokenizer_config.json to a token that texts do not have"
        )
    tokenizer.pad_token = token


def _check_segments(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, source: str) -> None:
    kinds, known = set(tokenizer("a", "a")["token_type_ids"]), families.token_types(model.config)
    if max(kinds) >= known:
        raise InputError(
            f"{source}: its tokenizer gives token_type_ids up to {max(kinds)}, the model knows 0 to {known - 1}; "
            "take the tokenizer that the model was trained with"
        )
