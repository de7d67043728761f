"""The commands that look for what to run: what each module costs, and the best recipe within a budget."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optkit.cli.benchmarks import OneRecipe
from optkit.cli.measuring import measuring
from optkit.cli.option_groups import on_cluster, on_data, on_model
from optkit.cli.options import LARGEST_SEED, Checkpoints, Engines, Name, Out, Seed, TaskName, specs_of
from optkit.cli.search_options import (
    check_picture,
    draw_costs,
    draw_front,
    made_for,
    models_of,
    options_of,
    project_names,
    seconds_of,
)
from optkit.models.model_settings import ModelSettings
from optkit.pipeline.cluster_settings import ClusterSettings
from optkit.tasks.data.data_settings import DataSettings

if TYPE_CHECKING:
    from optkit.recipe.training import Training


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(on_data(on_model(sensitivity)))
    app.command()(on_cluster(on_data(search)))


def sensitivity(
    recipe: OneRecipe,
    task: TaskName,
    data: DataSettings,
    training: "Training",
    model: ModelSettings,
    examples: Annotated[int, typer.Option(help="training examples to compare answers on", min=1)] = 256,
    speed: Annotated[
        bool, typer.Option(help="estimate, with two engines, what leaving a module float costs in time")
    ] = True,
    form: Annotated[str, typer.Option("--format", help="table, json or csv", metavar="FORMAT")] = "table",
    out: Out = None,
    plot: Annotated[Path | None, typer.Option(help="also draw it into this file: .png or .svg", metavar="FILE")] = None,
    engine: Engines = None,
    name: Name = None,
    seed: Seed = 0,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> None:
    """Print what each Linear module, and each layer, costs when it alone is INT8, or 2:4.

    The cost is how far the answers to training examples move from those of the model before; no labels are needed. Quantize
    and Sparsify leave what costs most as it is with keep_float="auto" and keep_dense="auto".

    Example: optkit sensitivity ptq_int8 --task sample --plot sensitivity.png
    """
    from optkit.core.atomic import write_text
    from optkit.core.errors import InputError
    from optkit.engines import registry as engines
    from optkit.pipeline import module_costs, preflight

    if form not in module_costs.FORMATS:
        raise InputError(f"--format {form}: expected one of {', '.join(module_costs.FORMATS)}")
    check_picture(plot)
    for kind in engine or ():
        engines.require_running(kind)
    for path in (out, plot):
        if path is not None and not path.absolute().parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}")
    (spec,), (asked,) = specs_of([recipe], task, data, model, training, [seed], engine, checkpoints, name=name)
    preflight.require([asked], spec)
    found = module_costs.measure(asked, spec, examples, speed)
    if plot is not None:
        draw_costs(found, plot)
    text = module_costs.render(found, form)
    if out is None:
        sys.stdout.write(text)
    else:
        write_text(out, text)


def search(
    task: TaskName,
    data: DataSettings,
    training: "Training",
    cluster: ClusterSettings,
    model: Annotated[
        list[str] | None,
        typer.Option(help="hub name or folder of a model to start from; may be repeated, the first is the reference"),
    ] = None,
    goal: Annotated[
        str, typer.Option(help="latency@1, latency@8, latency@32, throughput or size", metavar="GOAL")
    ] = "latency@1",
    max_drop: Annotated[float, typer.Option(help="budget: points that may be lost against the reference", min=0)] = 1.0,
    p99_ms: Annotated[
        float | None, typer.Option("--p99-ms", help="budget: 99th percentile of the served latency", min=0.1)
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="trials, those of earlier runs among them [default: 24, without --time]", min=1)
    ] = None,
    time: Annotated[str | None, typer.Option(help="how long to try, as 90s, 30m or 2h; finalists come after it")] = None,
    space: Annotated[Path | None, typer.Option(help="JSON file with what to choose from", metavar="FILE")] = None,
    sampler: Annotated[str, typer.Option(help="tpe, nsga2 or random", metavar="NAME")] = "tpe",
    trial_share: Annotated[float, typer.Option(help="share of train that trials are trained on", min=0.001, max=1)] = 0.25,
    finalists: Annotated[int, typer.Option(help="recipes to train in full and serve", min=1)] = 3,
    out: Annotated[Path, typer.Option(help="folder for recipes, report and picture", metavar="DIR")] = Path("search"),
    engine: Engines = None,
    name: Name = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            help="seed of the finalists, the first of the draws too; may be repeated [default: 0 and 1]",
            min=0,
            max=LARGEST_SEED,
        ),
    ] = None,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> None:
    """Find the best recipe within a budget: try recipes on a part of the data, run the best in full, print them ranked.

    It is chosen on one half of dev and reported on the other, which the search never sees. A second run goes on where the
    first ended; on a cluster several trials run side by side. The front is written as recipe files that optkit run repeats.
    Exit status 1: nothing is within the budget.

    Example: optkit search --task sample --goal latency@32 --max-drop 0.5 --trials 12
    """
    from optkit.core.printable import say
    from optkit.pipeline import search_run, search_space, search_study
    from optkit.pipeline.search_goal import Goal
    from optkit.recipe.training import Training
    from optkit.report import search_report

    wanted, models = Goal.of(goal, max_drop, p99_ms), models_of(model or ())
    seconds = None if time is None else seconds_of(time)
    budget = search_study.Budget(24 if trials is None and time is None else trials, seconds)
    seeds = list(dict.fromkeys(seed or [0, 1]))
    chosen = search_space.read(space or search_space.DEFAULT)
    named = tuple(one or "the task's own model" for one in models)
    plan = search_run.Plan(named, wanted, chosen, budget, sampler, seeds[0], finalists, out)
    projects = list(zip(models, project_names(name, len(models)), strict=True))
    options = [options_of(task, data, training, one, seeds, engine, own, checkpoints) for one, own in projects]
    with ExitStack() as stack:
        on, root = stack.enter_context(measuring(engine or (), cluster)), cluster.seen(checkpoints)
        whole, place, specs = made_for(task, data, training, models, seeds, engine, root, name, trial_share)
        nodes = stack.enter_context(on(chosen.modules, whole(0, ())[0][0]))
        found = search_run.run(plan, specs, whole, options, place, nodes)
    sys.stdout.write(search_report.render(found))
    draw_front(found, out / "front.png")
    say(f"{out / search_run.REPORT} has all of it, {out / 'front.png'} the picture")
    best = found.finals[0]
    if best.verdict(best.chosen, max_drop) == "fail":
        raise typer.Exit(1)
    if best.file is not None:
        one, own = projects[named.index(best.model)]
        engine_of = f"--precision {best.row.precision}"
        tuned = options_of(task, data, training, one, seeds[:1], engine, own, checkpoints)
        published = options_of(task, DataSettings(data.source), Training(), one, seeds[:1], None, own, checkpoints)
        aim = f"--goal {'throughput' if goal == 'throughput' else 'latency'}" + (f" --p99-ms {p99_ms:g}" if p99_ms else "")
        say(f"next: optkit tune {best.file} {tuned} {engine_of} {aim}")
        say(f"      optkit publish {best.recipe} {published} {engine_of}")
