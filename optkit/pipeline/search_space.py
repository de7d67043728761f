"""What a search chooses from, as data in a JSON file: which techniques, and values of their settings.

    {"techniques": [["quantize"], ["distill", "quantize"]],
     "settings": {"distill.layers": [0.5, 0.67], "quantize.learning_rate": {"low": 1e-6, "high": 1e-4, "log": true}},
     "start": [{"techniques": ["quantize"], "quantize.epochs": 0}]}

Every setting of every technique may stand there, of other packages' techniques too; what does not has its default.
"""

import difflib
import itertools
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeGuard, get_args

from optkit.compression.registry import TECHNIQUES
from optkit.core.errors import InputError
from optkit.core.json_door import read_json
from optkit.core.settings import report
from optkit.models import families
from optkit.recipe import unread
from optkit.recipe.recipe import Recipe
from optkit.recipe.stage import BASELINE, Stage
from optkit.recipe.teacher_names import is_folder, recipe_of

log = logging.getLogger(__name__)
DEFAULT = Path(__file__).with_name("templates") / "search_space.json"
TECHNIQUES_CHOICE = "techniques"
"""Name of the choice of techniques among a trial's parameters."""
_OF_MODEL = {"distill.layers": families.depth, "distill.hidden_size": families.width}
"""Settings of which a number such as 0.5 or 1.0 is a share of what the model has."""
_FIX = "see docs/search.md for what a search space holds"


class Draws(Protocol):
    """What draws values: a trial of Optuna."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, which are among them."""

    low: float
    high: float
    log: bool = False
    """Whether equal ratios are equally likely, in place of equal differences."""
    whole: bool = False
    """Whether whole numbers alone are drawn."""


@dataclass(frozen=True)
class _File:
    techniques: list[list[str]]
    settings: dict[str, list[Any] | dict[str, Any]] = field(default_factory=dict)
    start: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Space:
    """What a search chooses from."""

    techniques: tuple[tuple[str, ...], ...]
    settings: Mapping[str, tuple[Any, ...] | Range]
    """Values, or a range, by `<technique>.<setting>`."""
    start: tuple[Mapping[str, Any], ...] = ()
    """Parameters of the first trials; what they do not say is drawn."""

    def draw(self, trial: Draws, config: Any) -> tuple[Stage, ...]:
        """Draw the stages of a recipe.

        Args:
            trial: draws the values.
            config: configuration of the model that they are for.

        Raises:
            InputError: the drawn settings do not go together.
        """
        names = [_text(techniques) for techniques in self.techniques]
        chosen = json.loads(self._one_of(trial, TECHNIQUES_CHOICE, names))
        return Recipe(name="drawn", stages=[self._stage(trial, technique, config) for technique in chosen]).stages

    def _stage(self, trial: Draws, technique: str, config: Any) -> Stage:
        own = {
            name.partition(".")[2]: choices for name, choices in self.settings.items() if name.startswith(f"{technique}.")
        }
        given, kind = dict[str, Any](), TECHNIQUES.get(technique)
        for setting in sorted(own, key=partial(unread.depth, kind.read_where)):
            if setting in kind(**given).unread():
                continue  # it would make no other recipe
            name = f"{technique}.{setting}"
            value = _drawn(trial, name, own[setting])
            if name in _OF_MODEL and _is_share(value):
                value = max(1, round(value * _OF_MODEL[name](config)))
            given[setting] = value
        return kind(**given).checked()

    @staticmethod
    def _one_of(trial: Draws, name: str, choices: Sequence[str]) -> Any:
        return choices[0] if len(choices) == 1 else trial.suggest_categorical(name, choices)

    def first_trials(self) -> list[dict[str, Any]]:
        """Return the parameters of the first trials as `draw` asks for them."""
        return [
            {name: value if isinstance(self.settings.get(name), Range) else _text(value) for name, value in one.items()}
            for one in self.start
        ]

    @property
    def modules(self) -> set[str]:
        """Modules of the techniques that may be drawn."""
        return {TECHNIQUES.get(name).__module__ for names in self.techniques for name in names}

    def as_dict(self) -> dict[str, Any]:
        """Return the space in JSON's types."""
        settings = {name: vars(own) if isinstance(own, Range) else list(own) for name, own in self.settings.items()}
        return {"techniques": list(self.techniques), "settings": settings, "start": list(self.start)}


def read(path: Path = DEFAULT) -> Space:
    """Read a space from a JSON file.

    Raises:
        InputError: the file is no such space, or naming every technique, setting and value in it that there is not.
    """
    content = _File(**read_json(path, _File, _FIX))
    mistakes: list[str] = []
    if not content.techniques or not all(content.techniques):
        mistakes.append('techniques: found none, expected lists of techniques, as [["quantize"]]: the space is empty')
    known = TECHNIQUES.names()
    asked = dict.fromkeys(name for techniques in content.techniques for name in techniques)
    mistakes += [f"technique {name!r}: expected one of {', '.join(known)}" for name in asked if name not in known]
    mistakes += [
        f"techniques {', '.join(names)}: expected each once, in the order in which they are applied"
        for names in content.techniques
        if set(names) <= set(known) and (order := [TECHNIQUES.get(name).order for name in names]) != sorted(set(order))
    ]
    settings = {name: _choices(name, given, mistakes) for name, given in content.settings.items()}
    mistakes += [
        f"settings {name!r} and {steps!r}: expected one of them, as both are a budget"
        for name in settings
        if name.endswith("epochs") and (steps := f"{name.removesuffix('epochs')}steps") in settings
    ]
    for one in content.start:
        for name, value in one.items():
            possible = tuple(content.techniques) if name == TECHNIQUES_CHOICE else settings.get(name)
            if possible is None:
                mistakes.append(f"start: {name!r} is no setting of the space")
            elif not _is_among(value, possible):
                mistakes.append(f"start: {name} is {value!r}, which is none of the space's values")
    if mistakes:
        raise InputError(report(f"{path}: the space has", mistakes) + f"\n{_FIX}")
    for name, why in _never_read(settings, asked):
        log.warning("%s: no recipe of the space reads %s, which is left out: %s", path, name, why)
    return Space(tuple(map(tuple, content.techniques)), settings, tuple(content.start))


