"""Fetches the named data sets from the Hugging Face hub, once: afterwards they are in its cache."""

import datasets

from optkit.core.errors import MachineError
from optkit.tasks.base import Split

_SPLITS: dict[Split, str] = {"train": "train", "dev": "validation"}


def fetch(repository: str, config: str | None = None) -> dict[Split, datasets.Dataset]:
    """The `train` and `validation` splits of a data set on the hub.

    Raises:
        MachineError: the hub cannot be reached and its cache does not have the data.
    """
    try:
        return {split: datasets.load_dataset(repository, config, split=name) for split, name in _SPLITS.items()}
    except (OSError, ValueError) as error:  # ValueError: the hub is switched off and the cache lacks this data set
        raise MachineError(
            f"Hugging Face hub, data set {repository!r}: cannot be fetched ({error}). "
            "Expected a connection to huggingface.co, or the data in its cache. "
            "Fix: connect once, or give a folder with the data: --data DIR"
        ) from error
