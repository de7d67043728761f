"""The guard of a training: weights are kept only where they answer better on examples held out from it than those before."""

import logging
from collections.abc import Callable
from dataclasses import replace

from optkit.compression.context import Context
from optkit.compression.held_out_trial import parted, weights
from optkit.compression.retrain import answers_loss
from optkit.core.errors import InputError
from optkit.models.loading import LoadedModel
from optkit.recipe.stage import History, Taught
from optkit.training.loop import mean_loss

log = logging.getLogger(__name__)
SHARE, MOST, SEED = 0.05, 1000, 1  # the seed of `learning_rates` is 0: other examples choose among them


def guarded(loaded: LoadedModel, stage: Taught, context: Context, train: Callable[[Context], History]) -> History:
    """Train a model, and give it its weights from before back where it has become no better on what is held out.

    It is judged by the divergence from its teachers' answers, or, without a teacher, by the task's loss on the labels.

    Args:
        loaded: the model; a remark says what came of it.
        stage: has the teachers.
        context: its training features are parted; where they cannot be, all are trained on, and judge too.
        train: trains the model on the features of a context.

    Returns:
        History of the training, kept or not.
    """
    learned, judged = _parted(context)
    plain = stage.model_copy(update={"temperature": 1.0, "label_weight": 0.0})
    teachers = [context.teacher_model(name) for name in stage.teachers] if stage.augment else []
    loss = answers_loss(teachers, plain, judged)

    def judge() -> float:
        found = mean_loss(loaded.model, judged.batches(context.training.batch_size), loss)
        return max(0.0, found)  # none is negative but by rounding

    before, start = judge(), weights(loaded.model)
    history = train(learned)
    after = judge()
    by = "divergence from its teacher" if stage.teachers else "loss"
    told = f"{by} on {len(judged.features):,} rows held out: {after:.4g} trained, {before:.4g} before"
    if after < before:
        loaded.remarks.append(f"{told}; the trained weights are kept")
    else:
        loaded.model.load_state_dict(start)
        loaded.remarks.append(f"{told}; training made it no better, and the weights from before are kept")
    log.info("%s", loaded.remarks[-1])
    return history


def _parted(context: Context) -> tuple[Context, Context]:
    """Return the contexts to learn from and to judge by."""
    try:
        return parted(context, SHARE, MOST, SEED)
    except InputError as error:
        log.warning("nothing is held out, the training rows themselves judge the training: %s", error)
        return context, replace(context, unlabelled=None)
