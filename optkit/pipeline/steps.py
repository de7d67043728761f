"""The way a recipe takes, from settings to judged result rows; each arrow leaves its evidence on disk.

A recipe's folder holds its checkpoint, and in folders of their own `teacher/` (logits on the training features),
`graph/`, `engines/` and `served/`. Each is a step of `optkit.core.step_cache`: keyed by what it depends on, made once, and
found again by the next run.
"""

import logging
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from accelerate import PartialState

from optkit import engines
from optkit.compression import checkpoint, distill, preflight, quantize, sparsify
from optkit.compression.context import Context
from optkit.core import atomic, step_cache
from optkit.core.code_version import code_version
from optkit.core.step_cache import key_at
from optkit.engines.select import check_masks, convert
from optkit.engines.tensorrt import plans
from optkit.evaluation.artifacts import STAGE_SCORES, read_scores
from optkit.evaluation.latency import requests
from optkit.evaluation.results import Row
from optkit.evaluation.validation import validate
from optkit.graph.audit import audit as audit_graph
from optkit.graph.audit import check as check_audit
from optkit.graph.audit import check_sparse
from optkit.graph.export import export
from optkit.graph.tensorrt import ranges
from optkit.models import families, loading, two_to_four
from optkit.pipeline import rows
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.teachers import Teachers
from optkit.recipe.recipe import Recipe
from optkit.recipe.stages import BASELINE
from optkit.serving import native
from optkit.tasks.collate import BATCH_SIZE
from optkit.tasks.collate import run as run_batches
from optkit.training.loop import Batches, on_cpu, train
from optkit.training.losses import task_loss
from optkit.training.resume import Snapshots

log = logging.getLogger(__name__)
_COMPARED_TOKENS = 4096
"""At most in a batch on which engines are compared: the reference, which runs the graph as written, is slow."""
_Apply = Callable[..., list[dict[str, float]]]
_APPLY: dict[str, _Apply] = {"distill": distill.apply, "sparsify": sparsify.apply, "quantize": quantize.apply}


def run(recipe: Recipe, spec: RunSpec) -> list[Row]:
    """Take a recipe all the way; what is finished already is not done again.

    Returns:
        One row per engine precision, scored through the server.
    """
    trained(recipe, spec)
    exported(recipe, spec)
    converted(recipe, spec)
    return validated(recipe, spec)


def run_all(recipes: Sequence[Recipe], specs: Sequence[RunSpec]) -> list[Row]:
    """Run every recipe on every spec, after a look at what can be known to be wrong with them.

    Under `accelerate launch`, all processes train together first; then the main one goes on alone, since graphs, engines
    and servers are made once, and the others have no rows to return.
    """
    start = specs[0].architecture()  # specs differ by their seed
    for recipe in recipes:
        preflight.check(recipe, start, Teachers(specs[0], trained).load)
    state = PartialState(cpu=on_cpu())
    if state.num_processes > 1:
        for spec, recipe in product(specs, recipes):
            trained(recipe, spec)
        state.destroy_process_group()
        if not state.is_main_process:
            return []
    return [row for spec, recipe in product(specs, recipes) for row in run(recipe, spec)]


def trained(recipe: Recipe, spec: RunSpec) -> Path:
    """The folder of the recipe's checkpoint, after those it starts from and those that teach it."""
    parent = _parent(recipe, spec)
    needs = {name: Teachers(spec, trained).key(name) for name in recipe.teachers}
    if parent:
        needs[parent.name] = key_at(trained(parent, spec))
    depends_on = {
        "recipe": recipe.resolved(),
        "training": spec.training(recipe).model_dump(),
        "from": needs,
        **spec.source,
        "code": code_version("optkit.compression.retrain", "optkit.compression.checkpoint"),
    }
    folder = spec.folder(recipe)
    snapshots = Snapshots(folder.with_name(f".{folder.name}.training"), step_cache.key_of(depends_on))
    step_cache.step(folder, depends_on, lambda unfinished: _train(recipe, parent, spec, unfinished, snapshots), keep=True)
    snapshots.clear()
    return folder


