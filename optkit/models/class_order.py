"""Order of a head's classes: which row of a classifier answers with which class of the data.

Classes are matched by their names: equal but for case, blanks, underscores and what is not seen; equal numbers; or each the
beginning of one other, as `pos` of `positive`. What names do not tell, the user tells; nothing is guessed.
"""

import logging
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from optkit.core.errors import InputError
from optkit.core.json_door import read_json
from optkit.core.printable import seen, told_apart
from optkit.models.families import word_embeddings

log = logging.getLogger(__name__)
_UNNAMED = re.compile(r"LABEL_(\d+)")


def names_of(config: Any) -> list[str]:
    """Return the names of a head's rows by its configuration, `LABEL_1` for one without."""
    stated: Mapping[Any, Any] = config.id2label or {}
    return [str(stated.get(row, f"LABEL_{row}")) for row in range(config.num_labels)]


def name(config: Any, names: Sequence[str]) -> None:
    """Give a head's rows their names; what kind of problem one with another number of rows was for is forgotten."""
    if config.num_labels != len(names):
        config.problem_type = None  # transformers would refuse it beside this head
    config.update({"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}})


def check_stated(path: Path) -> None:
    """Raise `InputError` if a configuration says of a class that it has another row by `label2id` than by `id2label`."""
    stated = read_json(path, dict[str, Any])
    rows, names = stated.get("id2label"), stated.get("label2id")
    if not isinstance(rows, dict) or not isinstance(names, dict):
        return
    for row, name in rows.items():
        if isinstance(name, str) and str(names.get(name, row)) != row:
            raise InputError(
                f"{path}: {name!r} is row {row} by id2label and row {names[name]} by label2id; correct one of them, or give "
                "the data's classes in the order of the head's rows: --labels"
            )


def order(found: Sequence[str], classes: Sequence[str], labels: Sequence[str] | None, source: str) -> list[int]:
    """Return the row of the head that answers with each class.

    Args:
        found: names of the head's rows by its own configuration.
        classes: the data's classes, in the order that the head shall have.
        labels: the data's classes in the order of the head's rows, by the user; None to match the names.
        source: what the head belongs to, for messages.

    Raises:
        InputError: the names do not tell, or `labels` are not the data's classes.
    """
    if labels is not None:
        return _by_user([label.strip() for label in labels], classes, source)
    for alike in (_exactly, seen, str.casefold, _letters, _number):
        if (rows := _matched(found, classes, alike)) is not None:
            return rows
    if (rows := _by_beginnings(found, classes)) is not None:
        pairs = ", ".join(f"{found[row]} is {name}" for row, name in zip(rows, classes, strict=True))
        log.warning("%s: the names of its classes are taken for the data's by their beginnings: %s", source, pairs)
        return rows
    told = told_apart([*found, *classes])
    raise InputError(
        f"{source}: its head's classes are {', '.join(told[: len(found)])} (id2label in config.json), the data's are "
        f"{', '.join(told[len(found) :])}, and the names do not tell which is which. Say it by --labels (labels=[…] in "
        f"Python), the data's classes in the order of the head's rows, such as --labels {','.join(classes)}; or write the "
        "data's names into its id2label, as for a teacher"
    )


def served_names(found: Sequence[str], rows: Sequence[int], classes: Sequence[str]) -> list[str]:
    """Return the names of the head's classes in the task's order: the head's own, or the data's where it has none."""
    if all(_UNNAMED.fullmatch(name) for name in found) or len(set(found)) < len(found):
        return list(classes)
    return [found[row] for row in rows]


def permute(model: PreTrainedModel, rows: Sequence[int], source: str) -> None:
    """Sort the rows of a classifier's last Linear in place, and see on an input that the logits follow.

    Args:
        model: classifier.
        rows: for each class, the row that has it now.
        source: what the head belongs to, for messages.

    Raises:
        InputError: no Linear of the head gives the logits.
    """
    if list(rows) == sorted(rows):
        return
    model.eval()
    base = {id(module) for module in model.base_model.modules()} if model.base_model is not model else set()
    heads = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and id(module) not in base and module.out_features == len(rows)
    ]
    before = _probe(model)
    if heads:
        with torch.no_grad():
            for parameter in heads[-1].parameters():
                parameter.copy_(parameter[list(rows)].clone())
    if not torch.allclose(_probe(model), before[..., list(rows)], atol=1e-5):
        raise InputError(
            f"{source}: the rows of its head cannot be sorted into the order of the data's classes, as no Linear module of "
            f"{type(model).__name__} gives its logits; save it with its classes in the data's order"
        )


def _by_user(labels: Sequence[str], classes: Sequence[str], source: str) -> list[int]:
    for alike in (_exactly, seen):
        if (rows := _matched(labels, classes, alike)) is not None:
            return rows
    raise InputError(
        f"{source}: --labels {','.join(labels)} are not the data's classes; expected each of {', '.join(classes)} once, "
        "in the order of the head's rows"
    )


def _matched(found: Sequence[str], classes: Sequence[str], alike: Callable[[str], str | None]) -> list[int] | None:
    """Return the row of each class by names that are equal after a change; None unless that pairs all of them."""
    theirs, ours = [alike(name.strip()) for name in found], [alike(name.strip()) for name in classes]
    if None in theirs or len(set(theirs)) < len(theirs) or set(theirs) != set(ours) or len(ours) != len(theirs):
        return None
    return [theirs.index(name) for name in ours]


def _by_beginnings(found: Sequence[str], classes: Sequence[str]) -> list[int] | None:
    """Return the row of each class where each name begins, or is begun by, exactly one of the others."""
    theirs, ours = [_letters(name) for name in found], [_letters(name) for name in classes]
    pairs = [[row for row, other in enumerate(theirs) if _begins(name, other) or _begins(other, name)] for name in ours]
    rows = [own[0] for own in pairs if len(own) == 1]
    return rows if len(rows) == len(classes) == len(found) == len(set(rows)) else None


def _begins(short: str, long: str) -> bool:
    """Return whether a name begins another; 1 does not begin 10 or 1.5."""
    return long.startswith(short) and not re.match(r"[\d.]", long[len(short) :] if short[-1:].isdigit() else "")


def _exactly(name: str) -> str:
    return name


def _letters(name: str) -> str:
    """Return a name without case, blanks, underscores and punctuation; one without letters, as -1, stays."""
    if not any(map(str.isalpha, name)):
        return name.strip()
    return "".join(one for one in seen(name).casefold() if one.isalnum() or unicodedata.category(one).startswith("M"))


def _number(name: str) -> str | None:
    """Return the number that a name is, `LABEL_1` being 1; None for words."""
    match = re.fullmatch(r"(?:LABEL_)?([+-]?\d{1,18})", name)
    return str(int(match[1])) if match else None


def _probe(model: PreTrainedModel) -> torch.Tensor:
    """Return the logits of a short input, [1, …, classes]."""
    count = len(word_embeddings(model))
    ids = torch.arange(1, 9).remainder(count)[None].to(model.device)
    with torch.no_grad():
        return cast(torch.Tensor, model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits)
