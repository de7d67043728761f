"""Selection of the engines to serve: build every candidate of a graph, measure side by side, keep the fastest correct one.

"Right" is decided against the graph run as it is written (`optkit.graph.reference`), on real inputs. Candidates take
turns in every round of the measurement, so that whatever else the machine does hits all of them alike.
"""

import dataclasses
import errno
import json
import logging
import os
import shutil
import statistics
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optkit.core import atomic
from optkit.core.cpu import cpu_features
from optkit.core.errors import GateError, InputError
from optkit.core.gpu import gpus
from optkit.engines import registry as engines
from optkit.engines.base import Runtime
from optkit.engines.build_options import BuildOptions
from optkit.engines.candidate import Candidate, Feed, judge
from optkit.engines.conversion_file import FILE
from optkit.engines.record import empty_folder
from optkit.tasks.base import Task

SHAPES = ((1, 32), (1, 128), (8, 128), (32, 128))
"""Shapes [batch, sequence] at which candidates are timed, where a recipe names none."""

DECIDED_ROUNDS, DECIDED_RATIO = 3, 1.5
"""Number of rounds after which a candidate has lost at a shape, if it takes this many times as long as the fastest."""

OPTIONAL = ("bf16", "fp16", "fp8")
"""Precisions that come beside "fp32" or "int8" where they can: a model without them is still served."""

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What `convert` left in a folder: `<precision>/` for each precision, and this as `conversion.json`."""

    folder: Path
    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> dict[str, Path]:
        """The engine's folder by precision."""
        return {c.precision: self.folder / c.precision for c in self.candidates if c.chosen}

    def to_dict(self) -> dict[str, Any]:
        """Return the record in JSON types."""
        return {"candidates": [dataclasses.asdict(candidate) for candidate in self.candidates]}

    def check_masks(self, expected: int) -> None:
        """Raise `GateError` naming each chosen engine that stores fewer than `expected` 2:4 weights."""
        found = {c.name: c.evidence.get("sparse_weights", 0) for c in self.candidates if c.chosen}
        lines = [f"  {name}: {count} 2:4 weights" for name, count in found.items() if count < expected]
        if lines:
            raise GateError(f"2:4 sparsity is broken in the engine, expected {expected} such weights:\n" + "\n".join(lines))


def convert(
    graph: Path,
    folder: Path,
    kinds: Sequence[str] = (),
    *,
    quantised: bool,
    covered_share: float = 1.0,
    feeds: Sequence[Feed],
    task: Task,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    max_length: int = 128,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    rounds: int = 15,
    tolerance: float = 0.1,
    threads: int | None = None,
) -> Conversion:
    """Build and compare every engine of a graph, and keep one per precision.

    Args:
        graph: `model.onnx`.
        folder: existing and empty; receives `<precision>/` for each precision that has an engine, and `conversion.json`.
            Left empty where this raises.
        kinds: engine kinds to try; empty for all that are installed.
        quantised: whether the graph is; decides between "int8" with "fp8" and "fp32" with 16 bits.
        covered_share: share of the encoder's multiply-adds that a quantised graph quantises, by its audit.
        feeds: real inputs, `{name: int64 [batch, sequence]}`, on which logits are compared.
        task: whose logits they are.
        options: what builds are told, by kind and key; see each kind's `options`.
        max_length: longest input in tokens; longer shapes are clipped to it.
        shapes: [batch, sequence] to time.
        rounds: timed runs of each candidate at each shape, until it has won or lost by far.
        tolerance: largest mean difference of the logits from the reference, over their mean absolute deviation.
        threads: None for every core this process may use.

    Raises:
        InputError: no graph, no feeds, an unknown kind, a wrong option, a folder that is not empty.
        MachineError: a kind that was asked for is not installed, or none is.
        GateError: no candidate of "fp32" or "int8" agrees with the reference. A precision of `OPTIONAL` is left out then.
    """
    folder = empty_folder(folder)
    if not Path(graph).is_file() or not feeds:
        raise InputError(
            f"{graph} is {'a' if Path(graph).is_file() else 'no'} file and there are {len(feeds)} feeds; expected an "
            "exported graph and at least one batch of real inputs to compare engines on."
        )
    candidates = plan(kinds, quantised)
    for one in candidates:
        one.covered_share = covered_share
    told = {one.kind: engines.runtime(one.kind).build_options((options or {}).get(one.kind, {})) for one in candidates}
    clipped = tuple(dict.fromkeys((batch, min(sequence, max_length)) for batch, sequence in shapes))
    try:
        loaded = _build_all(candidates, graph, folder, threads, told)
        _compare_all(loaded, candidates, graph, feeds, tolerance, task)
        _time_all(loaded, candidates, clipped, rounds)
        loaded.clear()
        _choose(candidates)
        conversion = Conversion(folder, tuple(candidates))
        _keep_chosen(conversion)
    except BaseException:
        atomic.empty(folder)
        raise
    return conversion


