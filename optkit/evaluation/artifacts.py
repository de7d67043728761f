"""What validation leaves in a recipe's folder `served/`, under names that reports read too, without what wrote it."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from optkit.core.errors import InputError

SCORES, EVIDENCE, SAMPLE, EXAMPLES = "scores.npz", "validation.json", "sample.npz", "examples.json"
TEXT, TEXT_SAMPLE = "text", "text-sample.json"
"""The folder with tokenizer and settings for serving text; some texts and the served answers to them."""
KEPT = "kept.npz"
"""What the task compares with the baseline's besides scores, for tasks that have such (see `Task.kept`)."""
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


def read_kept(folder: Path, precision: str) -> dict[str, np.ndarray]:
    """What the task kept of one engine in `served/`, by name; empty where it keeps nothing."""
    if not (folder / KEPT).is_file():
        return {}
    begin = f"{precision}/"
    return {name.removeprefix(begin): own for name, own in read_scores(folder / KEPT).items() if name.startswith(begin)}


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
