"""The way a recipe takes, from settings to judged result rows; each arrow leaves its evidence on disk.

A recipe's folder holds its checkpoint, and in folders of their own `teacher/` (logits on the training features),
`graph/`, `engines/` and `served/`. Each is a step of `optkit.store`: keyed by what it depends on, made once, and found
again by the next run.
"""

import logging
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from accelerate import PartialState

from optkit import checkpoints, engines, models, sparsity, store
from optkit.engines import plans
from optkit.engines.convert import check_masks, convert
from optkit.graph import ranges
from optkit.graph.audit import audit as audit_graph
from optkit.graph.audit import check as check_audit
from optkit.graph.audit import check_sparse
from optkit.graph.export import export
from optkit.job import Job
from optkit.losses import task_loss
from optkit.recipe import Recipe
from optkit.report import rows
from optkit.results import Row
from optkit.serving import native
from optkit.snapshots import Snapshots
from optkit.stages import BASELINE
from optkit.store import key_at
from optkit.tasks.batches import BATCH_SIZE
from optkit.tasks.batches import run as run_batches
from optkit.teachers import Teachers
from optkit.techniques import distill, preflight, quantize, sparsify
from optkit.techniques.context import Context
from optkit.training import Batches, on_cpu, train
from optkit.validation.candidate import validate
from optkit.validation.evidence import STAGE_SCORES, read_scores
from optkit.validation.performance import requests

log = logging.getLogger(__name__)
_COMPARED_TOKENS = 4096
"""At most in a batch on which engines are compared: the reference, which runs the graph as written, is slow."""
_TRAINING_CODE = ("stages", "models", "sparsity", "losses", "training", "cpu_training", "snapshots", "checkpoints", "tasks")
_Apply = Callable[..., list[dict[str, float]]]
_APPLY: dict[str, _Apply] = {"distill": distill.apply, "sparsify": sparsify.apply, "quantize": quantize.apply}


def run(recipe: Recipe, job: Job) -> list[Row]:
    """Take a recipe all the way; what is finished already is not done again.

    Returns:
        One row per engine precision, scored through the server.
    """
    trained(recipe, job)
    exported(recipe, job)
    converted(recipe, job)
    return validated(recipe, job)


def run_all(recipes: Sequence[Recipe], jobs: Sequence[Job]) -> list[Row]:
    """Run every recipe on every job, after a look at what can be known to be wrong with them.

    Under `accelerate launch`, all processes train together first; then the main one goes on alone, since graphs, engines
    and servers are made once, and the others have no rows to return.
    """
    start = jobs[0].architecture()  # jobs differ by their seed
    for recipe in recipes:
        preflight.check(recipe, start, Teachers(jobs[0], trained).load)
    state = PartialState(cpu=on_cpu())
    if state.num_processes > 1:
        for job, recipe in product(jobs, recipes):
            trained(recipe, job)
        state.destroy_process_group()
        if not state.is_main_process:
            return []
    return [row for job, recipe in product(jobs, recipes) for row in run(recipe, job)]


def trained(recipe: Recipe, job: Job) -> Path:
    """The folder of the recipe's checkpoint, after those it starts from and those that teach it."""
    parent = _parent(recipe, job)
    needs = {name: Teachers(job, trained).key(name) for name in recipe.teachers}
    if parent:
        needs[parent.name] = key_at(trained(parent, job))
    depends_on = {
        "recipe": recipe.resolved(),
        "training": job.training(recipe).model_dump(),
        "from": needs,
        **job.source,
        "code": store.code_version(*_TRAINING_CODE, *(["techniques"] if recipe.stages else [])),
    }
    folder = job.folder(recipe)
    snapshots = Snapshots(folder.with_name(f".{folder.name}.training"), store.key_of(depends_on))
    store.step(folder, depends_on, lambda unfinished: _train(recipe, parent, job, unfinished, snapshots), keep=True)
    snapshots.clear()
    return folder


