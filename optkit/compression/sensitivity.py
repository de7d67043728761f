"""What each Linear module of an encoder costs when it alone is INT8, or 2:4, and what leaving it as it is brings: how far
the answers move from those of the model before, on calibration data. No labels are needed.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from optkit.compression import kept, quantizers
from optkit.models.families import encoder_linears, layers_of
from optkit.tasks.base import Feed, TaskKind

if TYPE_CHECKING:
    from optkit.compression.context import Context

EXAMPLES = 128
"""Training examples that modules are chosen on where a recipe leaves the choice to "auto"."""
CHECKED = 4
"""Share of the examples, as one batch in so many, that the choice is made on; the others check it."""
LEAST_ALONE = 0.001
"""Share of the changed model's divergence that a module has to cost or bring alone, if it is to be left."""
LEAST_TOGETHER = 0.01
"""Share of the changed model's divergence that all which are left have to take away together on other examples."""
ROUNDING = float(torch.finfo(torch.float32).eps)
"""Divergence below which nothing is told from the rounding of the answers, which are computed in FP32: in nats of
probabilities, which add up to 1; of values, as a share of their mean square."""
Answers = list[torch.Tensor]
"""Answers to each batch: logarithms of probabilities [decisions, choices], or values without padding."""
Alter = Callable[[Collection[str]], AbstractContextManager[None]]
"""Function whose context has some modules, by name, changed by the technique, and all others as they were."""


@dataclass(frozen=True)
class OneByOne:
    """A model in which any of the modules that a technique can change are changed by it, and the others are not."""

    model: PreTrainedModel
    names: tuple[str, ...]
    """Names of these modules."""
    alter: Alter


@dataclass(frozen=True)
class Effect:
    """What a part of the encoder costs when it alone is changed, or brings when it alone is left."""

    part: str
    """Name of a Linear module, or `layer <n>`, or `all`."""
    divergence: float
    """Divergence of the answers from those before, in nats; where a task has no probabilities, the squared distance."""
    share: float
    """Share of the multiply-adds of the modules that the technique changes."""


@dataclass(frozen=True)
class Measured:
    """What parts cost, or bring."""

    effects: list[Effect]
    rounding: float
    """Divergence that may be nothing but FP32's rounding."""


def distance_name(task: TaskKind) -> str:
    """Return what divergences are of a task's answers."""
    return "squared distance" if task.choice is None else "KL (nats)"


Measure = Callable[[OneByOne, Sequence[Feed], TaskKind], list[Effect]]
"""Function that returns the effect of every Linear module."""


def effects(trial: OneByOne, feeds: Sequence[Feed], task: TaskKind, groups: Mapping[str, Collection[str]]) -> list[Effect]:
    """Return what each group of Linear modules costs when it alone is changed, in the order of the groups.

    Args:
        trial: model and technique.
        feeds: inputs, the same for all.
        task: gives the distributions in logits.
        groups: names of Linear modules by the part that they are.
    """
    return measured(trial, feeds, task, groups).effects


def measured(trial: OneByOne, feeds: Sequence[Feed], task: TaskKind, groups: Mapping[str, Collection[str]]) -> Measured:
    """Return the same beside what FP32 may round; arguments as of `effects`."""
    linears = encoder_linears(trial.model)
    able = {name: linears[name] for name in trial.names}
    reference = _altered(trial, (), feeds, task)
    found = [
        Effect(part, _distance(_altered(trial, names, feeds, task), reference, task), kept.share(able, names))
        for part, names in groups.items()
    ]
    return Measured(found, _rounding(reference, task))


def singles(names: Collection[str]) -> dict[str, list[str]]:
    """Return groups of one module each."""
    return {name: [name] for name in names}


def by_layer(model: PreTrainedModel, names: Collection[str]) -> dict[str, list[str]]:
    """Return the modules of each layer, and all of them together."""
    number, found = layers_of(model).number, dict[str, list[str]]()
    for name in names:
        found.setdefault(f"layer {number(name)}", []).append(name)
    return {**found, "all": [*names]}


def quantised(model: PreTrainedModel) -> OneByOne:
    """Take apart a calibrated model: some modules INT8, the others float."""
    own = quantizers.by_linear(model)

    @contextmanager
    def alter(names: Collection[str]) -> Iterator[None]:
        off = [quantiser for name, both in own.items() if name not in names for quantiser in both]
        for quantiser in off:
            quantiser.disable()
        try:
            yield
        finally:
            for quantiser in off:
                quantiser.enable()

    return OneByOne(model, tuple(own), alter)


def pruned(model: PreTrainedModel, sparse: Mapping[str, torch.Tensor]) -> OneByOne:
    """Take apart a dense model: some modules with their 2:4 weights [out, in], given by name, the others dense."""
    linears = encoder_linears(model)

    @contextmanager
    def alter(names: Collection[str]) -> Iterator[None]:
        dense = {name: linears[name].weight.data for name in names}
        for name in names:
            linears[name].weight.data = sparse[name]
        try:
            yield
        finally:
            for name, weight in dense.items():
                linears[name].weight.data = weight

    return OneByOne(model, tuple(sparse), alter)


