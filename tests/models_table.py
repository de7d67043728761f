"""The table of `docs/models.md`: which technique and which engine go with which family of models.

`make models` runs it: every recipe that applies to a family's tiny model goes through `run`, one of them through `publish`
and `ask` too, and the table is written anew. `tests/test_models_table.py` compares what can be told in seconds with it.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from optkit.compression.distill import Distill
from optkit.compression.quantize import Quantize
from optkit.compression.sparsify import Sparsify
from optkit.core.atomic import write_text
from optkit.core.errors import InputError, OptkitError
from optkit.core.json_door import read_json
from optkit.pipeline import preflight
from optkit.pipeline.ask import answer
from optkit.pipeline.publish import publish
from optkit.pipeline.run import run_all
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.build_engines import converted
from optkit.pipeline.steps.build_plans import planned
from optkit.pipeline.steps.export_graph import exported
from optkit.recipe.recipe import Recipe
from optkit.recipe.stage import BASELINE
from optkit.recipe.training import Training
from optkit.tasks import registry
from optkit.tasks.base import Task
from tests.tiny_families import FAMILIES, write_data

DOCUMENT = Path(__file__).parents[1] / "docs" / "models.md"
TRAINING = Training(epochs=4, learning_rate=3e-3, batch_size=16, precision="fp32")
DISTILL = {"representation_epochs": 1, "epochs": 1}
QAT = Quantize(calibrator="mse", epochs=0.5, learning_rate=1e-4)
CLIPPED = Quantize(calibrator="mse", epochs=0.5, learning_rate=1e-4, gelu_clip=10.0)
SPARSE = Sparsify(representation_epochs=1, epochs=1)
STAGES = {
    "baseline": (BASELINE, ()),
    "PTQ": ("ptq_int8", (Quantize(calibrator="mse"),)),
    "QAT": ("qat", (QAT,)),
    "QAT, GELU clipped": ("qat_gelu10", (CLIPPED,)),
    "2:4": ("sparse_2to4", (SPARSE,)),
    "2:4 + QAT": ("sparse_qat", (SPARSE, QAT)),
    "fewer layers": ("distill_2l", (Distill(layers=2, **DISTILL),)),
    "narrower": ("distill_narrow", (Distill(hidden_size=16, **DISTILL),)),
    "fewer layers + 2:4 + QAT": ("distill_2l_sparse_qat", (Distill(layers=2, **DISTILL), SPARSE, QAT)),
}
"""Techniques by the column's heading: the recipe's name and its stages."""
RECIPES = {
    title: Recipe(name=name, stages=stages, training=TRAINING, max_drop=100) for title, (name, stages) in STAGES.items()
}
ENGINES = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino", "TensorRT": "tensorrt"}
YES, UNKNOWN = "yes", "?"
Cells = Mapping[str, str]
"""A family's cells by heading: YES, precisions of engines, UNKNOWN engines, or in one sentence why not."""


def spec_of(folder: Path, family: str, task: Task) -> RunSpec:
    """Make a family's tiny model in a folder, and say what is run on it."""
    model = FAMILIES[family].write(folder / family)
    known = {recipe.name: recipe for recipe in RECIPES.values()}
    return RunSpec(task, str(model), 0, folder / f"{family}-checkpoints", known, seconds=0.01)


def techniques(spec: RunSpec) -> dict[str, str]:
    """Return the cells of the techniques, as they are known before any training."""
    try:
        start = spec.architecture()
        preflight.check_model(start, spec)
    except InputError as error:
        return dict.fromkeys(RECIPES, sentence(error, spec))
    reasons = preflight.why_not([*RECIPES.values()], start, spec)
    return {title: sentence(reasons.get(recipe.name, YES), spec) for title, recipe in RECIPES.items()}


def sentence(told: object, spec: RunSpec) -> str:
    """Return a reason in one line, without what is only of this run."""
    return str(told).splitlines()[0].replace(f"--model {spec.model}: ", "")