def _train(recipe: Recipe, parent: Recipe | None, job: Job, folder: Path, snapshots: Snapshots) -> None:
    """Fine-tune the baseline, or apply the recipe's last stage to the checkpoint of its parent."""
    log.info("%s: training (seed %d)", recipe.name, job.seed)
    loaded = job.start() if parent is None else checkpoints.load(job.folder(parent), job.task)
    context = Context(
        features=job.features("train", loaded.tokenizer),
        collator=job.collator(loaded.tokenizer),
        training=job.training(recipe),
        seed=job.seed,
        logs=job.root / job.task.name / ".tensorboard" / f"{recipe.name}-seed-{job.seed}",
        teacher_logits=Teachers(job, trained).logits,
        teacher_model=Teachers(job, trained).load,
        snapshots=snapshots,
    )
    if parent:
        stage = recipe.stages[-1]
        history = _APPLY[stage.technique](loaded, stage, context)
        scores = read_scores(job.folder(parent) / STAGE_SCORES) | {stage.technique: _scored(loaded, job)}
    else:
        history = _fine_tune(loaded, context)
        scores = {BASELINE: _scored(loaded, job)}
    checkpoints.save(loaded, recipe.stages, history, folder)
    np.savez(folder / STAGE_SCORES, **scores)


def _scored(loaded: models.Loaded, job: Job) -> np.ndarray:
    """The headline metric of a model example by example on the dev split, in PyTorch."""
    features = job.features("dev", loaded.tokenizer)
    logits = run_batches(models.inference(loaded.model), features, BATCH_SIZE, job.collator(loaded.tokenizer))
    return job.task.example_scores(job.task.predict(features, logits))


def _fine_tune(loaded: models.Loaded, context: Context) -> list[dict[str, float]]:
    """The baseline's training, unless the model already answers the task."""
    if loaded.fine_tuned:
        log.info("the model has the task's head already: taken as the FP32 baseline without training")
        return []
    if loaded.amax:
        log.warning("the scales in the model's checkpoint are left out: fine-tuning changes what they were made for")
        loaded.amax = {}
    batches = Batches(context.features, context.collator, context.training.batch_size, context.seed)
    with sparsity.held(sparsity.sparse_linears(models.encoder_linears(loaded.model))):  # it may have been pruned elsewhere
        return train(
            loaded.model, batches, task_loss, context.training, context.seed, context.logs, "fine-tuning",
            snapshots=context.snapshots,
        )  # fmt: skip


def _parent(recipe: Recipe, job: Job) -> Recipe | None:
    """The recipe of one stage less, where this one starts: a known one, or one that only keeps what is between two."""
    if recipe.is_baseline:
        return None
    before = recipe.stages[:-1]
    for known in job.recipes.values():
        if known.stages == before and (known.is_baseline or known.training == recipe.training):
            return known
    between = Recipe(name="between", stages=before, training=recipe.training)
    techniques = "_".join(stage.technique for stage in before)
    return between.model_copy(update={"name": f"{techniques}_{between.digest()[:8]}"})


def exported(recipe: Recipe, job: Job) -> Path:
    """The folder with the recipe's `model.onnx` and its audit."""
    checkpoint = trained(recipe, job)
    folder = checkpoint / "graph"

    def make(unfinished: Path) -> None:
        log.info("%s: ONNX graph", recipe.name)
        loaded = checkpoints.load(checkpoint, job.task)
        audit = audit_graph(export(loaded.model, unfinished, models.max_length(loaded, job.task)))
        if recipe.is_quantised:
            check_audit(audit)
        if recipe.is_sparse:
            check_sparse(audit, models.prunable(loaded.model))
        store.write_json(unfinished / "audit.json", audit.to_dict())

    store.step(folder, {"checkpoint": key_at(checkpoint), "code": store.code_version("graph")}, make)
    return folder


