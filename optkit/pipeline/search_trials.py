"""Trials of a search: recipes trained on a part of train, judged in PyTorch on the part of dev that the search sees, their
engines timed beside the FP32 baseline's without a server. On a cluster several trials are on their way side by side.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from optkit.core.errors import GateError, InputError, OptkitError
from optkit.engines import registry as engines
from optkit.engines import select, side_by_side
from optkit.engines.record import read_record
from optkit.evaluation import doubts
from optkit.evaluation.artifacts import STAGE_SCORES, engine_folders, read_scores
from optkit.models import tokenizers
from optkit.pipeline import preflight, search_front
from optkit.pipeline.run import Attempt, as_far_as_possible
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.search_front import Delta, Parts
from optkit.pipeline.search_goal import Goal
from optkit.pipeline.step_graph import Graph, Step, title, trainings_of
from optkit.pipeline.steps.build_engines import converted
from optkit.pipeline.steps.train import with_stages
from optkit.recipe.recipe import Recipe
from optkit.recipe.stage import BASELINE, Stage
from optkit.tasks.base import Feed
from optkit.tasks.collate import random_batches

log = logging.getLogger(__name__)
FP32 = "fp32"
HOPELESS = 5.0
"""Points below the budget from which a trial goes no further: later stages do not bring so much back."""
SECONDS = 1.0
"""How long each engine of a trial is timed at each batch size."""


class Stopped(OptkitError):
    """A trial that was ended early, as it cannot come near the budget."""


@dataclass(frozen=True)
class Outcome:
    """What came of a trial."""

    delta: Delta
    """On the part of dev that the search sees."""
    cost: float
    """See `Goal.cost`."""
    precision: str
    """Precision of its best engine."""
    engine: str
    """Kind of this engine: the fastest that agrees of all that were built."""


_NONE_LOST = Delta(0.0, 0.0, 0.0)


class Best(NamedTuple):
    """The engine of least cost of a recipe."""

    cost: float
    precision: str
    kind: str


@dataclass
class _Trial:
    """A trial on its way."""

    stages: tuple[Stage, ...]
    model: int
    spec: RunSpec
    delta: Delta = _NONE_LOST
    """After the stages that are trained."""
    ended: Outcome | OptkitError | None = None

    def recipe(self, count: int) -> Recipe:
        """The recipe of the first stages."""
        return with_stages(self.stages[:count], self.spec.baseline.training, self.spec)

    def refusal(self, here: bool) -> OptkitError | None:
        """Why the recipe does not apply to the model, or has no engine on this machine, where they are built here."""
        recipe = self.recipe(len(self.stages))
        if here:
            try:
                select.plan(self.spec.engines, recipe.is_quantised)
            except InputError as error:
                return error
        reason = preflight.why_not([recipe], self.spec.architecture(), self.spec).get(recipe.name)
        return InputError(reason) if reason else None


class Trials:
    """Trials of several models against one reference: the FP32 baseline of the first."""

    def __init__(
        self, specs: Sequence[RunSpec], goal: Goal, attempt: Attempt = as_far_as_possible, side_by_side: int = 1
    ) -> None:
        """Say what is tried.

        Args:
            specs: one for each model, on a part of train; the first model's baseline is the reference.
            goal: what is looked for.
            attempt: takes steps.
            side_by_side: how many trials are worth running at once.
        """
        self.specs, self.goal, self.side_by_side, self._attempt = specs, goal, side_by_side, attempt

    @cached_property
    def parts(self) -> Parts:
        """Dev in two parts; the baselines have run."""
        return search_front.parts_of_dev(self.specs[0].task, len(self._reference))

    @cached_property
    def _reference(self) -> NDArray[Any]:
        spec = self.specs[0]
        return read_scores(spec.folder(spec.baseline) / STAGE_SCORES)[BASELINE]

    def baselines(self) -> list[Outcome]:
        """Run the models' baselines, which comes before all trials.

        Raises:
            GateError: the reference has learned nothing.
            OptkitError: one fails.
        """
        going = [_Trial((), model, spec) for model, spec in enumerate(self.specs)]
        self._train(going, 0)
        self._check_reference()
        self._measure([one for one in going if one.ended is None])
        found = [one.ended for one in going]
        for ended in found:
            if isinstance(ended, OptkitError):
                raise ended
        return [ended for ended in found if isinstance(ended, Outcome)]

    def _check_reference(self) -> None:
        folder = self.specs[0].folder(self.specs[0].baseline)
        doubt = doubts.of_checkpoint(folder)
        if doubt and doubt["verdict"] == "fail":
            raise GateError(
                f"the baseline that trials are compared with {doubt['reason']}: nothing would be found. Train it longer or "
                "on more, as by --epochs, --learning-rate or --trial-share 1"
            )

    def run(self, trials: Sequence[tuple[Sequence[Stage], int]]) -> list[Outcome | OptkitError]:
        """Run trials; finished stages of earlier ones are not done again.

        Args:
            trials: stages of a recipe, and the number of the model, of each.

        Returns:
            What came of each. It is an error where the recipe does not apply to the model, its training fails, no engine
            agrees, or the trial was `Stopped`.
        """
        going = [_Trial(tuple(stages), model, self.specs[model]) for stages, model in trials]
        for one in going:
            one.ended = one.refusal(here=self._attempt is as_far_as_possible)
        for count in range(1, max(len(one.stages) for one in going) + 1):
            self._train([one for one in going if one.ended is None and len(one.stages) >= count], count)
        self._measure([one for one in going if one.ended is None])
        return [one.ended for one in going if one.ended is not None]

    def _train(self, trials: Sequence[_Trial], count: int) -> None:
        """Train the first stages of trials, and end those that are hopeless."""
        graphs = [self._named(trainings_of(one.recipe(count), one.spec), one) for one in trials]
        errors = self._taken({name: step for graph in graphs for name, step in graph.items()})[1]
        for one, graph in zip(trials, graphs, strict=True):
            one.ended = next((errors[name] for name in graph if name in errors), None)
            if one.ended is None:
                self._judge(one, count)

    def _judge(self, one: _Trial, count: int) -> None:
        recipe = one.recipe(count)
        scores = read_scores(one.spec.folder(recipe) / STAGE_SCORES)
        technique = one.stages[count - 1].technique if count else BASELINE
        parts, metric = self.parts, self.specs[0].task.metric
        one.delta = search_front.delta(scores[technique][None], self._reference[None], metric, parts, parts.chosen_on)
        if count and not recipe.is_half and one.delta.high < -self.goal.max_drop - HOPELESS:
            one.ended = Stopped(f"ended after {technique}: {one.delta}")

    def _measure(self, trials: Sequence[_Trial]) -> None:
        """Time the engines of trials; a cluster's node that measures does one thing at a time."""
        graphs = [self._named(self._measuring(one), one) for one in trials]
        found, errors = self._taken({name: step for graph in graphs for name, step in graph.items()})
        for one, (name,) in zip(trials, graphs, strict=True):
            one.ended = errors[name] if name in errors else Outcome(one.delta, *found[name])

    def _measuring(self, one: _Trial) -> Graph:
        recipe = one.recipe(len(one.stages))
        if one.stages:  # the baseline's engines are others' too
            recipe = recipe.model_copy(update={"workload": self.goal.workload})
        run = partial(best_engine, recipe, one.spec, self.specs[0], self.goal)
        return {title("measure", recipe.name, one.spec): Step("measure", run, ())}

    def _named(self, graph: Graph, one: _Trial) -> Graph:
        """A graph whose titles say the model, where there are several."""
        if len(self.specs) == 1:
            return graph
        model = f", model {one.model + 1}"
        return {
            f"{name}{model}": replace(step, needs=tuple(f"{need}{model}" for need in step.needs))
            for name, step in graph.items()
        }

    def _taken(self, graph: Graph) -> tuple[Mapping[str, Any], dict[str, OptkitError]]:
        """What steps gave, and what they raised on purpose."""
        if not graph:
            return {}, {}
        found, errors = self._attempt(graph)
        known = {name: error for name, error in errors.items() if isinstance(error, OptkitError)}
        for name in errors.keys() - known.keys():
            raise errors[name]
        return found, known


