"""Shadowing: the same requests to the live model and to the one that is to follow it, before anybody depends on it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from optkit.core.errors import GateError, InputError
from optkit.core.json_door import parse_json, read_bytes
from optkit.engines.candidate import Candidate, judge
from optkit.serving.client import Client, Feed
from optkit.tasks.deciding import Decisions

MAX_DISAGREEMENT = 0.05
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shadow:
    """A live model, and what both are asked."""

    url: str
    """`host:port` of the server."""
    model: str
    requests: Sequence[Feed]
    max_disagreement: float = MAX_DISAGREEMENT
    """Largest share of predictions that may differ."""


def compare(candidate: Client, shadow: Shadow, decisions: Decisions) -> dict[str, Any]:
    """Send every request to both and count the predictions that differ.

    Args:
        candidate: client of the new version.
        shadow: the live model, and what both are asked.
        decisions: of the task; see `Task.decisions`.

    Returns:
        `url`, `requests`, `predictions`, `differ`, `share`, and `mean_difference` of the logits.

    Raises:
        GateError: more of them differ than is allowed, or a request is refused by the candidate.
        InputError: the live model refuses a request, or there is no such model.
        MachineError: a server is gone, or does not answer in time.
    """
    with Client(shadow.url, shadow.model) as live:
        theirs = live.infer_many(shadow.requests)
    try:
        ours = candidate.infer_many(shadow.requests)
    except InputError as error:
        raise GateError(f"shadow: the new version refuses a request that {shadow.model!r} answers: {error}") from error
    masks = [feed.get("attention_mask", np.ones_like(feed["input_ids"])) for feed in shadow.requests]
    seen = Candidate("shadow", "", "")
    judge(seen, ours, theirs, masks, np.inf, candidate.per_token, decisions)
    if seen.refusal:
        raise GateError(f"shadow: against {shadow.model!r} on {shadow.url}: {seen.refusal}")
    share, said = _disagreement(seen)
    log.info("shadow: %s the live model's", said)
    if share > shadow.max_disagreement:
        raise GateError(
            f"shadow: {said} those of {shadow.model!r} on {shadow.url}, {share:.1%}; at most {shadow.max_disagreement:.1%} "
            "were expected. Look at them, or allow more with --max-disagreement"
        )
    found = {"url": shadow.url, "requests": len(masks), "predictions": seen.predictions, "differ": seen.prediction_flips}
    return {**found, "share": round(share, 6), "mean_difference": seen.mean_difference}


def _disagreement(seen: Candidate) -> tuple[float, str]:
    """Return the share of predictions that differ, and it in words; for values how far they are apart over their spread."""
    if not seen.predictions:
        return seen.relative_difference or 0.0, "the values differ by a part of their spread from"
    flips = seen.prediction_flips or 0
    return flips / seen.predictions, f"{flips} of {seen.predictions} predictions differ from"


_BODY = (
    "expected a request's body, such as "
    '{"inputs": [{"name": "input_ids", "shape": [1, 2], "datatype": "INT64", "data": [101, 102]}, …]}'
)


class _Tensor(TypedDict):
    name: str
    shape: list[int]
    data: list[Any]


class _Body(TypedDict):
    inputs: list[_Tensor]


def read_requests(path: Path) -> list[Feed]:
    """Requests from a file: on each line the JSON body of one, as it is posted to `/v2/models/MODEL/infer`.

    Raises:
        InputError: there is no such file, or a line is something else.
    """
    lines = read_bytes(path, "give a file of requests: --requests FILE").splitlines()
    found = [_request(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise InputError(f"--requests {path}: found no requests, expected one JSON body per line")
    return found


def _request(line: bytes, where: str) -> Feed:
    try:
        inputs = parse_json(line, f"--requests {where}", _Body, _BODY)["inputs"]
        return {item["name"]: np.array(item["data"], np.int64).reshape(item["shape"]) for item in inputs}
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"--requests {where}: {type(error).__name__}: {error}; {_BODY}") from error