def row_of(folder: Path, family: str, task: Task) -> dict[str, str]:
    """Take a family's tiny model through everything that applies to it; return its cells."""
    spec = spec_of(folder, family, task)
    cells = techniques(spec)
    recipes = [recipe for title, recipe in RECIPES.items() if cells[title] == YES]
    if not recipes:
        return cells | dict.fromkeys(ENGINES, cells["baseline"])
    for recipe in recipes:
        exported(recipe, spec)
    cells |= {title: engines(spec, recipes[:2], kind) for title, kind in ENGINES.items()}
    run_publish_ask(recipes[-1], replace(spec, engines=("onnxruntime",)), folder / f"{family}-repository")
    return cells


def run_publish_ask(recipe: Recipe, spec: RunSpec, repository: Path) -> None:
    """Take a recipe all the way, publish its engine, and ask that about a text as those that it was trained on."""
    rows = run_all([recipe], [spec])
    assert "fail" not in {row.verdict for row in rows}, rows
    precision = "int8" if recipe.is_quantised else "fp32"
    version = publish(recipe.name, spec.task.name, spec.root, repository, precision=precision)
    said = answer(version.parent.name, ["the awful film"], "", repository)
    assert said.split()[0] == "bad", said


def engines(spec: RunSpec, recipes: Sequence[Recipe], kind: str) -> str:
    """Return the precisions in which engines of a kind agree with the graphs; TensorRT's are built and not compared."""
    found: dict[str, None] = {}
    for recipe in recipes:
        offline = kind == "tensorrt"
        folder = planned(recipe, spec, kind) if offline else converted(recipe, replace(spec, engines=(kind,)))
        for candidate in read_json(folder / "conversion.json")["candidates"]:
            if offline or not candidate["refusal"]:
                found[candidate["precision"]] = None
    return ", ".join(found)


HEAD = """\
# Models

Which techniques and engines go with which family of encoders. `optkit doctor --model MODEL` says the same of your model, in
seconds.

`make models` writes this table: every recipe that applies trains a tiny random model of each family and exports it; baseline
and PTQ become engines of each kind; the last recipe goes through `optkit run`, is published and asked a question.
`tests/test_models_table.py` compares the columns of techniques with what optkit says before training. The columns of engines
have the precisions that were built and agree with the graph; TensorRT's plans are built without a GPU, and not run. "?" is
what no run has told yet.
"""


def render(table: Mapping[str, Cells]) -> str:
    """Return the document of a table, {family: its cells}."""
    titles, notes = [*RECIPES, *ENGINES], dict[str, int]()
    lines = [f"| family | {' | '.join(titles)} |", "| --- " * (1 + len(titles)) + "|"]
    for family, cells in table.items():
        shown = [_cell(cells[title], notes) for title in titles]
        lines.append(f"| {family} | {' | '.join(shown)} |")
    footnotes = [f"[^{number}]: {reason}" for reason, number in notes.items()]
    return "\n".join([HEAD, *lines, "", *footnotes, ""])


def _cell(cell: str, notes: dict[str, int]) -> str:
    """Return what a cell shows, a reason as the number of its footnote."""
    if cell in (YES, UNKNOWN) or all(len(word) == 4 for word in cell.split(", ")):
        return cell
    return f"no[^{notes.setdefault(cell, len(notes) + 1)}]"


def read() -> dict[str, dict[str, str]]:
    """Return the table of the document, {family: its cells}."""
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    notes = {f"no{mark}": reason for mark, _, reason in (line.partition(": ") for line in lines if line.startswith("[^"))}
    (_, *titles), _, *rows = (line.strip("| ").split(" | ") for line in lines if line.startswith("|"))
    return {
        family: {title: notes.get(cell, cell) for title, cell in zip(titles, cells, strict=True)} for family, *cells in rows
    }


def main(families: list[str]) -> int:
    """Run families, all by default, and write their rows; returns the exit status."""
    table, failed = read() if families else {}, []
    with tempfile.TemporaryDirectory(prefix="optkit-models-") as scratch:
        (Path(scratch) / "data").mkdir()
        task = registry.load("classification", write_data(Path(scratch) / "data"))
        for family in families or FAMILIES:
            try:
                table[family] = row_of(Path(scratch), family, task)
            except (OptkitError, AssertionError) as error:
                failed.append(family)
                print(f"{family}: {type(error).__name__}: {error}", file=sys.stderr)
    if failed:
        print(f"docs/models.md stays as it is: {', '.join(failed)} failed", file=sys.stderr)
        return 1
    write_text(DOCUMENT, render({family: table[family] for family in FAMILIES if family in table}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
