"""Validation of one recipe's engines: every rung scored, the server asked, the speed measured beside the baseline's."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from datasets import Dataset

from optkit.models import Loaded, longest_input
from optkit.store import write_json
from optkit.tasks.base import Task
from optkit.tasks.batches import Collator
from optkit.validation.evidence import BESIDE, EVIDENCE, SAMPLE, SCORES, engine_folders
from optkit.validation.rungs import climb, scores
from optkit.validation.served import through_server

SAMPLE_ROWS = 16


def validate(task: Task, loaded: Loaded, own: Path, baseline: Path, folder: Path, logs: Path, seconds: float) -> None:
    """Score the engines in `own/<precision>/` and write what was found into `folder`.

    Args:
        task: whose dev split is scored.
        loaded: the model in PyTorch, for the first rung.
        own: folder of the candidate's engines, one per precision; its graph lies in `../graph/`.
        baseline: folder of the FP32 baseline's engines, to measure beside; may be the same.
        folder: gets `scores.npz` ({precision: example scores}), `sample.npz` and `validation.json`.
        logs: folder for the server's log.
        seconds: how long each served model is measured at each batch size.
    """
    features, collator = task.encode("dev", loaded.tokenizer), Collator(loaded.tokenizer, task.max_length)
    candidates = engine_folders(own)
    beside = {} if own == baseline else {f"{BESIDE}{name}": at for name, at in engine_folders(baseline).items()}
    longest = min(task.max_length, longest_input(loaded.model) or task.max_length)
    engines = candidates | beside
    served = through_server(engines, list(candidates), features, loaded.tokenizer, task, longest, logs, seconds)
    evidence, example_scores = {}, {}
    for precision, engine in candidates.items():
        rungs = climb(loaded, own.parent / "graph" / "model.onnx", engine, features, collator)
        rungs["server"] = served.logits[precision]
        predictions = task.predict(features, rungs["server"])
        example_scores[precision] = task.example_scores(predictions)
        evidence[precision] = {
            "scores": task.score(predictions),
            "rungs": {rung: scores(task, features, logits)[task.metric] for rung, logits in rungs.items()},
        }
    np.savez(folder / SCORES, **example_scores)
    _save_sample(folder, features, collator, served.logits)
    configs = {precision: asdict(served.configs[precision]) for precision in candidates}
    content = {
        "served_by": served.version,
        "precisions": evidence,
        "performance": served.performance,
        "configs": configs,
    }
    write_json(folder / EVIDENCE, content)


def _save_sample(folder: Path, features: Dataset, collator: Collator, logits: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Keep a few features as one request, and what each engine answered: whoever publishes one asks that again.

    `feed/<input>` int64 [rows, sequence], `logits/<precision>` float32 [rows, classes] or [rows, sequence, 2], with
    zeros for padding.
    """
    rows = min(SAMPLE_ROWS, len(features))
    feed = collator.feed(features.select_columns(list(collator.names))[:rows])
    width = next(iter(feed.values())).shape[1]
    answers = {name: np.stack([_wide(row, width) for row in found[:rows]]) for name, found in logits.items()}
    arrays = {f"feed/{name}": array for name, array in feed.items()}
    np.savez(folder / SAMPLE, **arrays, **{f"logits/{name}": array for name, array in answers.items()})


def _wide(row: np.ndarray, width: int) -> np.ndarray:
    """Logits of one feature, [classes], or [length, 2] widened to [width, 2]."""
    return row if row.ndim == 1 else np.pad(row, ((0, width - len(row)), (0, 0)))
