"""What a user says about a task's data: where it is, which columns are meant, how much of it is used."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from optkit.core.errors import InputError

HUB = "hub:"
"""Begin of a source on the Hugging Face hub."""
COLUMNS = ("text_column", "text_pair_column", "label_column")
"""Settings that name columns."""
SHORTEST = 8
"""Least length in tokens that leaves room for text beside the special tokens."""


@dataclass(frozen=True)
class DataSettings:
    """Place and reading of a task's data; None leaves a choice to the task.

    Raises:
        InputError: a limit below 1.
    """

    source: str | None = None
    """Folder with a `train` and a `dev` file, or `hub:OWNER/NAME[/CONFIG]`."""
    limit_train: int | None = None
    """Number of training rows to use, the first after a shuffle with a fixed seed."""
    max_length: int | None = None
    """Longest feature in tokens."""
    metric: str | None = None
    """Headline metric."""
    text_column: str | None = None
    """Column of the text, or of the first text of a pair."""
    text_pair_column: str | None = None
    """Column of the second text of a pair."""
    label_column: str | None = None
    """Column of the class."""
    group_column: str | None = None
    """Column of what rows belong to: intervals draw such groups; `group` if there is one."""
    unlabelled: str | None = None
    """File of texts without labels, for stages with a teacher."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Choices that the task alone has, by name; see `Task.options`."""

    def refuse(self, task: str, *names: str) -> None:
        """Raise `InputError` if one of these settings is given, which the task has no use for.

        Args:
            task: name of the task.
            names: names of fields.
        """
        given = [f"--{name.replace('_', '-')} {value}" for name in names if (value := getattr(self, name)) is not None]
        if given:
            raise InputError(f"task {task!r} takes no {', '.join(given)}; leave it out")

    def __post_init__(self) -> None:
        _check_number("limit on training rows", self.limit_train, 1, "--limit-train 1000")
        _check_number("longest input in tokens", self.max_length, SHORTEST, "--max-length 128")
        if not isinstance(self.options, Mapping):
            raise InputError(f"options of a task: found {self.options!r}, expected {{name: value}}")


def _check_number(what: str, found: object, least: int, fix: str) -> None:
    if found is not None and not (isinstance(found, int) and found >= least):
        raise InputError(f"{what}: found {found!r}, expected {least} or more. Fix: {fix}")