def plan(kinds: Sequence[str], quantised: bool) -> list[Candidate]:
    """Every candidate that the kinds and this machine allow, in a fixed order.

    Raises:
        InputError: an unknown kind, or kinds that can build nothing here.
        MachineError: a kind that was asked for is not installed, or none is.
    """
    found = []
    for kind in kinds or engines.installed():
        runtime = engines.runtime(kind)
        runtime.require()
        for precision in runtime.precisions(quantised):
            found += [Candidate(kind, precision, variant) for variant in runtime.variants(precision)]
    if not found:
        graph = f"a {'quantised' if quantised else 'float'} graph"
        able = [name for name, one in engines.RUNTIMES.working() if _builds(one, quantised)]
        raise InputError(
            f"Engines {', '.join(kinds or engines.installed())}: none is built from {graph} on this machine (CPU with "
            f"{', '.join(cpu_features()) or 'no known features'}; {', '.join(one.name for one in gpus()) or 'no GPU'}). "
            f"Choose among {', '.join(able) or 'none of those installed'}; optkit doctor says what this machine lacks for "
            "the others."
        )
    return found


def _builds(runtime: Runtime, quantised: bool) -> bool:
    return bool(runtime.version() and runtime.runs_here() and runtime.precisions(quantised))


def _build_all(
    candidates: Sequence[Candidate],
    graph: Path,
    folder: Path,
    threads: int | None,
    options: Mapping[str, BuildOptions],
) -> dict[str, engines.Engine]:
    """Build and load each candidate; one that fails is refused with its whole error."""
    loaded = {}
    for candidate in candidates:
        target = folder / candidate.name
        target.mkdir()
        try:
            runtime, told = engines.runtime(candidate.kind), options[candidate.kind]
            runtime.build(graph, candidate.precision, target, candidate.variant, told)
            engine = engines.load(target, threads)
            candidate.evidence = engine.evidence()
        except Exception as error:  # whatever a runtime raises is the finding, kept in full
            if refused := atomic.refusal_behind(error) or _full(target, graph):
                raise atomic.disk_error(target, refused) from error
            candidate.refusal = f"failed to build or load:\n{traceback.format_exc()}"
            log.warning("%s %s", candidate.name, candidate.refusal)
        else:
            loaded[candidate.name] = engine
    return loaded


