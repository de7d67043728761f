"""Tasks: the data sets that models are trained on and scored by.

    task = load("classification", Path("reviews"))
    features = task.encode("dev", tokenizer)
    logits = batches.run(infer, features, 32, batches.Collator(tokenizer))
    task.score(task.predict(features, logits))

`NAMES` answers at once: what is heavy is imported when a task is loaded.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.core.errors import InputError

if TYPE_CHECKING:
    from optkit.tasks.base import Task

NAMES = ("sample", "sst2", "squad", "classification", "qa")
_QUESTIONS = ("squad", "qa")
_IN_A_FOLDER = ("classification", "qa")


def load(name: str, data: Path | None = None, limit_train: int | None = None) -> Task:
    """The task of this name, read and checked.

    Args:
        name: one of `NAMES`. `sample` ships with the package, `sst2` and `squad` come from the Hugging Face hub
            unless `data` is given, `classification` and `qa` are read from `data`.
        data: the folder with a `train` and a `dev` file.
        limit_train: train on this many rows only: the first ones after a shuffle that is the same for everybody.

    Raises:
        InputError: the name, a setting or a file is wrong.
        MachineError: the hub cannot be reached.
    """
    _check(name, data, limit_train)
    if name == "sample":
        from optkit.tasks.classification import sample

        return sample(limit_train)
    if name in _QUESTIONS:
        from optkit.tasks.question_answering import QuestionAnswering, read_splits

        return QuestionAnswering(name, read_splits(data), limit_train)
    from optkit.tasks.classification import Classification, read_tables

    return Classification(name, read_tables(data), limit_train)


def _check(name: str, data: Path | None, limit_train: int | None) -> None:
    """Raises InputError where the settings alone show a mistake."""
    if name not in NAMES:
        close = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else "Your own data: --task classification (or qa) --data DIR."
        raise InputError(f"task {name!r}: no such task; expected one of {', '.join(NAMES)}. {hint}")
    if name in _IN_A_FOLDER and data is None:
        raise InputError(f"task {name!r}: no data; expected a folder with a train and a dev file. Fix: --data DIR")
    if name == "sample" and data is not None:
        raise InputError(
            f"task 'sample': found --data {data}, but the sample ships with the package. "
            "Fix: leave --data out, or use --task classification for your own data"
        )
    if limit_train is not None and limit_train < 1:
        raise InputError(f"limit on training rows: found {limit_train}, expected 1 or more. Fix: --limit-train 1000")