def costs(trial: OneByOne, feeds: Sequence[Feed], task: TaskKind) -> list[Effect]:
    """Return what each Linear module costs when it alone is changed. It finds what pruning costs, which is large."""
    return effects(trial, feeds, task, singles(trial.names))


def gains(trial: OneByOne, feeds: Sequence[Feed], task: TaskKind) -> list[Effect]:
    """Return what leaving each Linear module as it is brings while all others are changed: divergence that it takes away.

    It finds what rounding costs, which is small: a module's error may vanish in those that come after it, or add to theirs.

    Args:
        trial: model and technique.
        feeds: inputs, the same for all.
        task: gives the distributions in logits.
    """
    rest = {name: [other for other in trial.names if other != name] for name in trial.names}
    *found, whole = effects(trial, feeds, task, {**rest, "all": trial.names})
    return [Effect(one.part, whole.divergence - one.divergence, whole.share - one.share) for one in found]


def choose(found: Sequence[Effect], budget: float, least: float = 0) -> list[Effect]:
    """Return the modules to leave as they are: those of the largest effects, while they fit into the budget.

    Args:
        found: costs or gains of the single modules.
        budget: most of their multiply-adds that may be left, as a share.
        least: divergence that an effect has to exceed.
    """
    chosen, room = list[Effect](), budget
    for effect in sorted(found, key=lambda effect: -effect.divergence):
        if effect.divergence > least and effect.share <= room + 1e-9:
            chosen.append(effect)
            room -= effect.share
    return chosen


def chosen(
    trial: OneByOne, context: "Context", measure: Measure, setting: str, state: str, budget: float
) -> tuple[list[str], str]:
    """Choose the modules to leave as they are by training examples, if together they help on others.

    Nothing is left for less than `LEAST_ALONE` and `LEAST_TOGETHER`, nor for what may be `ROUNDING`.

    Args:
        trial: model and technique.
        context: gives the examples.
        measure: what modules are chosen by: `gains` or `costs`.
        setting: name of the setting that asks for it.
        state: "float" or "dense".
        budget: most of the multiply-adds that may be left, as a share.

    Returns:
        Names of the modules, and a sentence on them.
    """
    feeds, task = list(context.feeds(CHECKED * EXAMPLES)), context.task
    checked_on = [feed for number, feed in enumerate(feeds) if number % CHECKED] or feeds
    reference = _altered(trial, (), checked_on, task)
    before = _distance(_altered(trial, trial.names, checked_on, task), reference, task)
    rounding, unit = _rounding(reference, task), distance_name(task)
    said = f"{setting}='auto', at most {100 * budget:g}% of the multiply-adds"
    nothing = f"{said}: nothing is left {state}, as"
    if before <= rounding:
        return [], (
            f"{nothing} all modules together move the answers by no more than FP32 may round them: {unit} {before:.3g}, "
            f"at most {rounding:.3g}"
        )
    least = max(LEAST_ALONE * before, rounding)
    left = {effect.part for effect in choose(measure(trial, feeds[::CHECKED], task), budget, least)}
    names, rest = ([name for name in trial.names if (name in left) is own] for own in (True, False))
    if not names:
        return [], f"{nothing} no module that fits is worth more than {unit} {least:.3g}, where all move it {before:.3g}"
    after = _distance(_altered(trial, rest, checked_on, task), reference, task)
    told = f"{unit} {before:.3g} → {after:.3g} on other training examples"
    if before - after <= max(LEAST_TOGETHER * before, rounding):
        return [], f"{nothing} it is not worth it: {', '.join(names)} together {told}"
    linears = encoder_linears(trial.model)
    share = kept.share({name: linears[name] for name in trial.names}, names)
    return names, f"{said}: left {state}: {', '.join(names)}; {share:.1%} of the multiply-adds, {told}"


def _altered(trial: OneByOne, names: Collection[str], feeds: Sequence[Feed], task: TaskKind) -> Answers:
    """Answers of the model with some modules changed."""
    with trial.alter(names):
        return _answers(trial.model, feeds, task)


def _rounding(reference: Answers, task: TaskKind) -> float:
    """Return the divergence that may be nothing but rounding."""
    if task.choice is not None:
        return ROUNDING
    return ROUNDING * float(torch.cat([rows.double().square().flatten() for rows in reference]).mean())


@torch.inference_mode()
def _answers(model: PreTrainedModel, feeds: Sequence[Feed], task: TaskKind) -> Answers:
    model.eval()
    found = []
    for feed in feeds:
        inputs = {name: torch.from_numpy(array).to(model.device) for name, array in feed.items()}
        logits, mask = task.logits(model(**inputs)).float(), inputs.get("attention_mask")
        rows: Any = task.distributions(logits, mask)
        found.append(task.unpadded(logits, mask) if rows is None else rows.double().log_softmax(-1))
    return found


def _distance(moved: Answers, reference: Answers, task: TaskKind) -> float:
    """Return the mean divergence of a decision, or the mean squared distance of a value."""
    pairs = list(zip(reference, moved, strict=True))
    if task.choice is None:
        apart = [(before.double() - after.double()).square().flatten() for before, after in pairs]
    else:
        apart = [(before.exp() * (before - after)).sum(-1).clamp_min(0) for before, after in pairs]
    return float(torch.cat(apart).mean())
