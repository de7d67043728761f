"""What validation leaves in a recipe's folder `served/`, under names that reports read too, without what wrote it."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from optkit.core.errors import InputError
from optkit.core.step_cache import verify

SCORES, EVIDENCE, SAMPLE, EXAMPLES = "scores.npz", "validation.json", "sample.npz", "examples.json"
TEXT, TEXT_SAMPLE = "text", "text-sample.json"
"""The folder with tokenizer and settings for serving text; some texts and the served answers to them."""
KEPT = "kept.npz"
"""What the task compares with the baseline's besides scores, for tasks that have such (see `Task.kept`)."""
ANSWERS = "answers.npz"
"""What each engine decided, and with what probabilities, to be compared with the baseline's (see `changes.answers`)."""
GROUPS = "groups.npz"
"""Groups that intervals draw, of the examples and of the outcomes, for data that has such (see `Task.drawn`)."""
STAGE_SCORES = "stages.npz"
"""File in the checkpoint with the outcomes of the examples in PyTorch by stage, from the baseline on."""
BESIDE = "baseline."
"""Prefix of the baseline's engines among the served models of another recipe."""
LOAD = "load"
"""Folder beside `served/` with the results of `optkit load`, and the name of the JSON file in it."""
TUNING = "tuning"
"""Folder beside `served/` with the results of `optkit tune`, one folder per precision."""
BESIDE_LOAD = "load_beside"
"""Folder beside `served/` with the results of `optkit load --beside`."""


def engine_folders(engines: Path) -> dict[str, Path]:
    """The engines of a recipe by precision."""
    return {path.parent.name: path.parent for path in sorted(engines.glob("*/engine.json"))}


def read_sample(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A few features as one request, {input: int64 [rows, sequence]}, and what each engine answered, {precision: logits}.

    Raises:
        InputError: it is no such file.
    """
    parts: dict[str, dict[str, np.ndarray]] = {"feed": {}, "logits": {}}
    for name, array in read_scores(path).items():
        kind, _, own = name.partition("/")
        parts.setdefault(kind, {})[own] = array
    return parts["feed"], parts["logits"]


def write_of_engines(path: Path, found: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Keep arrays of each engine, {precision: {name: array}}, where there are any."""
    if arrays := {f"{precision}/{name}": array for precision, own in found.items() for name, array in own.items()}:
        np.savez(path, **arrays)


def read_of_engine(path: Path, precision: str) -> dict[str, np.ndarray]:
    """What is kept of one engine in a file of `served/`, by name; empty where nothing is.

    Raises:
        InputError: the file changed after it was written.
    """
    if not path.is_file():
        return {}
    verify(path.parent, path.name)
    begin = f"{precision}/"
    return {name.removeprefix(begin): own for name, own in read_scores(path).items() if name.startswith(begin)}


def read_groups(*served: Path) -> dict[str, np.ndarray]:
    """The groups of a dev split, `examples` and `outcomes`; without those that it does not have.

    Args:
        served: folders with its scores, by seed: those that were written before there were groups have none.

    Raises:
        InputError: the file changed after it was written.
    """
    for folder in served:
        if (folder / GROUPS).is_file():
            verify(folder, GROUPS)
            return read_scores(folder / GROUPS)
    return {}


def read_scores(path: Path) -> dict[str, np.ndarray]:
    """Outcomes of examples by name, in the order in which they were written (see `optkit.tasks.outcomes`).

    Raises:
        InputError: it is no file with arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as saved:
            return dict(saved)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not arrays written by optkit ({error}); run the recipe again: optkit run") from error
