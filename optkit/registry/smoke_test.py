"""Probes: requests whose right answers are known, asked before a version goes live and whenever it goes live again.

The smallest, a usual and the largest shape, answered by the engine itself; and a sample of the dev split, answered by the
server when the recipe was validated.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from optkit.core.errors import GateError, InputError
from optkit.engines import registry as engines
from optkit.engines.candidate import Candidate, judge
from optkit.serving.client import Client
from optkit.serving.config import ModelConfig
from optkit.tasks.deciding import Decisions

SAMPLE = "sample"
TIMEOUT_S = 300.0
"""The largest shape may take a while on a slow machine."""
_USUAL = (8, 128)
_TOLERANCE = 0.05
"""Largest mean difference of logits over their mean absolute deviation: batches of another size round differently."""


class Probe(NamedTuple):
    """A request and the answer that is right."""

    feed: Mapping[str, np.ndarray]
    """Inputs by name, int64 [batch, sequence]."""
    logits: np.ndarray
    """Expected logits, float32 [batch, …]."""


Probes = Mapping[str, Probe]
"""Probes by name: `min`, `opt`, `max`, and `sample` if there is one."""


def make(engine: Path, config: ModelConfig, sample: Probe | None) -> dict[str, Probe]:
    """Probes of an engine: random tokens at three shapes, with what the engine answers in this process; and the sample.

    Args:
        engine: its folder.
        config: says which inputs and shapes it takes.
        sample: examples of the dev split with the answers that were scored.

    Raises:
        GateError: the engine cannot run a shape that its configuration promises.
    """
    loaded, found = engines.load(engine, config.threads), {}
    for name, shape in shapes(config).items():
        feed = _feed(config, *shape)
        try:
            found[name] = Probe(feed, loaded.infer(feed))
        except Exception as error:  # each runtime has its own
            raise GateError(f"engine {engine}: cannot answer the probe {name!r} {list(shape)}: {error}") from error
    return found if sample is None else {**found, SAMPLE: sample}


def shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Smallest, usual and largest [batch, sequence] of a model."""
    largest = config.max_batch_size, config.max_sequence
    usual = min(_USUAL[0], largest[0]), min(_USUAL[1], largest[1])
    return {"min": (1, 1), "opt": usual, "max": largest}


def check(client: Client, probes: Probes, what: str, decisions: Decisions | None = None) -> dict[str, float]:
    """Ask a served model all probes; returns the relative difference of each.

    Args:
        client: of the model.
        probes: to ask.
        what: the model in an error's words.
        decisions: of the task, for an error to say how many flip; see `Task.decisions`.

    Raises:
        GateError: an answer is wrong or a request is refused.
        MachineError: the server is gone, or does not answer in time.
    """
    found = {}
    for name, probe in probes.items():
        shape = list(probe.feed["input_ids"].shape)
        try:
            answer = client.infer(probe.feed)
        except InputError as error:
            raise GateError(f"{what}: refused the probe {name!r} {shape}: {error}") from error
        seen = _compared(answer, probe, client.per_token, decisions)
        if seen.refusal:
            raise GateError(f"{what}: probe {name!r} {shape}: {seen.refusal}")
        found[name] = float(seen.relative_difference or 0.0)
    return found


def write(path: Path, probes: Probes) -> None:
    """Keep probes as `<probe>/<input>` and `<probe>/logits`."""
    arrays = {f"{name}/{key}": array for name, probe in probes.items() for key, array in probe.feed.items()}
    np.savez_compressed(path, **arrays, **{f"{name}/logits": probe.logits for name, probe in probes.items()})


def read(path: Path) -> dict[str, Probe]:
    """What `write` kept.

    Raises:
        InputError: it is something else.
    """
    try:
        with np.load(path) as stored:
            arrays = dict(stored)
        names = dict.fromkeys(key.partition("/")[0] for key in arrays)
        return {name: _probe(arrays, name) for name in names}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"{path}: not probes written by optkit ({error}); make them again: optkit run") from error


def _probe(arrays: Mapping[str, np.ndarray], name: str) -> Probe:
    own = {key.removeprefix(f"{name}/"): array for key, array in arrays.items() if key.startswith(f"{name}/")}
    return Probe({key: array for key, array in own.items() if key != "logits"}, own["logits"])


def _feed(config: ModelConfig, batch: int, sequence: int) -> dict[str, np.ndarray]:
    """Random tokens; in all rows but the first the last quarter is padding."""
    random = np.random.default_rng(0)
    mask = np.ones((batch, sequence), np.int64)
    mask[1:, sequence - sequence // 4 :] = 0
    ids = random.integers(0, config.vocab_size or 1000, (batch, sequence))
    values = {"input_ids": np.where(mask, ids, config.pad_id), "attention_mask": mask}
    return {name: values.get(name, np.zeros_like(mask)) for name in config.inputs}


def _compared(answer: np.ndarray, probe: Probe, per_token: bool, decisions: Decisions | None) -> Candidate:
    mask = probe.feed.get("attention_mask", np.ones_like(probe.feed["input_ids"]))
    seen = Candidate("triton", "", "")
    judge(seen, [answer], [probe.logits], [mask], _TOLERANCE, per_token, decisions)
    return seen
