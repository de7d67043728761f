"""Validation of a server that runs already: the dev split scored through it, and judged by the same gate."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optkit.compression import checkpoint
from optkit.core.errors import InputError
from optkit.core.json_door import read_json
from optkit.core.step_cache import verify
from optkit.engines import registry as engines
from optkit.engines.record import read_record
from optkit.evaluation import changes, doubts, parity
from optkit.evaluation.artifacts import (
    ANSWERS,
    EVIDENCE,
    SAMPLE,
    SCORES,
    TEXT,
    read_groups,
    read_of_engine,
    read_sample,
    read_scores,
)
from optkit.evaluation.bootstrap import paired_bootstrap
from optkit.evaluation.difference import signal
from optkit.evaluation.gate import judge
from optkit.evaluation.invariance import PROBES, Probes, judged
from optkit.evaluation.results import Row
from optkit.graph import reference
from optkit.models import loading
from optkit.models.loading import LoadedModel
from optkit.pipeline import projects, row_choice, rows
from optkit.recipe.stage import BASELINE
from optkit.serving.client import Client
from optkit.serving.config import OUTPUT
from optkit.serving.connection import TIMEOUT_S, address
from optkit.tasks.base import Task
from optkit.tasks.collate import BATCH_SIZE, Collator, run
from optkit.tasks.outcomes import value
from optkit.tasks.served import TextSettings

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """A model on a server."""

    url: str
    """`host:port` of its HTTP protocol."""
    model: str | None = None
    """Name of the model; None for `<project>_<recipe>`, as published models are named."""
    timeout_s: float = TIMEOUT_S
    """Seconds for each request."""


def validate(
    recipe: str,
    task: Task,
    root: Path,
    target: Target,
    seed: int = 0,
    precision: str | None = None,
    project: str | None = None,
) -> Row:
    """Score a recipe's engine through a server that runs already.

    The same engine in optkit's own backend has to answer as it does in this process. A model of another backend is
    another engine of the same graph, and has to answer as the graph does, within the tolerance of an engine.

    Args:
        recipe: its name.
        task: it was run on.
        root: the folder `checkpoints/`.
        target: where to ask.
        seed: whose engine.
        precision: of the engine; needed where the recipe has several.
        project: name of the project; by default the only one of the task.

    Returns:
        The recipe's row with what this server answered, and the gate's verdict of it. It has no speed.

    Raises:
        InputError: the recipe has no current result, or other data, or the server has no such model or one of other tensors.
        MachineError: the server is not there, does not answer in time, fails, or answers something else.
        GateError: an answer is not a finite number.
    """
    home = projects.find(root, task.name, project)
    row = row_choice.one_of_recipe(rows.read(root, task.name, home.name), recipe, task.name, seed, precision)
    folder = home.recipe(recipe, seed)
    if task.metric != row.metric:
        task.choose_metric(row.metric)
    with closing(Client(address(target.url), target.model or home.model(recipe), target.timeout_s)) as client:
        config = _require(client, folder / "engines" / row.precision, task.shape_of_logits(folder) or task.logits_shape)
        for step in (folder / "engines", folder / "served"):
            verify(step)
        loaded = checkpoint.load(folder, task)
        task = task.deciding(loaded.thresholds)
        features = task.encode("dev", loaded.tokenizer)
        collator = Collator.of(task, loaded.tokenizer)
        _require_same_options(folder, task, loaded)
        _require_same_data(folder, task, features, collator)
        log.info("%s: scoring %d features through %s on %s", recipe, len(features), client.model, client.url)
        size = min(BATCH_SIZE, config["max_batch_size"] or BATCH_SIZE)
        served = run(client.infer, features, size, collator)
        probes = Probes(features, collator, _longest(loading.max_length(loaded, task), row, config, folder))
        answers = {**probes.ask(client), "together": probes.ask_together(client)}
        version = client.server()
    rung, reference_rung, logits = _reference(row, config, folder, features, collator, size)
    compared = parity.rungs(task, features, {reference_rung: logits, rung: served})
    found = _row(row, task, features, compared, home.recipe(BASELINE, seed))
    found.invariance = judged(task, answers, signal(served))
    found.served_by = f"{version} on {client.url}, model {client.model}, {_backend(config)}"
    found.verdict, found.reasons = judge(found)
    return found


def _require(client: Client, engine: Path, shape: tuple[int, ...]) -> dict[str, Any]:
    """The model's configuration on the server, if it takes and answers what the recipe's engine does."""
    if not client.ready():
        raise InputError(
            f"model {client.model!r} is not on the Triton server {client.url}, which has: {client.others()}. "
            "Name one with --model-name"
        )
    found = client.metadata()
    inputs = {one["name"]: (one["datatype"], len(one["shape"])) for one in found["inputs"]}
    expected = dict.fromkeys(read_record(engine)["inputs"], ("INT64", 2))
    outputs = {one["name"]: (one["datatype"], [int(size) for size in one["shape"][1:]]) for one in found["outputs"]}
    logits = ("FP32", list(shape))
    if inputs != expected or outputs.get(OUTPUT) != logits:
        raise InputError(
            f"model {client.model!r} on {client.url}: takes {inputs} and answers {outputs}, expected {expected} and "
            f"{OUTPUT!r} {logits}. Another model? Name the right one with --model-name"
        )
    config = client.config()
    if 0 < config["max_batch_size"] < PROBES:
        raise InputError(
            f"model {client.model!r} on {client.url}: takes batches of {config['max_batch_size']}, and validation asks for "
            f"{PROBES}. Raise max_batch_size in its config.pbtxt"
        )
    return config


def _require_same_data(folder: Path, task: Task, features: Dataset, collator: Collator) -> None:
    """The dev split is the one that the recipe was scored on, its right answers too, and would be asked as it was then."""
    scored = read_json(folder / "served" / EVIDENCE).get("dev")
    then, _ = read_sample(folder / "served" / SAMPLE)
    rows_kept = len(next(iter(then.values())))
    now = collator.feed(features.select_columns(list(collator.names))[:rows_kept])
    same = then.keys() == now.keys() and all(np.array_equal(then[name], now[name]) for name in then)
    if not same or scored not in (None, task.fingerprint(("dev",))):  # an older optkit wrote none
        raise InputError(f"{folder}: scored on another dev split than this one. Name the same task and --data again")


def _require_same_options(folder: Path, task: Task, loaded: LoadedModel) -> None:
    """The task's own choices are those that the recipe was scored with, where predictions depend on them."""
    if not (folder / "served" / TEXT).is_dir():
        return
    then, now = TextSettings.read(folder / "served" / TEXT).more, task.text_settings(loaded.tokenizer).more
    if other := [name for name in task.options if then.get(name) != now.get(name)]:
        found, expected = (", ".join(f"{name}={settings.get(name)}" for name in other) for settings in (now, then))
        raise InputError(f"{folder}: scored with {expected}, found {found}. Give the same: --task-option {expected}")


