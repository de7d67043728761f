"""Validation of one recipe's engines: every rung scored and compared, the server asked in every way, its speed measured."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from optkit.models import Loaded, longest_input
from optkit.store import write_json
from optkit.tasks.base import Task
from optkit.tasks.batches import Collator
from optkit.validation import invariance, ladder
from optkit.validation.difference import signal
from optkit.validation.evidence import BESIDE, EVIDENCE, EXAMPLES, SCORES, engine_folders
from optkit.validation.served import Served, through_server


def validate(
    task: Task,
    loaded: Loaded,
    features: Dataset,
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
        folder: gets `scores.npz` ({precision: example scores}), `validation.json`, and `examples.json` with those that
            change most on the way.
        logs: folder for the server's log.
        seconds: how long each served model is measured at each batch size.

    Raises:
        GateError: a rung answers with a number that is not finite.
        MachineError: the server cannot be started, dies, stalls, or answers with something else.
    """
    collator = Collator(loaded.tokenizer, task.max_length)
    candidates = engine_folders(own)
    beside = {} if own == baseline else {f"{BESIDE}{name}": at for name, at in engine_folders(baseline).items()}
    probes = invariance.Probes(features, collator, longest(task, loaded))
    served = through_server(candidates | beside, list(candidates), features, loaded.tokenizer, task, probes, logs, seconds)
    shared = ladder.before_engines(loaded, own.parent / "graph" / "model.onnx", features, collator)
    evidence, examples, example_scores = {}, {}, {}
    for precision, engine in candidates.items():
        at_engine = ladder.at_engine(engine, features, collator)
        rungs = ladder.rungs(task, features, {**shared, "engine": at_engine, "server": served.logits[precision]})
        example_scores[precision] = task.example_scores(rungs[-1].predictions)
        evidence[precision] = _evidence(task, rungs, served, precision)
        examples[precision] = ladder.worst(task, features, rungs)
    np.savez(folder / SCORES, **example_scores)
    write_json(folder / EXAMPLES, examples)
    configs = {precision: asdict(served.configs[precision]) for precision in candidates}
    content = {
        "served_by": served.version,
        "precisions": evidence,
        "performance": served.performance,
        "configs": configs,
    }
    write_json(folder / EVIDENCE, content)


def longest(task: Task, loaded: Loaded) -> int:
    """The longest input in tokens that task, tokenizer and model can take."""
    return min(task.max_length, loaded.tokenizer.model_max_length, longest_input(loaded.model) or task.max_length)


def _evidence(task: Task, rungs: list[ladder.Rung], served: Served, precision: str) -> dict[str, Any]:
    """What is kept of one engine."""
    scale = signal(served.logits[precision])
    return {
        "scores": rungs[-1].scores,
        "ladder": ladder.climb(task, rungs),
        "invariance": invariance.judged(served.probes[precision], scale),
        "sharing": served.batches[precision],
    }
