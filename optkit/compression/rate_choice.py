"""The learning rate chosen on training examples that are held out for it, never on the dev split."""

import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from optkit.compression.context import Context
from optkit.compression.held_out_trial import parted, weights
from optkit.models.loading import LoadedModel
from optkit.recipe.stage import History, Taught
from optkit.training.loop import TrainingError, mean_loss
from optkit.training.losses import Loss

log = logging.getLogger(__name__)


class _Trial(NamedTuple):
    """A training with one rate."""

    loss: float
    """On what is held out."""
    rate: float
    history: History
    weights: dict[str, Any]


def train_with_best(
    loaded: LoadedModel,
    stage: Taught,
    context: Context,
    title: str,
    loss: Callable[[Context], Loss],
    run: Callable[[str, Loss, Taught, Context], History],
) -> History:
    """Train a model with each of the stage's learning rates, and leave it as the one with the least loss has made it.

    Args:
        loaded: trained in place, from the same weights each time; a remark says which rate was taken.
        stage: has the rates.
        context: its training features are parted: most are trained on, the others judge.
        title: of the training.
        loss: gives the loss for a context's features and teachers.
        run: trains the model under a title with the learning rate of a stage, on the features of a context.

    Returns:
        History of the training that is kept.

    Raises:
        TrainingError: the loss is not finite with any of the rates.
        InputError: the training examples cannot be parted.
    """
    learned, judged = parted(context)
    model = loaded.model
    start, trials = weights(model), list[_Trial]()
    for rate in stage.learning_rates:
        model.load_state_dict(start)
        try:
            history = run(f"{title}, {rate:g}", loss(learned), stage.model_copy(update={"learning_rate": rate}), learned)
        except TrainingError as error:
            log.warning("learning rate %g is left out: %s", rate, error)
            continue
        found = mean_loss(model, judged.batches(context.training.batch_size), loss(judged))
        if not math.isfinite(found):
            log.warning("learning rate %g is left out: the loss is %g on the examples held out", rate, found)
            continue
        log.info("learning rate %g: loss %.4g on the examples held out", rate, found)
        trials.append(_Trial(found, rate, history, weights(model)))
    if not trials:
        raise TrainingError(f"the loss is not finite with any of the learning rates {stage.learning_rates}; give lower ones")
    best = min(trials, key=lambda trial: trial.loss)
    remark = f"{title}: learning rate {best.rate:g}, of {', '.join(f'{rate:g}' for rate in stage.learning_rates)}"
    log.info("%s", remark)
    loaded.remarks.append(f"{remark}, by the loss on {len(judged.features):,} training examples held out")
    model.load_state_dict(best.weights)
    return best.history