def _longest(positions: int, row: Row, config: Mapping[str, Any], folder: Path) -> int:
    """Tokens of the longest input: of the model, of the server's configuration, and of the engine."""
    limits = [positions]
    if stated := config.get("parameters", {}).get("max_sequence"):
        limits.append(int(stated["string_value"]))
    if own := engines.runtime(row.engine).longest_input(read_record(folder / "engines" / row.precision)):
        limits.append(own)
    return min(limits)


def _backend(config: Mapping[str, Any]) -> str:
    """Backend of the served model, such as "python", "onnxruntime" or "tensorrt_plan"."""
    return str(config.get("backend") or config.get("platform"))


def _reference(
    row: Row, config: Mapping[str, Any], folder: Path, features: Dataset, collator: Collator, size: int
) -> tuple[str, str, parity.Logits]:
    """The rung that the server stands on, the one it is compared with, and that one's logits."""
    if _backend(config) == "python" and engines.runtime(row.engine).runs_here():
        engine = engines.load(folder / "engines" / row.precision)
        return "server", "engine", run(engine.infer, features, size, collator)
    graph = reference.load(folder / "graph" / "model.onnx")
    return "engine", "graph", run(partial(reference.infer, graph), features, size, collator)


def _row(row: Row, task: Task, features: Dataset, compared: Sequence[parity.Rung], baseline: Path) -> Row:
    """The recipe's row with the served rung in the place of what was measured there before, and without speed."""
    served = compared[-1]
    scores, against = task.outcomes(served.predictions), read_scores(baseline / "served" / SCORES)[rows.FP32]
    if len(scores) != len(against):
        raise InputError(f"{baseline}: {len(against)} examples were scored, and this dev split has {len(scores)}")
    climbed = parity.climb(task, compared)
    before = {name: values for name, values in row.ladder.items() if name not in ("server", served.name)}
    groups, answers = read_groups(baseline / "served"), changes.answers(task, features, served.logits, served.predictions)
    theirs = read_of_engine(baseline / "served" / ANSWERS, rows.FP32)
    own = {doubts.KEY: doubts.of_predictions(task, served.predictions)}
    return replace(
        row,
        value=served.scores[task.metric],
        delta=served.scores[task.metric] - value(against, task.metric),
        delta_ci95=list(paired_bootstrap(scores, against, task.metric, groups.get("outcomes"))),
        scores=served.scores,
        degenerate=doubts.of_engines(own, {doubts.KEY: row.degenerate.get(doubts.BASELINE)}),
        ladder=before | {served.name: climbed[served.name]},
        rungs={**row.rungs, "server": served.scores[task.metric]},
        latency_ms={}, throughput={}, speedup={}, speedup_vs_16bit=None, speedup_ci95={}, p99_ms_ci95={},
        min_speedup=None, max_p99_ms=None, **changes.summary([answers], [theirs], groups.get("examples")),
    )  # fmt: skip