def _full(folder: Path, graph: Path) -> OSError | None:
    """What a disk says that has not the room of a graph; a runtime that could not write says it in words of its own."""
    room = shutil.disk_usage(folder).free >= graph.stat().st_size
    return None if room else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _compare_all(
    loaded: dict[str, engines.Engine],
    candidates: Sequence[Candidate],
    graph: Path,
    feeds: Sequence[Feed],
    tolerance: float,
    task: Task,
) -> None:
    """Judge each candidate by the logits of the graph as written; the refused leave `loaded`."""
    from optkit.graph import reference

    handle = reference.load(graph)
    expected = [reference.infer(handle, feed) for feed in feeds]
    masks = [np.asarray(feed["attention_mask"]) for feed in feeds]
    for candidate in [one for one in candidates if one.name in loaded]:
        try:
            found = [loaded[candidate.name].infer(feed) for feed in feeds]
        except Exception:  # as above
            candidate.refusal = f"failed to run:\n{traceback.format_exc()}"
        else:
            judge(candidate, found, expected, masks, tolerance, task.per_token(), task.decider(task.thresholds))
        if candidate.refusal:
            log.warning("%s: %s", candidate.name, candidate.refusal)
            del loaded[candidate.name]


def _time_all(
    loaded: dict[str, engines.Engine],
    candidates: Sequence[Candidate],
    shapes: Sequence[tuple[int, int]],
    rounds: int,
) -> None:
    """Median latencies, the candidates taking turns in every round; what is decided is not timed further."""
    for batch, sequence in shapes:
        feed = timing_feed(batch, sequence)
        times: dict[str, list[float]] = {name: [] for name in loaded}
        running = set(loaded)
        for turn in range(rounds + 1):
            for name in [name for name in loaded if name in running]:
                start = time.perf_counter()
                loaded[name].infer(feed)
                if turn:  # the first warms up
                    times[name].append((time.perf_counter() - start) * 1e3)
            for candidate in [one for one in candidates if times.get(one.name)]:
                candidate.ms[f"{batch}x{sequence}"] = statistics.median(times[candidate.name])
            if turn >= DECIDED_ROUNDS:
                running &= undecided(candidates, f"{batch}x{sequence}")


def undecided(candidates: Sequence[Candidate], shape: str) -> set[str]:
    """Names of the candidates of which one may yet be the fastest of its precision at a shape, such as "8x128"."""
    timed = [candidate for candidate in candidates if shape in candidate.ms]
    found = set()
    for precision in {candidate.precision for candidate in timed}:
        rivals = {candidate.name: candidate.ms[shape] for candidate in timed if candidate.precision == precision}
        near = {name for name, ms in rivals.items() if ms <= DECIDED_RATIO * min(rivals.values())}
        found |= near if len(near) > 1 else set()
    return found


def timing_feed(batch: int, sequence: int) -> dict[str, NDArray[Any]]:
    """A batch without padding, int64 [batch, sequence]: the most work a shape can mean. Its ids fit any vocabulary."""
    ids = np.arange(batch * sequence, dtype=np.int64).reshape(batch, sequence) % 7 + 1
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def _choose(candidates: Sequence[Candidate]) -> None:
    """Mark the fastest candidate of each precision that agrees; raise where one that is needed has none."""
    for precision in dict.fromkeys(candidate.precision for candidate in candidates):
        rivals = [candidate for candidate in candidates if candidate.precision == precision]
        agreed = [candidate for candidate in rivals if candidate.agreed]
        if agreed:
            min(agreed, key=Candidate.speed_ms).chosen = True
            continue
        reasons = "\n".join(f"  {candidate.name}: {candidate.refusal}" for candidate in rivals)
        if precision in OPTIONAL:
            log.warning("%s is left out, no engine agrees with the graph run as written:\n%s", precision, reasons)
        else:
            raise GateError(
                f"No {precision} engine agrees with the graph run as written:\n{reasons}\n"
                "Audit the graph's scales and zero points; raise the tolerance only if these numbers are good enough."
            )


def _keep_chosen(conversion: Conversion) -> None:
    """Leave in the folder the chosen engines, each under its precision, and the record."""
    for candidate in conversion.candidates:
        source = conversion.folder / candidate.name
        if candidate.chosen:
            source.rename(conversion.folder / candidate.precision)
        else:
            shutil.rmtree(source)
    (conversion.folder / FILE).write_text(json.dumps(conversion.to_dict(), indent=2) + "\n", encoding="utf-8")
