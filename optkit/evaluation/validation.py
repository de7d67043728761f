"""Validation of one recipe's engines: every rung scored and compared, the server asked in every way, its speed measured."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optkit.core import hardware
from optkit.core.atomic import write_json
from optkit.evaluation import changes, doubts, invariance, parity, text_sample
from optkit.evaluation.artifacts import (
    ANSWERS,
    BESIDE,
    EVIDENCE,
    EXAMPLES,
    GROUPS,
    KEPT,
    SAMPLE,
    SCORES,
    engine_folders,
    write_of_engines,
)
from optkit.evaluation.difference import signal
from optkit.evaluation.through_server import Served, through_server
from optkit.models import class_order
from optkit.models.loading import LoadedModel, max_length
from optkit.tasks.base import Task
from optkit.tasks.collate import Collator

if TYPE_CHECKING:
    from datasets import Dataset

SAMPLE_ROWS = 16


def validate(
    task: Task,
    loaded: LoadedModel,
    features: "Dataset",
    own: Path,
    baseline: Path,
    folder: Path,
    logs: Path,
    seconds: float,
) -> None:
    """Score the engines in `own/<precision>/` and write what was found into `folder`.

    Args:
        task: whose dev split is scored.
        loaded: the model in PyTorch, for the first rungs.
        features: of the dev split.
        own: folder of the candidate's engines, one per precision; its graph lies in `../graph/`.
        baseline: folder of the FP32 baseline's engines, to measure beside; may be the same.
        folder: gets `scores.npz` ({precision: outcomes of the examples}), `sample.npz`, `validation.json`, `examples.json`
            with those that change most on the way, what is compared with the baseline's (`answers.npz`, and `kept.npz` of
            the task's own), the groups of the dev split, and what serving text needs (see `text`).
        logs: folder for the server's log.
        seconds: how long each served model is measured at each batch size.

    Raises:
        GateError: a rung answers with a number that is not finite.
        MachineError: the server cannot be started, dies, stalls, or answers with something else.
    """
    collator = Collator.of(task, loaded.tokenizer)
    candidates = engine_folders(own)
    beside = {} if own == baseline else {f"{BESIDE}{name}": at for name, at in engine_folders(baseline).items()}
    length = max_length(loaded, task)
    probes = invariance.Probes(features, collator, length)
    engines = candidates | beside
    shape = task.shape_of_logits(own.parent)
    shapes = dict.fromkeys(candidates, shape) | dict.fromkeys(beside, task.shape_of_logits(baseline.parent))
    served = through_server(engines, shapes, list(candidates), features, loaded, task, length, probes, logs, seconds)
    shared = parity.before_engines(task, loaded, own.parent / "graph" / "model.onnx", features, collator)
    redrawn = parity.redrawn(task, loaded, features, collator, shared)
    evidence, examples, outcomes, predictions, answered = {}, {}, {}, {}, {}
    for precision, engine in candidates.items():
        at_engine = parity.at_engine(engine, features, collator)
        rungs = parity.rungs(task, features, {**shared, "engine": at_engine, "server": served.logits[precision]})
        predictions[precision] = rungs[-1].predictions
        outcomes[precision] = task.outcomes(predictions[precision])
        answered[precision] = changes.answers(task, features, rungs[-1].logits, predictions[precision])
        evidence[precision] = _evidence(task, rungs, served, precision)
        evidence[precision]["ladder"]["pytorch"] |= redrawn
        examples[precision] = parity.worst(task, features, rungs)
    np.savez(folder / SCORES, **outcomes)
    write_of_engines(folder / ANSWERS, answered)
    write_of_engines(folder / KEPT, {precision: task.kept(found) for precision, found in predictions.items()})
    if groups := {name: found for name, found in task.drawn()._asdict().items() if found is not None}:
        np.savez(folder / GROUPS, **groups)
    labels = class_order.names_of(loaded.model.config) if task.labels else ()
    text_sample.write(task, loaded.tokenizer, predictions, folder, labels, shape)
    _save_sample(folder, features, collator, served.logits)
    write_json(folder / EXAMPLES, examples)
    configs = {precision: asdict(served.configs[precision]) for precision in candidates}
    content = {
        "served_by": served.version,
        "dev": task.fingerprint(("dev",)),
        "machine": hardware.in_words(),
        "precisions": evidence,
        "performance": served.performance,
        "configs": configs,
    }
    write_json(folder / EVIDENCE, content)


def _save_sample(folder: Path, features: "Dataset", collator: Collator, logits: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Keep a few features as one request, and what each engine answered: whoever publishes one asks that again.

    `feed/<input>` int64 [rows, sequence], `logits/<precision>` float32 [rows, …], with zeros for padding.
    """
    rows = min(SAMPLE_ROWS, len(features))
    feed = collator.feed(features.select_columns(list(collator.names))[:rows])
    width = next(iter(feed.values())).shape[1]
    answers = {
        name: np.stack([_wide(row, width) if collator.per_token else row for row in found[:rows]])
        for name, found in logits.items()
    }
    arrays = {f"feed/{name}": array for name, array in feed.items()}
    np.savez(folder / SAMPLE, **arrays, **{f"logits/{name}": array for name, array in answers.items()})


def _wide(row: np.ndarray, width: int) -> np.ndarray:
    """Logits of one feature, [length, …] widened to [width, …]."""
    return np.pad(row, ((0, width - len(row)), *[(0, 0)] * (row.ndim - 1)))


def _evidence(task: Task, rungs: list[parity.Rung], served: Served, precision: str) -> dict[str, Any]:
    """What is kept of one engine."""
    scale = signal(served.logits[precision])
    return {
        "scores": rungs[-1].scores,
        doubts.KEY: doubts.of_predictions(task, rungs[-1].predictions),
        "ladder": parity.climb(task, rungs),
        "invariance": invariance.judged(task, served.probes[precision], scale),
        "sharing": served.batches[precision],
    }
