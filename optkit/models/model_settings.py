"""What a user says about the model to start from."""

from dataclasses import dataclass

from optkit.core.errors import InputError


@dataclass(frozen=True)
class ModelSettings:
    """The model to start from, and what its files do not tell.

    Raises:
        InputError: a revision or labels without a model.
    """

    source: str | None = None
    """Folder, or name on the hub; None takes the task's own model, or BERT-base."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    labels: tuple[str, ...] | None = None
    """The data's classes in the order of the head's rows; None to match them by their names."""

    def __post_init__(self) -> None:
        for option, value in (("--revision", self.revision), ("--labels", self.labels)):
            if value is not None and self.source is None:
                raise InputError(f"{option}: is about a model, and none is given. Fix: --model MODEL")
