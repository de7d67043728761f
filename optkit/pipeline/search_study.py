"""A search as a study of Optuna (Akiba et al. 2019, arXiv 1907.10902), kept in its journal, so that it can go on."""

import logging
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit.compression.registry import stage_of
from optkit.core.errors import MachineError, OptkitError
from optkit.pipeline import search_front
from optkit.pipeline.search_front import Delta, Judged
from optkit.pipeline.search_space import Space
from optkit.pipeline.search_trials import Outcome, Stopped, Trials
from optkit.recipe.stage import Stage

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)
SAMPLERS = ("tpe", "nsga2", "random")
MODEL = "model"
"""Name of the choice of a model among a trial's parameters."""
_STAGES, _OUTCOME, _WHY, _MODEL = "stages", "outcome", "why", "model"
_FIRST = 8
"""Trials that TPE draws at random before it learns from them, those that the space starts with included."""
_REPEATS = 30
"""Draws in a row that bring no new recipe, after which a space counts as exhausted."""


@dataclass(frozen=True)
class Tried:
    """A finished trial, or a model's baseline."""

    model: int
    stages: tuple[Stage, ...]
    outcome: Outcome

    @property
    def costs(self) -> tuple[float, float]:
        """What is least on the front: points lost, and the goal's cost."""
        return -self.outcome.delta.points, self.outcome.cost


@dataclass(frozen=True)
class Budget:
    """How long to search: a number of trials, those of earlier runs among them, or seconds from now, or both.

    A recipe that is drawn again is the same trial."""

    trials: int | None = None
    seconds: float | None = None

    def ends(self, done: int, start: float) -> bool:
        """Return whether it is spent."""
        return (self.trials is not None and done >= self.trials) or (
            self.seconds is not None and time.monotonic() - start >= self.seconds
        )


def optuna_or_hint() -> Any:
    """Import Optuna.

    Raises:
        MachineError: it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise MachineError(
            "optkit search needs Optuna, which is not installed. Run: pip install 'optkit[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_study(journal: Path, sampler: str, seed: int, side_by_side: int = 1) -> "optuna.Study":
    """Open a study, or begin it; a trial that was broken off comes again.

    Args:
        journal: file of Optuna's storage.
        sampler: one of `SAMPLERS`.
        seed: of the draws.
        side_by_side: trials that are drawn before the outcome of the first of them is known.

    Raises:
        MachineError: Optuna is not installed.
    """
    optuna = optuna_or_hint()
    journal.parent.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    study = optuna.create_study(storage=storage, study_name="search", directions=["minimize"] * 2, load_if_exists=True)
    for trial in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    drawn_by = (seed + len(study.trials)) % 2**32  # a run that goes on draws others
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is new in it
        study.sampler = _sampler(optuna, sampler, drawn_by, side_by_side)
    return study


def _sampler(optuna: Any, name: str, seed: int, side_by_side: int) -> Any:
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=_FIRST)
    liar = side_by_side > 1  # keeps away from what runs already
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=_FIRST, multivariate=True, group=True, constant_liar=liar)


def search(study: "optuna.Study", trials: Trials, space: Space, models: Sequence[str], budget: Budget, warm: bool) -> None:
    """Run trials until the budget is spent, or the space has nothing new.

    Args:
        study: goes on.
        trials: runs them, as many side by side as it can.
        space: to draw from.
        models: names of the models, each once.
        budget: when to end.
        warm: whether to begin with the space's first trials, where the study is new.
    """
    configs, start = [spec.architecture().model.config for spec in trials.specs], time.monotonic()
    if warm and not study.trials:
        for parameters in space.first_trials():
            study.enqueue_trial(parameters)
    seen, repeats = set[str](), 0
    while repeats < _REPEATS and not budget.ends(done := _done(study), start):
        count = min(trials.side_by_side, budget.trials - done) if budget.trials else trials.side_by_side
        batch = [drawn for _ in range(count) if (drawn := _draw(study, space, models, configs, budget.trials))]
        new = {drawn.key: (drawn.stages, drawn.model) for drawn in batch if _earlier(study, drawn) is None}
        repeats = 0 if new.keys() - seen else repeats + count
        seen |= new.keys()
        outcomes = dict(zip(new, trials.run(list(new.values())), strict=True)) if new else {}
        for drawn in batch:
            outcome = _earlier(study, drawn) or outcomes[drawn.key]
            if isinstance(outcome, OptkitError):
                _ended(study, drawn.trial, outcome, drawn.title)
            else:
                _tell(study, drawn, outcome, trials.goal.unit)
    if repeats >= _REPEATS:
        log.warning("the search ends: %d draws in a row brought no recipe that was not tried or refused before", repeats)


@dataclass(frozen=True)
class _Drawn:
    """A trial that has its recipe."""

    trial: "optuna.Trial"
    title: str
    stages: tuple[Stage, ...]
    model: int

    @cached_property
    def told(self) -> list[dict[str, Any]]:
        return [stage.model_dump(mode="json") for stage in self.stages]

    @property
    def key(self) -> str:
        return _key({_STAGES: self.told, _MODEL: self.model})


def _key(attributes: Mapping[str, Any]) -> str:
    """What tells a trial's recipe from others."""
    return repr((attributes[_STAGES], attributes[_MODEL]))


