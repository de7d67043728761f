"""Texts without labels, for models that learn from a teacher: read, checked, and kept apart from the dev split."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.core.errors import InputError
from optkit.tasks.base import Task
from optkit.tasks.collate import truncated
from optkit.tasks.data import conll, reading
from optkit.tasks.data.columns import mapped
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.data.pieces import Words, words_of
from optkit.tasks.data.tables import Table, check_text, problem
from optkit.tasks.texts import TEXT_COLUMNS, text_columns

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)
_SENTENCES: reading.Readers = dict.fromkeys(conll.SENTENCES, conll.read)


def read(task: Task, settings: DataSettings) -> tuple[Sequence[str], ...]:
    """Return the texts of the file `settings.unlabelled`, a column for each of the task's text columns.

    Rows of the dev split are left out and counted, in other capitals or marks too: a student must not have been taught what
    it is scored on. So are repeated texts.

    Args:
        task: that models learn, with its data.
        settings: name of the file, and of its columns.

    Raises:
        InputError: the task takes no such texts; or the file is missing, is of no known kind or has a row without a text.
    """
    path = Path(str(settings.unlabelled)).expanduser()
    if not task.learns_from_texts:
        raise InputError(
            f"--unlabelled {path}: task {task.name!r} takes none; leave it out (Distill and Sparsify vary the training "
            "texts by augment)"
        )
    found = _joined_tokens(reading.read_file(path, {**_SENTENCES, **reading.PLAIN}))
    table = mapped(found, replace(settings, label_column=None, group_column=None), TEXT_COLUMNS)
    columns = [table.columns[name] for name in _names(table, task)]
    for name, column in zip(task.text_columns, columns, strict=True):
        for row, text in enumerate(column):
            check_text(table.at(row), name, text)
    seen = {_wording(row) for row in task.texts("dev")}
    others = [row for row in zip(*columns, strict=True) if _wording(row) not in seen]
    if not others:
        raise problem(path, "rows of the dev split alone", "other texts", "leave --unlabelled out")
    kept = list(dict.fromkeys(others))
    for count, why in ((len(table) - len(others), "rows of the dev split"), (len(others) - len(kept), "there already")):
        if count:
            log.warning("%s: %s of %s texts are left out, they are %s", path, f"{count:,}", f"{len(table):,}", why)
    log.info("%s: %s texts to be answered by teachers", path, f"{len(kept):,}")
    return tuple(zip(*kept, strict=True))


def encode(task: Task, tokenizer: "PreTrainedTokenizerBase") -> "Dataset | None":
    """Return the features of a task's texts without labels; None without such texts.

    Columns: the tokenizer's `model_input_names`, and `length` in tokens. A text that is too long is cut.
    """
    from datasets import Dataset

    if not task.unlabelled:
        return None
    columns = truncated(tokenizer, [list(column) for column in task.unlabelled], task.length(tokenizer))
    return Dataset.from_dict({name: columns[name] for name in (*tokenizer.model_input_names, "length")})


def _wording(texts: Sequence[str]) -> tuple[Words, ...]:
    return tuple(words_of(text) for text in texts)


def _joined_tokens(table: Table) -> Table:
    """Return a table whose texts are its sentences of tokens, if it has such and no texts."""
    if conll.TOKENS not in table.columns or "text" in table.columns:
        return table
    return replace(table, columns={**table.columns, "text": conll.joined(table.columns[conll.TOKENS])})


def _names(table: Table, task: Task) -> tuple[str, ...]:
    """Return the names of the columns with the texts."""
    if set(task.text_columns) <= set(table.columns):
        return task.text_columns
    names = text_columns(table)
    if len(names) != len(task.text_columns):
        found = f"{len(names)} columns with text ({', '.join(names)})"
        raise problem(table.source, found, f"{len(task.text_columns)}, as the training rows have", "give such texts")
    return names
