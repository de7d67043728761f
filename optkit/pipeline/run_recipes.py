"""Running recipes from Python, on a task and a model in memory, with or without a folder of results."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from optkit.core import atomic, mirror, step_cache, temporary
from optkit.core.errors import InputError
from optkit.engines import registry as engines
from optkit.evaluation.results import Result
from optkit.models.loading import Model, loaded_model
from optkit.pipeline import projects, refusals, rows
from optkit.pipeline.run import run_all
from optkit.pipeline.run_spec import SECONDS, RunSpec
from optkit.recipe.finder import mistakes_of_teachers
from optkit.recipe.recipe import Recipe
from optkit.recipe.stage import BASELINE
from optkit.serving import install
from optkit.tasks.base import Task


def run_recipes(
    recipes: Recipe | Sequence[Recipe],
    task: Task,
    model: Model | str | Path | None = None,
    *,
    seeds: Sequence[int] = (0,),
    root: Path | str | None = None,
    engine: Sequence[str] = (),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    seconds: float = SECONDS,
    revision: str | None = None,
    labels: Sequence[str] | None = None,
    name: str | None = None,
) -> list[Result]:
    """Run recipes end to end: train, export, build engines, score them through a real Triton server, and apply the gate.

        rows = optkit.run(recipe, task, model, seeds=[0])
        print(optkit.compare(rows))

    Args:
        recipes: one or more recipes. Teachers other than the baseline have to be among them.
        task: task to train and score on.
        model: model to start from: a folder, a name on the hub, or a model in memory; None for the task's own.
        seeds: training seeds; several seeds are also pooled into one row.
        root: folder for all results, or `s3://BUCKET/FOLDER` (see docs/cluster.md), which later runs and `optkit publish`
            reuse; None keeps the rows only.
        engine: engine kinds to build; by default all that this machine can run.
        options: build options by engine kind and key.
        tokenizer: tokenizer of a bare `PreTrainedModel`.
        seconds: measuring time per served model and batch size, in seconds.
        revision: branch, tag or commit of a model on the hub.
        labels: the data's classes in the order of the rows of the model's head, where their names do not tell.
        name: name of the project below `root`, and of the published models; None for the task's.

    Returns:
        Result rows of the recipes and of the FP32 baseline, the best first, and the `Refusal` of each recipe that does not
        apply to the model.

    Raises:
        InputError: a recipe, the data or the model has a mistake, or no recipe applies to the model; as far as possible
            it is reported before training.
        MachineError: a runtime or the server is missing.
        GateError: an engine's logits do not agree with its graph's.
    """
    install.find()  # a machine without a server should say so before it trains
    asked = [recipes] if isinstance(recipes, Recipe) else list(recipes)
    known, seeds = _known(asked), _numbers(seeds)
    engine = (engine,) if isinstance(engine, str) else tuple(engine)
    for kind in engine:
        _require_served(kind)
    for kind in options or {}:
        engines.runtime(kind)  # refuses a kind that there is not
    with ExitStack() as stack:
        place = mirror.place(root or stack.enter_context(temporary.folder("optkit-run")))
        source = _source(model, None if labels else task, tokenizer, place)  # labels sort the head as it is read
        told = (revision, None if labels is None else tuple(labels), name and projects.checked(name))
        shared = (place, known, tuple(engine), seconds, options or {}, *told)
        specs = [RunSpec(task, source, seed, *shared) for seed in seeds]
        run_all(asked, specs)
        names = {BASELINE, *(recipe.name for recipe in asked)}
        home = specs[0].home
        found: list[Result] = [*rows.read(place, task.name, home.name), *refusals.read(home.folder)]
        return [result for result in found if result.recipe in names]


def _numbers(seeds: Any) -> list[int]:
    given = list(seeds) if isinstance(seeds, Sequence) else []
    if not given or not all(isinstance(seed, int) for seed in given):
        raise InputError(f"seeds: found {seeds!r}, expected one or more integers, as seeds=[0, 1]")
    return given


def _require_served(kind: str) -> None:
    """Raise unless engines of a kind run on this machine, in the server's processes too."""
    engines.require_running(kind)
    if engines.RUNTIMES.only_here(kind):
        raise InputError(
            f"engine kind {kind!r} is registered in this process, and the server's processes do not know it: bring it by an "
            f"entry point of the group {engines.RUNTIMES.group}"
        )


def _known(asked: Sequence[Recipe]) -> dict[str, Recipe]:
    """Return the recipes by name, with the baseline, after checking their names and teachers."""
    if not asked or not all(isinstance(recipe, Recipe) for recipe in asked):
        raise InputError(f"recipes: found {asked!r:.80}, expected one or more of optkit.Recipe(name=…, stages=[…])")
    known = {BASELINE: Recipe(name=BASELINE)} | {recipe.name: recipe for recipe in asked}
    names = [recipe.name for recipe in asked]
    mistakes = [f"recipe {name!r}: found twice, expected each name once" for name in set(names) if names.count(name) > 1]
    mistakes += [mistake for recipe in asked for mistake in mistakes_of_teachers(recipe, known, {})]
    if mistakes:
        raise InputError("\n".join(dict.fromkeys(mistakes)))
    return known


def _source(
    model: Model | str | Path | None, task: Task | None, tokenizer: PreTrainedTokenizerBase | None, root: Path
) -> str | None:
    """Return name or folder of the model to start from; a model in memory is saved under the digest of its files."""
    if model is None or isinstance(model, str | Path):
        return None if model is None else str(model)
    loaded = loaded_model(model, task, tokenizer)
    from optkit.compression import quantizers  # it brings Model Optimizer, which takes seconds

    if quantizers.quantisers(loaded.model):
        raise InputError("model: found fake quantisers in it, expected the float model that recipes start from")
    place = root / ".models"
    place.mkdir(parents=True, exist_ok=True)
    with temporary.folder(".model", place) as scratch:
        folder = scratch / "model"
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
        kept = place / step_cache.key_of(atomic.hashes(folder))[:16]
        if not kept.exists():
            shutil.move(folder, kept)
    return str(kept)
