"""Latency and throughput of served models, measured in turn so that a drifting machine moves all of them alike."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from optkit.core.progress import bar
from optkit.evaluation.results import PERCENTILES
from optkit.serving.client import Client
from optkit.tasks.base import Feed

BATCH_SIZES = (1, 8, 32)
_LEAST_ROUNDS, _MOST_ROUNDS = 24, 200
_PATIENCE = 3  # times the time asked for, after which a round for each request is enough
_RESAMPLES = 1000


def measure(
    clients: Mapping[str, Client], feeds: Mapping[int, Sequence[Feed]], seconds: float
) -> dict[str, dict[int, dict[str, Any]]]:
    """One client in a closed loop, the models taking turns request by request.

    Args:
        clients: one per served model, by name.
        feeds: requests by batch size.
        seconds: about how long each model is measured at each batch size. A slow one may take up to three times that for 24
            requests, and is asked each of the feeds once in any case.

    Returns:
        {model: {batch size: {p50, p95, p99 (ms), p50_ci95, p99_ci95 (ms), throughput (inferences/s), requests}}}
    """
    results: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in clients}
    for batch_size, batch_feeds in feeds.items():
        times = _times_ms(clients, batch_feeds, seconds, f"latency at batch {batch_size}")
        for name, values in times.items():
            results[name][batch_size] = _summary(values, batch_size)
    return results


def _times_ms(
    clients: Mapping[str, Client], batch_feeds: Sequence[Feed], seconds: float, title: str
) -> dict[str, list[float]]:
    for client in clients.values():  # warm-up: the first request of a shape compiles it
        for feed in batch_feeds:
            client.infer(feed)
    times: dict[str, list[float]] = {name: [] for name in clients}
    start, budget = time.perf_counter(), seconds * len(clients)
    with bar(f"{title}, %", 100) as advance:
        shown = 0
        for rounds in range(1, _MOST_ROUNDS + 1):
            for name, client in clients.items():
                times[name].append(_time_ms(client, batch_feeds[(rounds - 1) % len(batch_feeds)]))
            spent = time.perf_counter() - start
            least = _LEAST_ROUNDS if spent < _PATIENCE * budget else len(batch_feeds)
            is_over = rounds == _MOST_ROUNDS or (spent > budget and rounds >= least)
            share = min(1.0 if spent > budget else spent / budget, rounds / least)
            done = 100 if is_over else int(100 * max(rounds / _MOST_ROUNDS, share))
            advance(max(0, done - shown))
            shown = max(shown, done)
            if is_over:
                break
    return times


def _time_ms(client: Client, feed: Feed) -> float:
    start = time.perf_counter()
    client.infer(feed)
    return (time.perf_counter() - start) * 1e3


def _summary(times_ms: Sequence[float], batch_size: int) -> dict[str, Any]:
    percentiles = np.percentile(times_ms, PERCENTILES)
    summary: dict[str, Any] = {f"p{p}": round(float(v), 3) for p, v in zip(PERCENTILES, percentiles, strict=True)}
    summary |= {f"p{p}_ci95": _interval(times_ms, p) for p in (50, 99)}
    return {**summary, "throughput": round(batch_size * 1e3 / float(np.mean(times_ms)), 2), "requests": len(times_ms)}


def _interval(times_ms: Sequence[float], percentile: int) -> list[float]:
    """95 % interval of a percentile in ms, by the bootstrap: what it could have been with other requests of the run."""
    drawn = np.random.default_rng(0).choice(np.asarray(times_ms), (_RESAMPLES, len(times_ms)))
    low, high = np.percentile(np.percentile(drawn, percentile, axis=1), [2.5, 97.5])
    return [round(float(low), 3), round(float(high), 3)]
