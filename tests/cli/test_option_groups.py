"""Groups of options: the command line has them one by one, the command gets their value."""

import pytest
import typer
from typer.testing import CliRunner

from optkit.cli.option_groups import on_data, on_model
from optkit.cli.options import TaskName
from optkit.core.errors import InputError
from optkit.models.model_settings import ModelSettings
from optkit.recipe.training import Training
from optkit.tasks.data.data_settings import DataSettings


def test_a_command_gets_the_value_of_a_group() -> None:
    got = []

    def command(task: TaskName, data: DataSettings, training: Training) -> None:
        got.append((task, data, training))

    app = typer.Typer()
    app.command()(on_data(command))
    given = ["--task", "t", "--data", "d", "--limit-train", "7", "--epochs", "0.5"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert got == [("t", DataSettings("d", 7), Training(epochs=0.5))]


def test_a_wrong_value_is_refused_when_the_group_is_made() -> None:
    app = typer.Typer()
    app.command()(on_data(lambda data, training: None))
    result = CliRunner().invoke(app, ["--limit-train", "0"])
    assert isinstance(result.exception, InputError)
    with pytest.raises(InputError, match=r"Training\.epochs is -1"):
        raise CliRunner().invoke(app, ["--epochs", "-1"]).exception  # type: ignore[misc]
    with pytest.raises(InputError, match=r"Training has epochs=1 and steps=5: expected one of them"):
        raise CliRunner().invoke(app, ["--epochs", "1", "--steps", "5"]).exception  # type: ignore[misc]


def test_choices_of_a_task_are_told_by_name() -> None:
    got = []

    def command(data: DataSettings, training: Training) -> None:
        got.append(data)

    app = typer.Typer()
    app.command()(on_data(command))
    result = CliRunner().invoke(app, ["--task-option", "pieces=all", "--task-option", "other=a=b"])
    assert result.exit_code == 0, result.output
    assert got == [DataSettings(options={"pieces": "all", "other": "a=b"})]
    with pytest.raises(InputError, match=r"--task-option pieces: expected KEY=VALUE"):
        raise CliRunner().invoke(app, ["--task-option", "pieces"]).exception  # type: ignore[misc]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [("a,b c, d", ("a", "b c", "d")), ('["a, b", "c"]', ("a, b", "c")), ("[", None)],
)
def test_what_is_said_about_a_model(labels: str, expected: tuple[str, ...] | None) -> None:
    got = []

    def command(model: ModelSettings) -> None:
        got.append(model)

    app = typer.Typer()
    app.command()(on_model(command))
    result = CliRunner().invoke(app, ["--model", "m", "--revision", "v1", "--labels", labels])
    if expected is None:
        assert isinstance(result.exception, InputError)
    else:
        assert got == [ModelSettings("m", "v1", expected)]
