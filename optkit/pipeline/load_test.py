"""`optkit load`: a recipe's engines under load, every measurement as a line of CSV as soon as it is made.

What was measured to the end lies beside the recipe's other results, as a finished step, where reports find it.
"""

import csv
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from optkit.benchmark import colocation, online
from optkit.benchmark.measurement import Measurement, by_engine, sentences, summary
from optkit.benchmark.scenarios import require
from optkit.core import atomic, cpu, step_cache
from optkit.core.code_version import code_version
from optkit.core.errors import InputError, MachineError
from optkit.core.json_door import read_json
from optkit.core.printable import cell
from optkit.evaluation.artifacts import BESIDE_LOAD, LOAD
from optkit.pipeline.load_summary import Kept
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.system_under_test import SystemUnderTest, run_number, system_under_test
from optkit.recipe.recipe import Recipe
from optkit.serving import install
from optkit.serving.repository import BACKENDS

log = logging.getLogger(__name__)
Write = Callable[[Measurement], None]


def run(
    recipe: Recipe,
    spec: RunSpec,
    seconds: float,
    p99_ms: float,
    out: Path | None,
    again: bool = False,
    others: Sequence[Recipe] = (),
) -> list[str]:
    """Measure the recipe's engines, after making what is not finished yet.

    Args:
        recipe: whose engines.
        spec: what the recipe is run on.
        seconds: of each measurement, at least.
        p99_ms: bound of the 99th percentile under random load.
        out: CSV file; standard output if None. When the run breaks off it stays as it was, and what
            was measured is in the file `.partial` beside it.
        again: measure although it was measured before.
        others: recipes whose engines are served beside it, to see what they do to each other.

    Returns:
        What the measurements say, sentence by sentence.

    Raises:
        InputError: the recipe itself is among the others, or the file is a folder or in one that is not there.
        MachineError: the load generator or the server is missing or fails, or the file cannot be written.
    """
    _check(recipe, others, out)
    require()  # a machine without them should say so before it trains
    install.find()
    asked, company = system_under_test(recipe, spec), [system_under_test(other, spec) for other in others]
    with _writer(out) as write:
        alone = _alone(asked, seconds, p99_ms, again, write)
        together = _together([asked, *company], seconds, again, write) if company else []
    said = [sentence for name, own in by_engine(alone).items() for sentence in sentences(name, summary(own, p99_ms))]
    return said + colocation.sentences(together)


def _check(recipe: Recipe, others: Sequence[Recipe], out: Path | None) -> None:
    names = [recipe.name, *(other.name for other in others)]
    if len(set(names)) < len(names):
        raise InputError(f"--beside: found {', '.join(names)}, expected every recipe once. Leave {recipe.name} out")
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise InputError(f"--out {out}: expected a file in a folder that is there. Give another one")


def _alone(asked: SystemUnderTest, seconds: float, p99_ms: float, again: bool, write: Write) -> list[Measurement]:
    """Each engine alone on the server, in every scenario."""
    depends_on = {"engines": asked.key, "seconds": seconds, "p99_ms": p99_ms}
    measured = online.measure(asked.models, asked.samples, asked.logs, seconds, p99_ms)
    return _kept(asked.folder / LOAD, depends_on, again, measured, write)


def _together(asked: Sequence[SystemUnderTest], seconds: float, again: bool, write: Write) -> list[Measurement]:
    """All engines of several recipes on one server."""
    depends_on = {"engines": asked[0].key, "others": [one.key for one in asked[1:]], "seconds": seconds}
    models = [model for one in asked for model in one.models]
    measured = colocation.measure(models, asked[0].samples, asked[0].logs, seconds)
    return _kept(asked[0].folder / BESIDE_LOAD, depends_on, again, measured, write)


def _kept(
    folder: Path, depends_on: Mapping[str, Any], again: bool, measured: Iterable[Measurement], write: Write
) -> list[Measurement]:
    """The lines of a finished step: measured and written now, or found there."""
    fresh: list[Measurement] = []

    def make(unfinished: Path) -> None:
        load_average = cpu.load_average()
        for line in measured:
            fresh.append(line)
            write(line)
        found = {"load_average": load_average, "lines": [line.as_dict() for line in fresh]}
        atomic.write_json(unfinished / f"{LOAD}.json", {**depends_on, **found})

    key = {**depends_on, "code": code_version(__name__, *BACKENDS), "run": run_number(folder, again)}
    step_cache.step(folder, key, make)
    if fresh:
        return fresh
    log.info("%s: measured before; --again measures anew", folder)
    path = folder / f"{LOAD}.json"
    lines = [Measurement.of(line, path) for line in read_json(path, Kept)["lines"]]
    for line in lines:
        write(line)
    return lines


@contextmanager
def _writer(out: Path | None) -> Iterator[Write]:
    """Writes lines of CSV, the heading before the first."""
    with _opened(out) as file:
        writers: list[csv.DictWriter] = []

        def write(line: Measurement) -> None:
            content = line.as_dict()
            with _naming(out):
                if not writers:
                    writers.append(csv.DictWriter(file, list(content), lineterminator="\n"))
                    writers[0].writeheader()
                writers[0].writerow({name: cell(value) for name, value in content.items()})
                file.flush()

        yield write


@contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    written = out if out.exists() and not out.is_file() else out.with_name(f"{out.name}.partial")  # a pipe is written itself
    with _naming(out):
        file = written.open("w", encoding="utf-8", newline="")
    try:
        yield file
    except BaseException:
        if written != out:
            log.warning("%s has what was measured; %s is written when all is", written, out)
        raise
    finally:
        with _naming(out):  # what is left in its buffer is written now
            file.close()
    if written != out:
        with _naming(out):
            atomic.flush(written)
            os.replace(written, out)


@contextmanager
def _naming(out: Path | None) -> Iterator[None]:
    """Name the file where it cannot be written."""
    try:
        yield
    except OSError as error:
        if out is None:
            raise
        raise MachineError(f"{out}: cannot be written: {error.strerror}. Give another file") from error
