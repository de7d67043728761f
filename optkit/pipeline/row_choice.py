"""One recipe's rows among all of a task, and the best of them."""

from collections.abc import Callable, Sequence
from statistics import geometric_mean

from optkit.core.errors import GateError, InputError
from optkit.evaluation.results import Row


def of_recipe(rows: Sequence[Row], recipe: str, task: str, seed: int, precision: str | None = None) -> list[Row]:
    """Find the current rows of one recipe and seed, of one precision or of all.

    Raises:
        InputError: there are none.
    """
    found = [row for row in rows if (row.recipe, row.seed) == (recipe, seed)]
    if not found:
        raise InputError(f"recipe {recipe!r} has no current result for task {task!r} and seed {seed}; first: optkit run")
    chosen = [row for row in found if precision in (None, row.precision)]
    if not chosen:
        have = ", ".join(row.precision for row in found)
        raise InputError(f"recipe {recipe!r} has no engine in {precision}; it has engines in {have}")
    return chosen


def one_of_recipe(rows: Sequence[Row], recipe: str, task: str, seed: int, precision: str | None = None) -> Row:
    """The one current row of a recipe and seed, as `of_recipe` finds it.

    Raises:
        InputError: there is none, or there are several precisions and none was named.
    """
    chosen = of_recipe(rows, recipe, task, seed, precision)
    if len(chosen) != 1:
        precisions = ", ".join(row.precision for row in chosen)
        raise InputError(f"recipe {recipe!r} has engines in {precisions}; name one with --precision")
    return chosen[0]


def best(rows: Sequence[Row], task: str, seed: int, precision: str | None = None) -> Row:
    """Find the fastest row of one seed that passed its gate, by `speed_among`.

    Raises:
        InputError: nothing of that seed has been run, or nothing in that precision.
        GateError: none passed.
    """
    of_seed = [row for row in rows if row.seed == seed]
    if not of_seed:
        raise InputError(f"task {task!r} has no current results of seed {seed}; first: optkit run RECIPE… --task {task}")
    found = [row for row in of_seed if precision in (None, row.precision)]
    if not found:
        have = ", ".join(dict.fromkeys(row.precision for row in of_seed))
        raise InputError(f"task {task!r} has no engine in {precision}; seed {seed} has engines in {have}")
    passed = [row for row in found if row.verdict == "pass"]
    if not passed:
        said = "".join(f"\n  - {row.recipe} ({row.precision}): {row.verdict}: {'; '.join(row.reasons)}" for row in found)
        raise GateError(f"task {task!r}, seed {seed}: no recipe passed its gate:{said}")
    return max(passed, key=speed_among(passed))


def speed_among(rows: Sequence[Row]) -> Callable[[Row], float]:
    """What rows are ranked by: the geometric mean of the speed-ups over the baseline's 16-bit engine, else over FP32.

    Each row's ratios were measured in turn, within its own run. Over 16 bits, an 8-bit row is compared with the 16-bit row
    by a ratio of these two; over FP32, by ratios of two runs, between which the machine may have changed its speed.
    """
    if all(row.speedup_vs_16bit for row in rows):
        return lambda row: geometric_mean((row.speedup_vs_16bit or {}).values())
    return lambda row: geometric_mean(row.speedup.values())
