"""Reads Parquet: whatever its columns hold, and the names of classes that `datasets` writes into it."""

import logging
from pathlib import Path
from typing import Any, TypedDict

import pyarrow
from pyarrow import parquet

from optkit.core.errors import InputError
from optkit.core.json_door import checked, parse_json
from optkit.tasks.data.tables import LARGEST, SPLIT, Table, header_of, problem

_ROWS = 1000  # at a time: few, as some bytes of a file may unpack to the same long text in every row
log = logging.getLogger(__name__)


class _ClassLabel(TypedDict):
    names: list[str]


class _Info(TypedDict):
    features: dict[str, Any]


class _Described(TypedDict):
    info: _Info


def read(path: Path) -> Table:
    """Read the rows of a file.

    Raises:
        InputError: it is no Parquet, too large, or has a column twice or one that cannot be read.
    """
    try:
        with parquet.ParquetFile(path) as file:
            columns, schema = _columns(path, file), file.schema_arrow
    except (pyarrow.ArrowException, OSError, ValueError, ArithmeticError) as error:
        found = f"a file that cannot be read as Parquet ({error})"
        raise problem(path, found, "Parquet", "write it anew, or give it the ending of what it is") from None
    rows = len(next(iter(columns.values()), ()))
    return Table(str(path), columns, range(1, rows + 1), "row", _class_names(path, schema))


def _columns(path: Path, file: parquet.ParquetFile) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in header_of(path, file.schema_arrow.names)}
    size = 0
    for batch in file.iter_batches(_ROWS):
        size += sum(map(_bytes_of, batch.columns))
        if size > LARGEST:
            raise problem(path, f"more than {LARGEST:,} bytes when unpacked", "less", SPLIT)
        for values, column in zip(columns.values(), batch.columns, strict=True):
            values += column.to_pylist()
    return columns


def _bytes_of(column: pyarrow.Array) -> int:
    """Return the bytes of a column; of texts that are kept as views, which Arrow does not count, all that they look at."""
    try:
        return int(column.nbytes)
    except pyarrow.ArrowException:
        return int(column.get_total_buffer_size())


def _class_names(path: Path, schema: pyarrow.Schema) -> dict[str, tuple[str, ...]]:
    """Return what integers stand for, by column; says where that is not known."""
    described = (schema.metadata or {}).get(b"huggingface")
    if described is None:
        return {}
    try:
        features = parse_json(described, path, _Described)["info"]["features"]
        kinds = {name.strip(): _inner(kind) for name, kind in features.items() if _is_class(_inner(kind))}
        return {name: tuple(checked(kind, _ClassLabel, path)["names"]) for name, kind in kinds.items()}
    except InputError as error:
        log.warning("the names of its classes are not known, as its metadata 'huggingface' is of another kind: %s", error)
        return {}


def _inner(kind: Any) -> Any:
    """Return what a list of something holds; anything else as it is."""
    return kind["feature"] if isinstance(kind, dict) and "feature" in kind else kind


def _is_class(kind: Any) -> bool:
    return isinstance(kind, dict) and kind.get("_type") == "ClassLabel"