def converted(recipe: Recipe, job: Job) -> Path:
    """The folder with one engine per precision, `<precision>/`, and `conversion.json`, which says why that one."""
    with_plans = plans.KIND in (job.engines or engines.installed())
    graph = (ranged if with_plans and recipe.is_quantised else exported)(recipe, job)
    folder = job.folder(recipe) / "engines"

    def make(unfinished: Path) -> None:
        log.info("%s: engines", recipe.name)
        loaded = checkpoints.load(job.folder(recipe), job.task)
        length = models.max_length(loaded, job.task)
        size = max(1, min(BATCH_SIZE, _COMPARED_TOKENS // length))
        conversion = convert(
            graph / "model.onnx",
            unfinished,
            job.engines,
            quantised=recipe.is_quantised,
            feeds=requests(job.features("dev", loaded.tokenizer), job.collator(loaded.tokenizer), size),
            options={plans.KIND: {"settings": job.tensorrt}},
            max_length=length,
        )
        if recipe.is_sparse:
            check_masks(conversion, len(models.prunable(loaded.model)))
        native.write_configs(unfinished)

    depends_on = {
        "graph": key_at(graph),
        "kinds": job.engines,
        "machine": engines.machine(job.engines),
        "code": store.code_version("engines"),
        **({"tensorrt": job.tensorrt.as_dict()} if with_plans else {}),
    }
    store.step(folder, depends_on, make)
    return folder


def ranged(recipe: Recipe, job: Job) -> Path:
    """The folder of the quantised graph with the ranges that only TensorRT's placements need."""
    graph, folder = exported(recipe, job), job.folder(recipe) / "ranges"

    def make(unfinished: Path) -> None:
        log.info("%s: ranges for TensorRT", recipe.name)
        loaded = checkpoints.load(job.folder(recipe), job.task)
        feeds = requests(job.features("train", loaded.tokenizer), job.collator(loaded.tokenizer), BATCH_SIZE)
        ranges.prepare(graph / "model.onnx", feeds, unfinished)

    store.step(folder, {"graph": key_at(graph), "code": store.code_version("graph")}, make)
    return folder


def planned(recipe: Recipe, job: Job, variant: str | None = None) -> Path:
    """The folder with TensorRT's plans of a machine that cannot run them, beside its engines and apart from them."""
    graph = (ranged if recipe.is_quantised else exported)(recipe, job)
    folder = job.folder(recipe) / "plans"

    def make(unfinished: Path) -> None:
        log.info("%s: TensorRT plans", recipe.name)
        plans.build(graph / "model.onnx", unfinished, recipe.is_quantised, job.tensorrt, variant)
        native.write_configs(unfinished)

    depends_on = {
        "graph": key_at(graph),
        "tensorrt": job.tensorrt.as_dict(),
        "variant": variant,
        "machine": engines.machine([plans.KIND]),
        "code": store.code_version("engines", "graph", "serving"),
    }
    store.step(folder, depends_on, make)
    return folder


def validated(recipe: Recipe, job: Job) -> list[Row]:
    """The recipe's engines scored at every rung and measured beside the baseline's, as judged rows."""
    own, baseline = converted(recipe, job), converted(job.baseline, job)
    folder = job.folder(recipe)

    def make(unfinished: Path) -> None:
        log.info("%s: scoring through Triton", recipe.name)
        loaded = checkpoints.load(folder, job.task)
        features = job.features("dev", loaded.tokenizer)
        validate(job.task, loaded, features, own, baseline, unfinished, folder / "logs", job.seconds)

    depends_on = {
        "engines": key_at(own),
        "baseline": key_at(baseline),
        "seconds": job.seconds,
        "code": store.code_version("serving", "validation", "tasks"),
    }
    store.step(folder / "served", depends_on, make)
    if not recipe.is_baseline:
        validated(job.baseline, job)
    found = rows.rows_of(recipe, job.task, job.seed, folder, job.folder(job.baseline))
    rows.write(found, folder)
    return found