def _draw(
    study: "optuna.Study", space: Space, models: Sequence[str], configs: Sequence[Any], budget: int | None
) -> _Drawn | None:
    """Draw a trial; None where the settings do not go together, of which the study has been told."""
    trial = study.ask()
    title = f"trial {_position(study, trial)}" + (f" of {budget}" if budget else "")
    model = models.index(trial.suggest_categorical(MODEL, models)) if len(models) > 1 else 0
    try:
        drawn = _Drawn(trial, title, space.draw(trial, configs[model]), model)
    except OptkitError as error:
        _ended(study, trial, error, title)
        return None
    for name, value in {_STAGES: drawn.told, _MODEL: model}.items():
        trial.set_user_attr(name, value)
    if _earlier(study, drawn) is None:
        log.info("%s: %s%s", title, _said(drawn.stages), f" of {models[model]}" if len(models) > 1 else "")
    return drawn


def _has_ended(trial: "optuna.trial.FrozenTrial") -> bool:
    """Whether a trial has come to an end, be it an error; one that was broken off has not."""
    return bool({_OUTCOME, _WHY} & trial.user_attrs.keys())


def _count(trials: "Iterable[optuna.trial.FrozenTrial]") -> int:
    """How many trials there are, a recipe that was drawn several times counting once."""
    return len({_key(own) if _MODEL in (own := one.user_attrs) else one.number for one in trials})


def _done(study: "optuna.Study") -> int:
    return _count(filter(_has_ended, study.get_trials(deepcopy=False)))


def _position(study: "optuna.Study", trial: "optuna.Trial") -> int:
    """The place of a trial among those that count, which is not its number in the journal: those broken off have one too."""
    earlier = (one for one in study.get_trials(deepcopy=False) if one.number < trial.number)
    return 1 + _count(one for one in earlier if _has_ended(one) or not one.state.is_finished())


def _tell(study: "optuna.Study", drawn: _Drawn, outcome: Outcome, unit: str) -> None:
    """Tell the study what came of a trial, and the log, unless the recipe was tried before."""
    known = _earlier(study, drawn) is not None
    drawn.trial.set_user_attr(_OUTCOME, asdict(outcome))
    study.tell(drawn.trial, [-outcome.delta.points, outcome.cost])
    if not known:
        log.info("%s: %s points, %s %.3g (%s)", drawn.title, outcome.delta, unit, outcome.cost, outcome.precision)


def _ended(study: "optuna.Study", trial: "optuna.Trial", error: OptkitError, title: str) -> None:
    """Tell the study of a trial without an outcome."""
    from optuna.trial import TrialState

    log.warning("%s: %s", title, error)
    trial.set_user_attr(_WHY, str(error))
    study.tell(trial, state=TrialState.PRUNED if isinstance(error, Stopped) else TrialState.FAIL)


def _earlier(study: "optuna.Study", drawn: _Drawn) -> Outcome | None:
    """The outcome of an earlier trial of the same recipe."""
    for trial in study.get_trials(deepcopy=False):
        attributes = trial.user_attrs
        if _OUTCOME in attributes and (attributes[_STAGES], attributes[_MODEL]) == (drawn.told, drawn.model):
            return _outcome(attributes[_OUTCOME])
    return None


def _outcome(kept: Mapping[str, Any]) -> Outcome:
    return Outcome(**{**kept, "delta": Delta(*kept["delta"])})


def finished(study: "optuna.Study") -> list[Tried]:
    """Return the trials that have an outcome, each recipe of a model once, in the order in which they were tried."""
    found: dict[str, Tried] = {}
    for trial in study.get_trials(deepcopy=False):
        own = trial.user_attrs
        if _OUTCOME in own:
            stages = tuple(stage_of(settings).as_read() for settings in own[_STAGES])  # of earlier versions too
            found.setdefault(_key(own), Tried(own[_MODEL], stages, _outcome(own[_OUTCOME])))
    return list(found.values())


def not_finished(study: "optuna.Study") -> list[str]:
    """Return why trials have no outcome."""
    return [str(trial.user_attrs[_WHY]) for trial in study.get_trials(deepcopy=False) if _WHY in trial.user_attrs]


def finalists(tried: Sequence[Tried], max_drop: float, count: int) -> list[Tried]:
    """Return the recipes that are trained in full: those of the front, as `ranked` has them; then those of the front without
    these, and so on, as a trial's time and loss are measured in short.

    The surest, by the lower end of its interval, is among several: those that are faster may turn out to be undecided, all.

    Args:
        tried: trials and baselines, which are run in any case.
        max_drop: of the budget.
        count: how many.
    """
    found, left = list[Tried](), list(tried)
    while left:
        best = search_front.front(left, lambda one: one.costs)
        order = search_front.ranked(best, lambda one: Judged(_reach(one, max_drop), one.outcome.delta, one.outcome.cost))
        found += [one for one in order if one.stages]
        left = [one for one in left if one not in best]
    most_sure = surest(found)
    if count > 1 and most_sure and most_sure not in found[:count]:
        return [*found[: count - 1], most_sure]
    return found[:count]


def surest(tried: Sequence[Tried]) -> Tried | None:
    """Return the trial that loses least by the lower end of its interval; None where there are baselines alone."""
    recipes = [one for one in tried if one.stages]
    return max(recipes, key=lambda one: (one.outcome.delta.low, -one.outcome.cost), default=None)


def _reach(one: Tried, max_drop: float) -> str:
    """Whether a trial holds the budget as far as a part of the data tells: by its points, or its interval reaches there."""
    delta = one.outcome.delta
    return "pass" if delta.points >= -max_drop else "undecided" if delta.high >= -max_drop else "fail"


def _said(stages: Sequence[Stage]) -> str:
    """Stages in a few words: what is not the default."""
    parts = []
    for stage in stages:
        given = {name: value for name, value in stage.model_dump(exclude_defaults=True).items() if name != "technique"}
        parts.append(f"{stage.technique}({', '.join(f'{name}={value}' for name, value in given.items())})")
    return " → ".join(parts)