def _never_read(settings: Mapping[str, tuple[Any, ...] | Range], techniques: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the settings that nothing reads, whatever the others of the space are, and why."""
    for name in settings:
        technique, _, setting = name.partition(".")
        if technique not in techniques:
            yield name, f"no techniques of the space have {technique}"
            continue
        kind = TECHNIQUES.get(technique)
        others = kind.read_where[setting].others if setting in kind.read_where else ()
        ends = {other: _ends(settings[place]) for other in others if (place := f"{technique}.{other}") in settings}
        together = [dict(zip(ends, values, strict=True)) for values in itertools.product(*ends.values())]
        why = [kind(**given).unread().get(setting) for given in together]
        if why and why[0] is not None and None not in why:
            yield name, why[0]


def _ends(choices: tuple[Any, ...] | Range) -> tuple[Any, ...]:
    return (choices.low, choices.high) if isinstance(choices, Range) else choices


def _is_among(value: Any, possible: tuple[Any, ...] | Range) -> bool:
    if isinstance(possible, Range):
        return _is_number(value) and possible.low <= value <= possible.high
    return _text(value) in map(_text, possible) or (_is_number(value) and value in filter(_is_number, possible))


def _choices(name: str, given: Any, mistakes: list[str]) -> tuple[Any, ...] | Range:
    """Check what a setting may be; a range is checked at its ends."""
    technique, _, setting = name.partition(".")
    if technique not in TECHNIQUES.names():
        mistakes.append(f"setting {name!r}: expected <technique>.<setting>, as 'quantize.epochs'")
        return ()
    stage = TECHNIQUES.get(technique)
    if setting == "technique":
        mistakes.append(f"setting {name!r}: is what the technique is called, and no choice")
        return ()
    if setting not in stage.model_fields:
        close = difflib.get_close_matches(setting, stage.model_fields, 1)
        mistakes.append(
            f"setting {name!r}: {technique} has none of this name" + (f"; did you mean {close[0]!r}?" if close else "")
        )
        return ()
    found: tuple[Any, ...] | Range
    if isinstance(given, dict):
        found = _range(name, given, _annotated(stage, setting), mistakes)
    else:
        found = tuple(given)
        if not given:
            mistakes.append(f"setting {name!r}: found no values: the space is empty")
    for value in _ends(found):
        if name in _OF_MODEL and _is_share(value):
            continue
        mistakes += [mistake for mistake in stage(**{setting: value})._mistakes if f".{setting} " in mistake]
        if setting == "teacher":
            mistakes += _unknown_teachers(name, value)
    return found


def _unknown_teachers(name: str, given: Any) -> Iterator[str]:
    """Yield a mistake for each teacher that a search does not train: of recipes it has the baseline alone."""
    for one in [given] if isinstance(given, str) else given or ():
        if isinstance(one, str) and not is_folder(one) and recipe_of(one) != BASELINE:
            yield f"setting {name!r}: found the recipe {one!r}, expected {BASELINE}, one of its seeds, or a folder"


def _annotated(stage: type[Stage], setting: str) -> set[Any]:
    """The types that a setting takes."""
    annotation = stage.model_fields[setting].annotation
    return set(get_args(annotation)) or {annotation}


def _range(name: str, given: dict[str, Any], types: set[Any], mistakes: list[str]) -> Range:
    low, high, log = given.get("low"), given.get("high"), given.get("log", False)
    known = isinstance(log, bool) and not given.keys() - {"low", "high", "log"}
    if not types & {int, float}:
        mistakes.append(f"setting {name!r}: found {given!r}, expected a list of values, as it takes no range")
        return Range(1.0, 2.0)
    if known and _is_number(low) and _is_number(high) and low < high and (low > 0 or not log):
        whole = float not in types and not (_is_share(low) and _is_share(high))
        if not whole or (float(low).is_integer() and float(high).is_integer()):
            return Range(float(low), float(high), log, whole)
    mistakes.append(
        f'setting {name!r}: found {given!r}, expected {{"low": …, "high": …}} with low below high, both whole where the '
        'setting is, and perhaps "log": true for ends above 0'
    )
    return Range(1.0, 2.0)


def _is_share(value: Any) -> bool:
    """Whether a number of a model's layers or channels is a share of what it has: 0.5, and 1.0, but not 1."""
    return isinstance(value, float) and 0 < value <= 1


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _drawn(trial: Draws, name: str, choices: tuple[Any, ...] | Range) -> Any:
    if isinstance(choices, Range) and choices.whole:
        return trial.suggest_int(name, int(choices.low), int(choices.high), log=choices.log)
    if isinstance(choices, Range):
        return trial.suggest_float(name, choices.low, choices.high, log=choices.log)
    if len(choices) == 1:
        return choices[0]
    return json.loads(trial.suggest_categorical(name, [_text(value) for value in choices]))


def _text(value: Any) -> str:
    """A value as text, which is what can be chosen among."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)
