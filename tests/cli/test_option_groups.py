"""Groups of options: the command line has them one by one, the command gets their value."""

import pytest
import typer
from typer.testing import CliRunner

from optkit.cli.option_groups import on_data
from optkit.cli.options import TaskName
from optkit.core.errors import InputError
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
