"""What can be known of a recipe from the model's configuration alone, before any training is paid for."""

import logging
from collections.abc import Callable

from torch import nn

from optkit.compression.student import check_teacher, student
from optkit.core.errors import InputError
from optkit.models import two_to_four
from optkit.models.families import encoder_linears, prunable
from optkit.models.loading import Loaded
from optkit.recipe.recipe import Recipe, is_folder
from optkit.recipe.stages import Distill, Sparsify

log = logging.getLogger(__name__)


def check(recipe: Recipe, start: Loaded, teacher: Callable[[str], Loaded]) -> None:
    """Raise where a stage of the recipe cannot work on a model; warn where it can on a part of it only.

    Args:
        recipe: to be run.
        start: what it starts from; its weights are not looked at and may be on the meta device.
        teacher: gives the teacher in a folder.

    Raises:
        InputError: the student cannot be made or taught, or nothing of it can be 2:4.
    """
    model = start.model
    for stage in recipe.stages:
        try:
            if isinstance(stage, Distill):
                model = student(model, stage.layers, stage.hidden_size)
            if isinstance(stage, Sparsify):
                report_dense(recipe.name, model)
            if stage.teacher in recipe.teachers and is_folder(stage.teacher):
                check_teacher(Loaded(model, start.tokenizer), teacher(stage.teacher), stage.teacher)
        except InputError as error:
            raise InputError(f"recipe {recipe.name!r}: {error}") from error


def report_dense(name: str, model: nn.Module) -> None:
    """Warn of each Linear of the encoder that cannot be 2:4, and of their share of its multiply-adds.

    Raises:
        InputError: none can be.
    """
    linears, fitting = encoder_linears(model), prunable(model)
    dense = {at: linear for at, linear in linears.items() if at not in fitting}
    lines = [f"  {at}: {_why(linear)}" for at, linear in dense.items()]
    rule = f"2:4 takes out in multiples of {two_to_four.OUT_MULTIPLE} and in of {two_to_four.IN_MULTIPLE}"
    if not fitting:
        raise InputError(
            f"none of the {len(linears)} Linear modules in the encoder can be 2:4 ({rule}); leave Sparsify out, or choose "
            "another hidden_size:\n" + "\n".join(lines)
        )
    if dense:
        share = sum(map(_work, dense.values())) / sum(map(_work, linears.values()))
        log.warning(
            "%s: %d of %d Linear modules stay dense, %.0f %% of the encoder's multiply-adds with weights (%s):\n%s",
            *(name, len(dense), len(linears), 100 * share, rule, "\n".join(lines)),
        )


def _work(linear: nn.Linear) -> int:
    """Multiply-adds per token."""
    return linear.out_features * linear.in_features


def _why(linear: nn.Linear) -> str:
    out, inner = linear.out_features, linear.in_features
    return f"out {_in_multiples(out, two_to_four.OUT_MULTIPLE)}, in {_in_multiples(inner, two_to_four.IN_MULTIPLE)}"


def _in_multiples(size: int, of: int) -> str:
    return f"{size} = {size // of} × {of} + {size % of}"
