"""Reads the two splits of a task from wherever they are: a folder of files, what `save_to_disk` wrote, or the hub."""

from pathlib import Path
from typing import Any

import datasets

from optkit.tasks.base import Split
from optkit.tasks.data import hub, reading
from optkit.tasks.data.data_settings import HUB
from optkit.tasks.data.hub import HubData
from optkit.tasks.data.tables import Table, check_folder, problem, required, table_of

_SAVED_DICT, _SAVED = "dataset_dict.json", "state.json"


def read_tables(
    task: str, source: str | None, on_hub: str | None = None, more: reading.Readers | None = None
) -> dict[Split, Table]:
    """Return the rows of both splits.

    Args:
        task: name of the task, for messages.
        source: a folder, or `hub:NAME…` (see `HubData`).
        on_hub: what to fetch where no source is given.
        more: readers of files that this task alone has, by ending.

    Raises:
        InputError: a file is wrong, or no source is given.
        MachineError: the hub cannot be reached.
    """
    found = required(task, source or on_hub)
    if (rows := read_datasets(found)) is not None:
        return {split: table_of(dataset, f"{found}, {split}") for split, dataset in rows.items()}
    return {split: reading.read(paths, more) for split, paths in reading.find(Path(found), more=more).items()}


def read_datasets(source: str) -> dict[Split, datasets.Dataset] | None:
    """Return both splits of a data set of the hub, or of one that `save_to_disk` wrote; None for a folder of files."""
    if source.startswith(HUB):
        return hub.fetch(HubData.parse(source))
    folder = Path(source)
    check_folder(folder)
    if (folder / _SAVED_DICT).is_file():
        return hub.of_splits(_saved(folder), source)
    if (folder / _SAVED).is_file():
        fix = "split it: dataset.train_test_split(0.1).save_to_disk(…)"
        raise problem(folder, "one data set", "a DatasetDict with a train and a dev split", fix)
    alone = {path.name: path for path in sorted(folder.iterdir()) if (path / _SAVED).is_file()}
    if alone:
        return hub.of_splits(datasets.DatasetDict({name: _saved(path) for name, path in alone.items()}), source)
    return None


def _saved(folder: Path) -> Any:
    """Return what `save_to_disk` left in a folder: a `Dataset`, or a `DatasetDict`."""
    try:
        return datasets.load_from_disk(str(folder))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:  # pyarrow's among them
        found = f"a data set that cannot be read ({error})"
        raise problem(folder, found, "all files that save_to_disk wrote", "save it anew") from error
