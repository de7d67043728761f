"""A recipe's engines as something to measure through a server: how they are served, and what they are asked."""

from dataclasses import dataclass
from pathlib import Path

from optkit import checkpoints, models, pipeline
from optkit.job import Job
from optkit.recipe import Recipe
from optkit.store import RECORD, key_at, read_record
from optkit.validation.bench import Model
from optkit.validation.evidence import engine_folders
from optkit.validation.load import Samples
from optkit.validation.served import model_config

CODE = ("serving", "validation", "tasks")
"""What measurements through a server depend on, beside the engines."""


@dataclass(frozen=True)
class Subject:
    """The engines of one recipe and seed."""

    models: list[Model]
    """One for each precision, as it is served by default."""
    samples: Samples
    """Examples of the dev split."""
    folder: Path
    """The recipe's."""
    key: str
    """Of the engines."""

    @property
    def logs(self) -> Path:
        """Where the server's log goes."""
        return self.folder / "logs"


def subject(recipe: Recipe, job: Job) -> Subject:
    """A recipe to measure, after making what is not finished yet."""
    engines, folder = pipeline.converted(recipe, job), job.folder(recipe)
    loaded = checkpoints.load(folder, job.task)
    length = models.max_length(loaded, job.task)
    served = []
    for precision, engine in engine_folders(engines).items():
        config = model_config(f"{recipe.name}.{precision}", engine, loaded.tokenizer, job.task, length)
        served.append(Model(recipe.name, precision, engine, config))
    samples = Samples(job.features("dev", loaded.tokenizer), job.collator(loaded.tokenizer))
    return Subject(served, samples, folder, key_at(engines))


def run_number(folder: Path, again: bool) -> int:
    """Part of a measurement's key: another one has it measured anew, and what is there stays until that is finished.

    Args:
        folder: of the step.
        again: whether to measure anew.
    """
    if not (folder / RECORD).is_file():
        return 0
    return int(read_record(folder)["depends_on"].get("run", 0)) + again
