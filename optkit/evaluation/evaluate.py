"""Evaluation of a model or an engine on a task's dev split, in this process."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from optkit.core.errors import InputError
from optkit.engines.registry import Engine
from optkit.evaluation import changes
from optkit.evaluation.bootstrap import paired_bootstrap
from optkit.evaluation.changes import Answers
from optkit.models import thresholds_file, tokenizers
from optkit.models.loading import Model, inference, loaded_model
from optkit.tasks.base import Feed, Prediction, Task
from optkit.tasks.belonging import Drawn
from optkit.tasks.collate import BATCH_SIZE, Collator, run

log = logging.getLogger(__name__)


class Delta(NamedTuple):
    """A difference of the headline metric, in points, with its 95 % interval."""

    points: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """Scores and predictions of a model or an engine on a task's dev split."""

    metric: str
    """Name of the headline metric, a key of `scores`."""
    scores: dict[str, float]
    """All metrics of the task by name, in points."""
    outcomes: NDArray[Any]
    """Outcome of each example, [examples] (see `optkit.tasks.outcomes`)."""
    predictions: list[Prediction]
    answers: Answers
    """Decisions and probabilities, to be compared with others' (see `optkit.evaluation.changes.answers`)."""
    groups: Drawn
    """Groups that intervals draw."""

    @property
    def value(self) -> float:
        """Headline metric, in points."""
        return self.scores[self.metric]

    def delta(self, baseline: "Evaluation") -> Delta:
        """Return the difference to a baseline, with a 95 % interval by the paired bootstrap over the examples or groups.

        Args:
            baseline: evaluation on the same examples.

        Raises:
            InputError: the two have different numbers of examples.
        """
        if self.outcomes.shape != baseline.outcomes.shape:
            found = [len(one.outcomes) for one in (self, baseline)]
            raise InputError(f"delta: found {found[0]} and {found[1]} examples, expected the same; evaluate on one task")
        interval = paired_bootstrap(self.outcomes, baseline.outcomes, self.metric, self.groups.outcomes)
        return Delta(self.value - baseline.value, *interval)

    def changes(self, baseline: "Evaluation") -> dict[str, Any]:
        """Return how the answers differ from a baseline's beside the metric, in the fields that result rows have.

        Args:
            baseline: evaluation on the same examples.

        Returns:
            `kl` (divergence of the baseline's probabilities from these, in nats), `flips` (share of other decisions, in
            percent) and `nll_change` (of what is right, in nats), each with its interval `<name>_ci95`; None of a task
            without such.
        """
        return changes.summary([self.answers], [baseline.answers], self.groups.examples)


def evaluate(subject: Engine | Model, task: Task, *, tokenizer: PreTrainedTokenizerBase | None = None) -> Evaluation:
    """Score an engine or a model on a task's dev split.

        result = optkit.evaluate(engine, task)
        result.value, result.scores, result.delta(optkit.evaluate(model, task))

    Args:
        subject: an engine, as `build_engine` returns it, or a model: a `LoadedModel` or a `PreTrainedModel`.
        task: task with the dev split.
        tokenizer: tokenizer of the model; by default that of the `LoadedModel`, or the one stored beside the engine or its
            graph.

    Returns:
        Scores, scores by example, and predictions.

    Raises:
        InputError: there is no tokenizer.
        GateError: a logit is not finite.
    """
    infer: Callable[[Feed], NDArray[Any]]
    if isinstance(subject, Engine):
        tokenizer, infer = tokenizer or _beside(subject.folder), subject.infer
        thresholds = thresholds_file.read(subject.folder) or thresholds_file.read(subject.folder.parent)
    else:
        loaded = loaded_model(subject, task, tokenizer)
        tokenizer, infer, thresholds = tokenizer or loaded.tokenizer, inference(loaded.model, task), loaded.thresholds
    task = task.deciding(thresholds or task.thresholds)
    if task.fits_thresholds and not task.thresholds:
        log.warning("no thresholds were fitted for this model: it is scored by the usual ones")
    features = task.encode("dev", tokenizer)
    logits = run(infer, features, BATCH_SIZE, Collator.of(task, tokenizer))
    predictions = task.predict(features, logits)
    answers = changes.answers(task, features, logits, predictions)
    return Evaluation(task.metric, task.score(predictions), task.outcomes(predictions), predictions, answers, task.drawn())


def _beside(engine: Path) -> Any:
    """Load the tokenizer that was exported with the engine's graph."""
    folder = next((place for place in (engine, engine.parent) if (place / "tokenizer.json").is_file()), None)
    if folder is None:
        raise InputError(f"{engine}: no tokenizer beside it or its graph; give tokenizer=…, or export with one")
    return tokenizers.load(folder, str(folder))