def best_engine(recipe: Recipe, spec: RunSpec, reference: RunSpec, goal: Goal) -> Best:
    """Build the engines of a checkpoint and return the one of least cost.

    Args:
        recipe, spec: of the checkpoint.
        reference: whose FP32 baseline they are timed beside.
        goal: what is looked for.
    """
    try:
        folders = engine_folders(converted(recipe, spec))
        ratios = time_ratios(recipe, spec, reference.baseline, reference, goal.batch_sizes)
        costs = {name: goal.cost(ratios.get(name, {}), _size(folder)) for name, folder in folders.items()}
        best = min(costs, key=lambda name: costs[name])
        return Best(costs[best], best, read_record(folders[best])["kind"])
    finally:
        for step in () if recipe.is_baseline else ("graph", "engines", "ranges"):
            # made again in a minute, and hundreds of MB of each trial
            shutil.rmtree(spec.folder(recipe) / step, ignore_errors=True)


def time_ratios(
    recipe: Recipe, spec: RunSpec, reference: Recipe, other: RunSpec, sizes: Sequence[int]
) -> dict[str, dict[int, float]]:
    """Return the time of a recipe's engines over that of a reference in float32, by precision and batch size.

    They are asked about the same examples in turn, each by its own tokenizer.

    Args:
        recipe, spec: whose engines.
        reference, other: whose FP32 engine.
        sizes: batch sizes.
    """
    found: dict[str, dict[int, float]] = {}
    beside = {"": engines.load(engine_folders(converted(reference, other))[FP32])}
    beside |= {name: engines.load(folder) for name, folder in engine_folders(converted(recipe, spec)).items()}
    for size in sizes:
        feeds = {name: _feeds(*((recipe, spec) if name else (reference, other)), size) for name in beside}
        ms = side_by_side.latency_ms({name: (engine, feeds[name]) for name, engine in beside.items()}, SECONDS)
        for name in beside.keys() - {""}:
            found.setdefault(name, {})[size] = ms[name] / ms[""]
    return found


def _feeds(recipe: Recipe, spec: RunSpec, size: int) -> list[Feed]:
    tokenizer = tokenizers.load(spec.folder(recipe), str(spec.folder(recipe)))
    return random_batches(spec.features("dev", tokenizer), spec.collator(tokenizer), size)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
