"""What can be known of a recipe from the model's configuration alone, before any training is paid for."""

from collections.abc import Callable

from optkit.compression.registry import TECHNIQUES
from optkit.compression.student import check_teacher
from optkit.core.errors import InputError
from optkit.models.loading import LoadedModel
from optkit.recipe.recipe import Recipe, is_folder
from optkit.tasks.base import Task


def check(recipe: Recipe, start: LoadedModel, teacher: Callable[[str], LoadedModel], task: Task | None = None) -> None:
    """Raise where a stage of the recipe cannot work on a model; warn where it can on a part of it only.

    Args:
        recipe: to be run.
        start: what it starts from; its weights are not looked at and may be on the meta device.
        teacher: gives the teacher in a folder.
        task: that is trained; without one, teachers have to suit any.

    Raises:
        InputError: a technique cannot work on the model, cannot be taught by its teacher, or is known by no name.
    """
    model = start.model
    for stage in recipe.stages:
        try:
            TECHNIQUES.get(stage.technique)  # its checkpoint will be read by that name
            model = stage.preflight(model, recipe.name)
            for name in filter(is_folder, stage.teachers):
                check_teacher(LoadedModel(model, start.tokenizer), teacher(name), name, stage, task)
        except InputError as error:
            raise InputError(f"recipe {recipe.name!r}: {error}") from error
