"""Values: from the column `label` to finite numbers."""

import logging
import math
import re
from collections.abc import Sequence
from decimal import Decimal

import numpy as np

from optkit.tasks.data.tables import Table, problem, shown

_FIX = "write the value, or remove the row"
_EASY = 20.0
"""Largest value that a head reaches from around 0 in a usual training, whose steps are small."""
_LARGEST = 3.4e38
"""Largest number of float32, in which values are learned."""
_ROUNDED = 1e-3
"""Share of the values' standard deviation by which float32 may move one."""
_LARGEST_GRADE = 1000
_WRITTEN = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
log = logging.getLogger(__name__)


def values_of(table: Table) -> list[float]:
    """Return the value of every row.

    Raises:
        InputError: no column `label`, a row whose value is missing or no finite number, or rows of one value only.
    """
    if "label" not in table.columns:
        found = f"no column 'label' ({table.named})"
        raise problem(table.source, found, "the value of each row in 'label'", "name it: --label-column NAME")
    values = [_value(table, row, value) for row, value in enumerate(table.columns["label"])]
    if len(set(values)) < 2:
        found = f"the value {values[0]:g} in each of {len(values)} rows"
        raise problem(table.source, found, "different ones", "add rows of other values")
    if (largest := max(map(abs, values))) > _EASY:
        log.warning(
            "%s: values of up to %g, which training reaches slowly; divide them, so that they lie within %g",
            *(table.source, largest, _EASY),
        )
    _check_rounding(table, values)
    return values


def _check_rounding(table: Table, values: Sequence[float]) -> None:
    """Raise `InputError` for values that are one in float32, in which they are learned; warn of those that it moves far."""
    exact = np.array(values)
    rounded = exact.astype(np.float32)
    if len(set(rounded.tolist())) < 2:
        found = f"values that float32 cannot tell apart ({min(values):.17g} to {max(values):.17g})"
        raise problem(
            table.source, found, "values that differ in 7 digits", "subtract what all have in common, and scale the rest"
        )
    moved = float(np.abs(rounded - exact).max())
    if moved > _ROUNDED * float(exact.std()):
        said = (
            "%s: float32, in which values are learned, moves them by up to %.3g: %d different ones become %d; subtract %.17g"
        )
        log.warning(said, table.source, moved, len(set(values)), len(set(rounded.tolist())), min(values))


def grades_of(table: Table, column: str) -> list[int]:
    """Return the grade of relevance of every row: 0 for none.

    Args:
        table: with the column.
        column: name of the column.

    Raises:
        InputError: a grade is missing, or no whole number from 0 on.
    """
    plain = (int(value) if isinstance(value, bool) else value for value in table.columns[column])
    grades = [_value(table, row, value) for row, value in enumerate(plain)]
    for row, grade in enumerate(grades):
        if grade < 0 or not grade.is_integer() or grade > _LARGEST_GRADE:
            found = f"the grade {shown(table.columns[column][row])} in {column!r}"
            expected = f"a whole number from 0, which is not relevant, to {_LARGEST_GRADE}"
            raise problem(table.at(row), found, expected, "write grades of relevance")
    return [int(grade) for grade in grades]


def _value(table: Table, row: int, value: object) -> float:
    where = table.at(row)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise problem(where, f"no value ({shown(value)})", "a number", _FIX)
    number = _number(value)
    if not abs(number) <= _LARGEST:  # nor NaN
        raise problem(where, f"the value {shown(value)}", "a finite number, with a point for decimals", _FIX)
    return number


def _number(value: object) -> float:
    """Return a number, or one that is written as text; NaN for anything else."""
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, str) and _WRITTEN.fullmatch(value.strip())):
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]
    except (OverflowError, ValueError):
        return math.inf
