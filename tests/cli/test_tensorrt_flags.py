"""The flags of version 0.1 are options of TensorRT's builds, and of nothing else."""

import inspect

import pytest
import typer

from optkit.cli.options import BuildOption, Engines
from optkit.cli.tensorrt_flags import with_flags
from optkit.core.errors import InputError
from tests.conftest import main_ends


@pytest.fixture
def told():
    """`(*arguments) -> option`, what a command with the flags is told by its command line."""
    app, found = typer.Typer(add_completion=False), []

    @app.command()
    @with_flags
    def build(engine: Engines = None, option: BuildOption = None) -> None:
        found.append(option)

    def run(*arguments):
        app(args=[*arguments, "--engine", "tensorrt"], standalone_mode=False)
        return found.pop()

    return run


def test_a_flag_is_an_option(told):
    assert told() == []
    assert told("--batch", "1,8,64", "--sequence=1,64,128", "--workspace-mb", "512", "--option", "tf32=true") == [
        "tf32=true", "batch=1,8,64", "sequence=1,64,128", "workspace_mb=512"
    ]  # fmt: skip
    assert told("--sparse", "--refit", "--version-compatible") == ["sparse=True", "refit=True", "version_compatible=True"]
    assert told("--no-sparse", "--variant", "bf16", "--hardware", "none", "--optimization-level", "5") == [
        "variant=bf16", "sparse=False", "hardware=none", "optimization_level=5"
    ]  # fmt: skip


def test_flags_are_checked_and_not_shown(capsys):
    main_ends(["build", "ptq_int8", "--task", "sample", "--workspace-mb", "much"], 2)
    assert "Invalid value for '--workspace-mb'" in capsys.readouterr().err
    main_ends(["build", "--help"], 0)
    shown = capsys.readouterr().out
    assert "--option KEY=VALUE" in shown and "--workspace-mb" not in shown and "workspace_mb" in shown


def test_flags_without_tensorrt_are_refused():
    with pytest.raises(InputError, match="options of TensorRT were given without it: add --engine tensorrt"):
        with_flags(lambda engine, option: None)(**flags(refit=True), engine=["openvino"], option=None)


def flags(**given):
    """All flags, those that are not named not given."""
    command = with_flags(lambda: None)
    return dict.fromkeys(inspect.signature(command).parameters) | given


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["sparse"], "--option sparse: expected KEY=VALUE"),
        (
            ["threads=2"],
            "--option threads: no engine that is built knows it; there are tensorrt: batch, sequence, workspace",
        ),
        (["batch=1,8"], "--batch 1,8: expected three numbers, such as 1,8,64"),
        (
            ["refit=maybe", "workspace_mb=x"],
            "build options of the tensorrt engine:\n  workspace_mb: found 'x': input should",
        ),
    ],
)
def test_options_are_checked_before_anything_is_done(options, message, capsys):
    told = [part for option in options for part in ("--option", option)]
    main_ends(["build", "nobody", "--task", "sample", "--engine", "tensorrt", *told], 2)
    assert message in capsys.readouterr().err


def test_options_of_no_engine_name_the_engines_that_have_none(capsys):
    main_ends(["build", "nobody", "--task", "sample", "--engine", "openvino", "--option", "batch=1,8,64"], 2)
    assert "--option batch: no engine that is built knows it; there are openvino: no options" in capsys.readouterr().err
