"""The verdict: the rows of a recipe, with what its gate says of each."""

from optkit.evaluation.results import Row
from optkit.pipeline import refusals, result_file, rows
from optkit.pipeline.run_spec import RunSpec
from optkit.recipe.recipe import Recipe


def judged(recipe: Recipe, spec: RunSpec) -> list[Row]:
    """The recipe's rows, one per engine precision, written down beside what they are about."""
    folder = spec.folder(recipe)
    found = rows.rows_of(recipe, spec.task, spec.seed, folder, spec.folder(spec.baseline))
    result_file.write(found, folder)
    refusals.forget(folder)
    if spec.given is not None:  # where another machine has trained, this one does not know it yet
        spec.home.remember(spec.given)
    return found
