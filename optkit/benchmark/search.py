"""The search for a model's configuration: successive halving over a small grid, then the finalists in turn.

Short windows rank many candidates and drop the worse half each time (Jamieson and Talwalkar 2016). What is left is then
measured beside the default round by round, and only these rounds decide: a candidate that was merely lucky before is
not better there.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from optkit.benchmark import scenarios
from optkit.benchmark.choice import Choice, Goal, Trial, choose, rank
from optkit.benchmark.measurement import ALONE, IDLE
from optkit.benchmark.scratch_server import Bench, Model, loaded
from optkit.benchmark.serving_settings import Settings, batchings, splits
from optkit.serving import repository

log = logging.getLogger(__name__)
SPLITS, BATCHING, FINAL = "splits", "batching", "final"
_SHARES = {SPLITS: 0.25, BATCHING: 0.35}
"""Share of the time that each phase gets; what is left is the finalists'."""
LEAST_S = 1.0
"""Shortest measurement, in seconds."""
_OVERHEAD_S = 2.0
"""What loading and warming a model costs, until it is known better."""
LEAST_ROUNDS, MOST_ROUNDS = 6, 24
_FINALISTS = 2
"""Number of finalists besides the default."""


@dataclass
class Search:
    """A search under way; `trials` has all that was measured."""

    bench: Bench
    model: Model
    goal: Goal
    cores: int
    seconds: float
    clock: Callable[[], float] = time.monotonic
    trials: list[Trial] = field(default_factory=list)
    not_tried: list[Settings] = field(default_factory=list)
    """Settings that were not tried for lack of time."""

    def __post_init__(self) -> None:
        self.default = Settings.of(vars(self.model.config))
        self._started, self._overhead_s = self.clock(), _OVERHEAD_S
        self._placed_as: dict[Settings, Model] = {}

    def run(self) -> Choice:
        """Search for as long as there is time; the default and the finalists get their least in any case."""
        best = self._halve(splits(self.default, self.cores, self.goal.clients), 2, SPLITS)
        bases = list(dict.fromkeys([best[0], self.default, *best]))[:2]
        largest = self.model.config.max_batch_size
        beside = zip(*(batchings(base, self.goal.clients, largest) for base in bases), strict=False)
        self._halve([settings for pair in beside for settings in pair], _FINALISTS, BATCHING)
        others = self._ranked([settings for settings in self._placed_as if settings != self.default])
        self._in_turn([self.default, *others[:_FINALISTS]])
        final = [trial for trial in self.trials if trial.phase == FINAL]
        return choose(self.goal, self.default, final, len(self._placed_as))

    def _halve(self, candidates: Sequence[Settings], keep: int, phase: str) -> list[Settings]:
        """The best `keep` of the candidates, or of those that there was time for, the best first."""
        end_s = self._elapsed() + _SHARES[phase] * self.seconds
        rounds = max(1, math.ceil(math.log2(max(1, len(candidates)) / keep)))
        left = list(candidates)
        for number in range(rounds):
            share_s = (end_s - self._elapsed()) / (rounds - number) / max(1, len(left))
            for settings in left:
                if settings == self.default or self._elapsed() < end_s:
                    self._try(settings, share_s, phase)
                elif settings not in self._placed_as:
                    self.not_tried.append(settings)
            tried = [settings for settings in left if settings in self._placed_as]
            left = self._ranked(tried)[: max(keep, math.ceil(len(left) / 2))]
        return left[:keep]

    def _try(self, settings: Settings, seconds: float, phase: str) -> None:
        """One candidate alone on the server, in about so many seconds with all that it takes to load it."""
        started, window_s = self._elapsed(), max(LEAST_S, seconds - self._overhead_s)
        model = self._placed(settings)
        with loaded(self.bench.server, model):
            self._measure(settings, model, window_s, phase, ALONE)
        self._overhead_s = self._elapsed() - started - window_s

    def _in_turn(self, finalists: Sequence[Settings]) -> None:
        """Round by round, all loaded and one asked at a time, so that a machine that drifts moves all alike."""
        models = {settings: self._placed(settings) for settings in finalists}
        left_s = self.seconds - self._elapsed()
        window_s = max(LEAST_S, left_s / len(models) / (2 * LEAST_ROUNDS))
        with loaded(self.bench.server, *models.values()):
            for number in range(MOST_ROUNDS):
                if number >= LEAST_ROUNDS and self._elapsed() >= self.seconds:
                    break
                for settings, model in models.items():
                    self._measure(settings, model, window_s, FINAL, IDLE)

    def _measure(self, settings: Settings, model: Model, seconds: float, phase: str, others: str) -> None:
        run = partial(scenarios.closed_loop, seconds=seconds, extensions=0)
        line = self.bench.line(model, self.goal.clients, run, others)
        self.trials.append(Trial(phase, settings, line))

    def _placed(self, settings: Settings) -> Model:
        """The model with these settings, in the server's repository."""
        if settings not in self._placed_as:
            name = f"{self.model.config.name}.{len(self._placed_as)}"
            model = replace(self.model, config=settings.apply(self.model.config, name))
            repository.place(self.bench.server.repository, model.engine, model.config, link=True)
            self._placed_as[settings] = model
            log.info("%s: %s", name, settings)
        return self._placed_as[settings]

    def _ranked(self, candidates: Sequence[Settings]) -> list[Settings]:
        """Sort candidates: those that hold the bound first, then by the goal's figure or the distance to the bound."""
        return sorted(candidates, key=lambda one: rank(self.goal, [t.line for t in self.trials if t.settings == one]))

    def _elapsed(self) -> float:
        return self.clock() - self._started
