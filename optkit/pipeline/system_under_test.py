"""A recipe's engines as something to measure through a server: how they are served, and what they are asked."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from optkit.benchmark.scenarios import Samples
from optkit.benchmark.scratch_server import Model
from optkit.compression import checkpoint
from optkit.core.step_cache import RECORD, content_at, made_of
from optkit.evaluation.artifacts import engine_folders
from optkit.evaluation.through_server import model_config
from optkit.models import loading
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.build_engines import converted
from optkit.recipe.recipe import Recipe


class _Numbered(TypedDict, total=False):
    run: int


@dataclass(frozen=True)
class SystemUnderTest:
    """The engines of one recipe and seed."""

    models: list[Model]
    """One for each precision, as it is served by default."""
    samples: Samples
    """Examples of the dev split."""
    folder: Path
    """Folder of the recipe."""
    key: str
    """The key of the step that made the engines."""

    @property
    def logs(self) -> Path:
        """Folder of the server's logs."""
        return self.folder / "logs"


def system_under_test(recipe: Recipe, spec: RunSpec) -> SystemUnderTest:
    """A recipe to measure, after making what is not finished yet."""
    engines, folder = converted(recipe, spec), spec.folder(recipe)
    loaded = checkpoint.load(folder, spec.task)
    length = loading.max_length(loaded, spec.task)
    shape, served = spec.task.shape_of_logits(folder), []
    for precision, engine in engine_folders(engines).items():
        config = model_config(f"{recipe.name}.{precision}", engine, loaded, spec.task, length, shape)
        served.append(Model(recipe.name, precision, engine, config))
    samples = Samples(spec.features("dev", loaded.tokenizer), spec.collator(loaded.tokenizer))
    return SystemUnderTest(served, samples, folder, content_at(engines))


def run_number(folder: Path, again: bool) -> int:
    """Part of a measurement's key: another one has it measured anew, and what is there stays until that is finished.

    Args:
        folder: of the step.
        again: whether to measure anew.
    """
    if not (folder / RECORD).is_file():
        return 0
    return made_of(folder, _Numbered).get("run", 0) + again
