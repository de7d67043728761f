"""`optkit load`: a recipe's engines under load, every measurement as a line of CSV as soon as it is made."""

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from optkit import checkpoints, models, pipeline
from optkit.errors import MachineError
from optkit.job import Job
from optkit.recipe import Recipe
from optkit.serving import install
from optkit.validation import online
from optkit.validation.evidence import engine_folders
from optkit.validation.load import Samples, require


def run(recipe: Recipe, job: Job, seconds: float, p99_ms: float, out: Path | None) -> list[str]:
    """Measure the recipe's engines, after making what is not finished yet.

    Args:
        recipe: whose engines.
        job: what the recipe is run on.
        seconds: of each measurement, at least.
        p99_ms: bound of the 99th percentile under random load.
        out: CSV file; standard output if None. It holds what was measured also when the run breaks off.

    Returns:
        What the measurements say, sentence by sentence.

    Raises:
        MachineError: the load generator or the server is missing or fails, or the file cannot be written.
    """
    require()  # a machine without them should say so before it trains
    install.find()
    engines = engine_folders(pipeline.converted(recipe, job))
    loaded = checkpoints.load(job.folder(recipe), job.task)
    samples = Samples(job.features("dev", loaded.tokenizer), job.collator(loaded.tokenizer))
    length, logs = models.max_length(loaded, job.task), job.folder(recipe) / "logs"
    lines = []
    with _opened(out) as file:
        writer = None
        for line in online.measure(engines, samples, loaded.tokenizer, job.task, length, logs, seconds, p99_ms):
            content = line.as_dict()
            if writer is None:
                writer = csv.DictWriter(file, list(content), lineterminator="\n")
                writer.writeheader()
            writer.writerow(content)
            file.flush()
            lines.append(line)
    return online.summary(lines, p99_ms)


@contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    try:
        with out.open("w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        raise MachineError(f"{out}: cannot be written: {error.strerror}. Give another file") from error
