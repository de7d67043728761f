"""Publishing: an engine that passed its gate becomes the next version of a model in a model repository."""

from pathlib import Path

from optkit.errors import GateError, InputError
from optkit.report import rows
from optkit.results import Row
from optkit.serving import repository
from optkit.serving.config import ModelConfig
from optkit.store import read_json, verify
from optkit.validation.evidence import EVIDENCE


def publish(recipe: str, task: str, root: Path, target: Path, seed: int = 0, precision: str | None = None) -> Path:
    """Place a recipe's engine as the next version of the model `<task>_<recipe>`.

    Args:
        recipe: its name.
        task: it was run on.
        root: the folder `checkpoints/`.
        target: the model repository.
        seed: whose engine.
        precision: of the engine; needed where the recipe has several.

    Returns:
        The version's folder.

    Raises:
        InputError: the recipe has no current result, or several precisions, or its files have changed.
        GateError: the engine did not pass its gate; the message has the reasons.
        MachineError: the repository cannot be written.
    """
    row = _row(recipe, task, root, seed, precision)
    if row.verdict != "pass":
        raise GateError(f"{recipe} ({row.precision}) is not published: {row.verdict}: {'; '.join(row.reasons)}")
    folder = root / task / recipe / f"seed-{seed}"
    verify(folder / "engines")
    config = ModelConfig(**_config(folder, row.precision) | {"name": f"{task}_{recipe}"})
    version = max(repository.models(target).get(config.name, (0,)), default=0) + 1
    return repository.place(target, folder / "engines" / row.precision, config, version)


def _row(recipe: str, task: str, root: Path, seed: int, precision: str | None) -> Row:
    chosen = rows.of_recipe(recipe, task, root, seed, precision)
    if len(chosen) != 1:
        precisions = ", ".join(row.precision for row in chosen)
        raise InputError(f"recipe {recipe!r} has engines in {precisions}; name one with --precision")
    return chosen[0]


def _config(folder: Path, precision: str) -> dict:
    config = read_json(folder / "served" / EVIDENCE)["configs"][precision]
    return {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