def _train(recipe: Recipe, parent: Recipe | None, spec: RunSpec, folder: Path, snapshots: Snapshots) -> None:
    """Fine-tune the baseline, or apply the recipe's last stage to the checkpoint of its parent."""
    log.info("%s: training (seed %d)", recipe.name, spec.seed)
    loaded = spec.start() if parent is None else checkpoint.load(spec.folder(parent), spec.task)
    context = Context(
        features=spec.features("train", loaded.tokenizer),
        collator=spec.collator(loaded.tokenizer),
        training=spec.training(recipe),
        seed=spec.seed,
        logs=spec.root / spec.task.name / ".tensorboard" / f"{recipe.name}-seed-{spec.seed}",
        teacher_logits=Teachers(spec, trained).logits,
        teacher_model=Teachers(spec, trained).load,
        snapshots=snapshots,
    )
    if parent:
        stage = recipe.stages[-1]
        history = _APPLY[stage.technique](loaded, stage, context)
        scores = read_scores(spec.folder(parent) / STAGE_SCORES) | {stage.technique: _scored(loaded, spec)}
    else:
        history = _fine_tune(loaded, context)
        scores = {BASELINE: _scored(loaded, spec)}
    checkpoint.save(loaded, recipe.stages, history, folder)
    np.savez(folder / STAGE_SCORES, **scores)


def _scored(loaded: loading.Loaded, spec: RunSpec) -> np.ndarray:
    """The headline metric of a model example by example on the dev split, in PyTorch."""
    features = spec.features("dev", loaded.tokenizer)
    logits = run_batches(loading.inference(loaded.model), features, BATCH_SIZE, spec.collator(loaded.tokenizer))
    return spec.task.example_scores(spec.task.predict(features, logits))


def _fine_tune(loaded: loading.Loaded, context: Context) -> list[dict[str, float]]:
    """The baseline's training, unless the model already answers the task."""
    if loaded.fine_tuned:
        log.info("the model has the task's head already: taken as the FP32 baseline without training")
        return []
    if loaded.amax:
        log.warning("the scales in the model's checkpoint are left out: fine-tuning changes what they were made for")
        loaded.amax = {}
    batches = Batches(context.features, context.collator, context.training.batch_size, context.seed)
    sparse = two_to_four.sparse_linears(families.encoder_linears(loaded.model))  # it may have been pruned elsewhere
    with two_to_four.held(sparse):
        return train(
            loaded.model, batches, task_loss, context.training, context.seed, context.logs, "fine-tuning",
            snapshots=context.snapshots,
        )  # fmt: skip


def _parent(recipe: Recipe, spec: RunSpec) -> Recipe | None:
    """The recipe of one stage less, where this one starts: a known one, or one that only keeps what is between two."""
    if recipe.is_baseline:
        return None
    before = recipe.stages[:-1]
    for known in spec.recipes.values():
        if known.stages == before and (known.is_baseline or known.training == recipe.training):
            return known
    between = Recipe(name="between", stages=before, training=recipe.training)
    techniques = "_".join(stage.technique for stage in before)
    return between.model_copy(update={"name": f"{techniques}_{between.digest()[:8]}"})


def exported(recipe: Recipe, spec: RunSpec) -> Path:
    """The folder with the recipe's `model.onnx` and its audit."""
    trained_at = trained(recipe, spec)
    folder = trained_at / "graph"

    def make(unfinished: Path) -> None:
        log.info("%s: ONNX graph", recipe.name)
        loaded = checkpoint.load(trained_at, spec.task)
        audit = audit_graph(export(loaded.model, unfinished, loading.max_length(loaded, spec.task)))
        if recipe.is_quantised:
            check_audit(audit)
        if recipe.is_sparse:
            check_sparse(audit, families.prunable(loaded.model))
        atomic.write_json(unfinished / "audit.json", audit.to_dict())

    step_cache.step(folder, {"checkpoint": key_at(trained_at), "code": code_version("optkit.graph.export")}, make)
    return folder


