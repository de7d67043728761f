"""The command line, as far as it answers before any work is done."""

import inspect
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from optkit.cli.app import app, main

HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "openvino",
    "onnxruntime",
    "modelopt",
    "accelerate",
    "sklearn",
    "jinja2",
    "numpy",
)
COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a command in an empty folder with one recipe; gives exit status, standard output and standard error."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "ptq_int8.py").write_text(
        'from optkit import Quantize, Recipe\n\nrecipe = Recipe(name="ptq_int8", stages=[Quantize()])\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    logger = logging.getLogger("optkit")
    before = logger.handlers, logger.level, logger.propagate

    def run_main(*arguments: str) -> tuple[int, str, str]:
        status = 0
        try:
            main(arguments)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1 if end.code else 0
        return (status, *capsys.readouterr())

    yield run_main
    logger.handlers, logger.level, logger.propagate = before


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["compare", "--help"], ["run"], ["--nonsense"]])
def test_an_answer_without_work_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom optkit.cli.app import main\n"
        f"try:\n    main({arguments!r})\nfinally:\n"
        f"    print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("heavy: []\n"), done.stdout[-200:] + done.stderr[-2000:]
    assert done.returncode == (0 if "--help" in arguments else 2)


def test_the_package_itself_imports_nothing_heavy() -> None:
    code = f"import sys, optkit, optkit.recipe.recipe; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_comparing_does_not_wait_for_torch() -> None:
    code = f"import sys, optkit.pipeline.rows, optkit.report.table; print([n for n in {HEAVY!r} if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "['numpy']\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_shows_an_example(command: str, run: Run) -> None:
    status, out, _ = run(command, "--help")
    assert status == 0
    assert f"Example: optkit {command}" in " ".join(out.split())


def test_the_help_names_all_commands(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0
    assert [command for command in COMMANDS if f"\n  {command} " not in out] == []
    assert {"run", "compare", "build", "publish", "serve"} <= set(COMMANDS)  # scripts rely on them


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "ptq_int8"], "Missing option '--task'"),
        (["run", "--task", "sample"], "Missing argument 'RECIPE…'"),
        (["load", "ptq_int8", "--task", "sample", "--seconds", "601"], "600"),  # queries are drawn beforehand, in memory
        (["run", "ptq_int8", "--tusk", "sample"], "No such option: --tusk"),
        (["run", "ptq_int8", "--task", "sample", "--seed", "one"], "Invalid value for '--seed': "),
        (["run", "ptq_int8", "--task", "sample", "--seed", "-1"], "seed"),
        (["search", "--task", "sample", "--seed", str(2**32)], "Invalid value for '--seed': "),
        (["run", "ptq_int8", "--task", "sample", "--limit-train", "many"], "Invalid value for '--limit-train': "),
        (["serve", "--port", "70000"], "Invalid value for '--port': "),
        (["serve", "--cache-mb", "-1"], "Invalid value for '--cache-mb': "),
        (["split", "rows.tsv", "--out", "out"], "Missing option '--by'"),
        (["rum"], "No such command 'rum'"),
    ],
)
def test_wrong_options(arguments: list[str], message: str, run: Run) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert message in err


def with_a_number(value: str) -> Iterator[list[str]]:
    """Command lines that lack nothing, each with one of the options that take a number."""
    for command in app.registered_commands:
        options = inspect.signature(command.callback).parameters if command.callback else {}
        needed = [name for name, option in options.items() if option.default is inspect.Parameter.empty]
        dashed = ("task", "by", "out", "keep", "url")
        words = [word for name in needed for word in ([f"--{name}"] if name in dashed else []) + ["1"]]
        for name, option in options.items():
            if "float" in str(option.annotation):
                yield [command.callback.__name__, *words, f"--{name.replace('_', '-')}", value]


@pytest.mark.parametrize("value", ["inf", "nan", "1e300"])
def test_a_number_that_one_cannot_compute_with_is_refused_by_every_option(value: str, run: Run) -> None:
    tried = list(with_a_number(value))
    assert len(tried) > 20 and ["load", "1", "--task", "1", "--seconds", value] in tried
    for arguments in tried:
        status, out, err = run(*arguments)
        assert (status, out) == (2, "") and f"Invalid value for '{arguments[-2]}'" in err, (arguments, err)
    assert not Path("checkpoints").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "ptq_int", "--task", "sample"], "recipe 'ptq_int': no file recipes/ptq_int.py; did you mean ptq_int8?"),
        (["run", "ptq_int8", "--task", "sst"], "task 'sst': no such task; expected one of sample, sample_multi_label"),
        (["run", "ptq_int8", "--task", "qa"], "task 'qa': no data"),
        (["run", "ptq_int8", "--task", "sample", "--limit-train", "0"], "limit on training rows: found 0"),
        (["run", "ptq_int8", "--task", "sample", "--engine", "tensorrtt"], "tensorrtt"),
        (["compare", "--task", "sample"], "task 'sample': no results in checkpoints/sample; first: optkit run RECIPE"),
        (["split", "rows.tsv", "--by", "word", "--out", "out"], "--by word: expected sentence or group"),
        (["split", "rows.tsv", "--by", "group", "--out", "out", "--dev", "1"], "--dev 1: expected a share between 0 and 1"),
        (["split", "rows.tsv", "--by", "group", "--out", "out"], "rows.tsv: found no such file"),
        (
            ["tune", "ptq_int8", "--task", "sample", "--clients", "501"],
            "501 clients: expected 1 to 500, as the server",
        ),
        (["compare", "--task", "sample", "--format", "xml"], "--format xml: expected one of table, json, csv, html"),
    ],
)
def test_wrong_input_is_said_in_one_line_without_a_traceback(arguments: list[str], message: str, run: Run) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"optkit: error: {message}") or (err.startswith("optkit: error: ") and message in err)
    assert "Traceback" not in err and not Path("checkpoints").exists()


def test_a_recipe_is_not_loaded_beside_itself(run: Run) -> None:
    status, _, err = run("load", "ptq_int8", "--task", "sample", "--beside", "recipes/ptq_int8.py")
    assert status == 2 and "--beside: found ptq_int8, recipes/ptq_int8.py, expected every recipe once" in err


def test_an_interruption_says_how_to_go_on(run: Run) -> None:
    (Path("recipes") / "slow.py").write_text("raise KeyboardInterrupt\n")
    status, out, err = run("run", "slow", "--task", "sample")
    assert (status, out) == (130, "")
    assert err == "optkit: interrupted (SIGINT); finished steps are kept, and the same command goes on from them\n"


def test_the_console_script_is_the_same(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("optkit")
    if not script.is_file():
        pytest.skip(f"no console script beside {sys.executable}: the package is not installed")
    done = subprocess.run([script, "run", "--tusk"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: optkit run [OPTIONS]") and "No such option: --tusk" in done.stderr
