"""The checkpoint: the baseline fine-tuned, or the last stage of a recipe applied to the checkpoint of the recipe before."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optkit.compression import checkpoint
from optkit.compression.context import Context
from optkit.core import step_cache
from optkit.core.atomic import write_json
from optkit.core.code_version import code_version
from optkit.core.step_cache import content_at
from optkit.evaluation import doubts
from optkit.evaluation.artifacts import STAGE_SCORES, read_scores
from optkit.models import families, loading, shared_blocks, two_to_four
from optkit.pipeline import start_summary
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.teachers import Teachers
from optkit.recipe.recipe import Recipe
from optkit.recipe.stage import BASELINE, Stage
from optkit.recipe.training import Training
from optkit.tasks.collate import BATCH_SIZE
from optkit.tasks.collate import run as run_batches
from optkit.training import thresholds
from optkit.training.loop import train
from optkit.training.losses import task_loss
from optkit.training.resume import Snapshots

log = logging.getLogger(__name__)


def trained(recipe: Recipe, spec: RunSpec) -> Path:
    """The folder of the recipe's checkpoint, after those it starts from and those that teach it."""
    parent = parent_of(recipe, spec)
    needs = {name: Teachers(spec, trained).key(name) for name in recipe.teachers}
    if parent:
        needs[parent.name] = content_at(trained(parent, spec))
    depends_on = {
        "recipe": recipe.resolved(),
        "training": spec.training(recipe).model_dump(),
        "from": needs,
        **_unlabelled(recipe, spec),
        **spec.source,
        "code": code_version(__name__, *spec.modules(recipe)),
    }
    folder = spec.folder(recipe)
    snapshots = Snapshots(folder.with_name(f".{folder.name}.training"), step_cache.key_of(depends_on))
    if spec.given is not None:  # before hours of training, in which a run on other data might choose the same folder
        spec.home.remember(spec.given)
    step_cache.step(folder, depends_on, lambda unfinished: _train(recipe, parent, spec, unfinished, snapshots), keep=True)
    snapshots.clear()
    return folder


def _train(recipe: Recipe, parent: Recipe | None, spec: RunSpec, folder: Path, snapshots: Snapshots) -> None:
    """Fine-tune the baseline, or apply the recipe's last stage to the checkpoint of its parent."""
    log.info("%s: training (seed %d)", recipe.name, spec.seed)
    loaded = spec.start() if parent is None else checkpoint.load(spec.folder(parent), spec.task)
    if spec.is_first("summary"):
        start_summary.say(spec, loaded, spec.training(recipe))
    context = context_of(recipe, spec, loaded, snapshots)
    if parent:
        stage = recipe.stages[-1]
        for remark in Teachers(spec, trained).copies(stage.teachers):
            log.warning("%s: %s", recipe.name, remark)
            loaded.remarks.append(f"{stage.technique}: {remark}")
        history = stage.apply(loaded, context)
        for before in recipe.stages:
            before.check(loaded.model, f"after {stage.technique}")
        scores, done = read_scores(spec.folder(parent) / STAGE_SCORES), stage.technique
    else:
        history = _fine_tune(loaded, context)
        scores, done = {}, BASELINE
    thresholds.fit(loaded, spec.task, context.features, context.collator)
    scores[done] = _outcomes(recipe, loaded, spec, folder)
    checkpoint.save(loaded, recipe.stages, history, folder)
    np.savez(folder / STAGE_SCORES, **scores)


def context_of(recipe: Recipe, spec: RunSpec, loaded: loading.LoadedModel, snapshots: Snapshots | None = None) -> Context:
    """The surroundings of a recipe's stages."""
    return Context(
        task=spec.task,
        features=spec.features("train", loaded.tokenizer),
        collator=spec.collator(loaded.tokenizer),
        training=spec.training(recipe),
        seed=spec.seed,
        logs=spec.home.folder / ".tensorboard" / f"{recipe.name}-seed-{spec.seed}",
        teacher_logits=Teachers(spec, trained).logits,
        teacher_model=Teachers(spec, trained).load,
        snapshots=snapshots,
        unlabelled=spec.unlabelled(loaded.tokenizer),
    )


def _unlabelled(recipe: Recipe, spec: RunSpec) -> dict[str, Any]:
    """What a recipe depends on of the texts without labels."""
    return {"unlabelled": spec.unlabelled_key} if recipe.stages and spec.task.unlabelled else {}


def _outcomes(recipe: Recipe, loaded: loading.LoadedModel, spec: RunSpec, folder: Path) -> np.ndarray:
    """Outcomes of a model on the dev split, in PyTorch; where it has learned nothing, it is said, and kept in the folder."""
    features, task = spec.features("dev", loaded.tokenizer), spec.task.deciding(loaded.thresholds)
    logits = run_batches(loading.inference(loaded.model, task), features, BATCH_SIZE, spec.collator(loaded.tokenizer))
    predictions = task.predict(features, logits)
    doubt = None if recipe.is_half else doubts.of_predictions(task, predictions)
    if doubt is not None:
        log.warning("%s: the model %s (the gate's verdict: %s)", recipe.name, doubt["reason"], doubt["verdict"])
        write_json(folder / doubts.FILE, doubt)
    return task.outcomes(predictions)


def _fine_tune(loaded: loading.LoadedModel, context: Context) -> list[dict[str, float]]:
    """The baseline's training, unless the model already answers the task."""
    if loaded.fine_tuned:
        log.info("the model has the task's head already: taken as the FP32 baseline without training")
        return []
    if loaded.amax:
        log.warning("the scales in the model's checkpoint are left out: fine-tuning changes what they were made for")
        loaded.amax = {}
    batches = context.batches(context.training.batch_size)
    sparse = two_to_four.sparse_linears(families.encoder_linears(loaded.model))  # it may come pruned, or with shared blocks
    with two_to_four.held(sparse), shared_blocks.held(loaded.model):
        return train(
            loaded.model, batches, task_loss(context.task), context.training, context.seed, context.logs, "fine-tuning",
            snapshots=context.snapshots,
        )  # fmt: skip


def parent_of(recipe: Recipe, spec: RunSpec) -> Recipe | None:
    """The recipe of one stage less, where this one starts; None of the baseline."""
    return None if recipe.is_baseline else with_stages(recipe.stages[:-1], recipe.training, spec)


def with_stages(stages: Sequence[Stage], training: Training, spec: RunSpec) -> Recipe:
    """Return the recipe of these stages: a known one, or one that only keeps what is between two."""
    stages = tuple(stages)
    for known in spec.recipes.values():
        if known.stages == stages and (known.is_baseline or known.training == training):
            return known
    between = Recipe(name="between", training=training).model_copy(update={"stages": stages})  # may be half a recipe
    techniques = "_".join(stage.technique for stage in stages)
    return between.model_copy(update={"name": f"{techniques}_{between.digest()[:8]}"})