def converted(recipe: Recipe, spec: RunSpec) -> Path:
    """The folder with one engine per precision, `<precision>/`, and `conversion.json`, which says why that one."""
    with_plans = plans.KIND in (spec.engines or engines.installed())
    graph = (ranged if with_plans and recipe.is_quantised else exported)(recipe, spec)
    folder = spec.folder(recipe) / "engines"

    def make(unfinished: Path) -> None:
        log.info("%s: engines", recipe.name)
        loaded = checkpoint.load(spec.folder(recipe), spec.task)
        length = loading.max_length(loaded, spec.task)
        size = max(1, min(BATCH_SIZE, _COMPARED_TOKENS // length))
        conversion = convert(
            graph / "model.onnx",
            unfinished,
            spec.engines,
            quantised=recipe.is_quantised,
            feeds=requests(spec.features("dev", loaded.tokenizer), spec.collator(loaded.tokenizer), size),
            options={plans.KIND: {"settings": spec.tensorrt}},
            max_length=length,
        )
        if recipe.is_sparse:
            check_masks(conversion, len(families.prunable(loaded.model)))
        native.write_configs(unfinished)

    depends_on = {
        "graph": key_at(graph),
        "kinds": spec.engines,
        "machine": engines.machine(spec.engines),
        "code": code_version("optkit.engines.select"),
        **({"tensorrt": spec.tensorrt.as_dict()} if with_plans else {}),
    }
    step_cache.step(folder, depends_on, make)
    return folder


def ranged(recipe: Recipe, spec: RunSpec) -> Path:
    """The folder of the quantised graph with the ranges that only TensorRT's placements need."""
    graph, folder = exported(recipe, spec), spec.folder(recipe) / "ranges"

    def make(unfinished: Path) -> None:
        log.info("%s: ranges for TensorRT", recipe.name)
        loaded = checkpoint.load(spec.folder(recipe), spec.task)
        feeds = requests(spec.features("train", loaded.tokenizer), spec.collator(loaded.tokenizer), BATCH_SIZE)
        ranges.prepare(graph / "model.onnx", feeds, unfinished)

    step_cache.step(folder, {"graph": key_at(graph), "code": code_version("optkit.graph.tensorrt.ranges")}, make)
    return folder


def planned(recipe: Recipe, spec: RunSpec, variant: str | None = None) -> Path:
    """The folder with TensorRT's plans of a machine that cannot run them, beside its engines and apart from them."""
    graph = (ranged if recipe.is_quantised else exported)(recipe, spec)
    folder = spec.folder(recipe) / "plans"

    def make(unfinished: Path) -> None:
        log.info("%s: TensorRT plans", recipe.name)
        plans.build(graph / "model.onnx", unfinished, recipe.is_quantised, spec.tensorrt, variant)
        native.write_configs(unfinished)

    depends_on = {
        "graph": key_at(graph),
        "tensorrt": spec.tensorrt.as_dict(),
        "variant": variant,
        "machine": engines.machine([plans.KIND]),
        "code": code_version("optkit.engines.tensorrt.plans", "optkit.serving.native"),
    }
    step_cache.step(folder, depends_on, make)
    return folder


def validated(recipe: Recipe, spec: RunSpec) -> list[Row]:
    """The recipe's engines scored at every rung and measured beside the baseline's, as judged rows."""
    own, baseline = converted(recipe, spec), converted(spec.baseline, spec)
    folder = spec.folder(recipe)

    def make(unfinished: Path) -> None:
        log.info("%s: scoring through Triton", recipe.name)
        loaded = checkpoint.load(folder, spec.task)
        features = spec.features("dev", loaded.tokenizer)
        validate(spec.task, loaded, features, own, baseline, unfinished, folder / "logs", spec.seconds)

    depends_on = {
        "engines": key_at(own),
        "baseline": key_at(baseline),
        "seconds": spec.seconds,
        "code": code_version("optkit.evaluation.validation"),
    }
    step_cache.step(folder / "served", depends_on, make)
    if not recipe.is_baseline:
        validated(spec.baseline, spec)
    found = rows.rows_of(recipe, spec.task, spec.seed, folder, spec.folder(spec.baseline))
    rows.write(found, folder)
    return found
