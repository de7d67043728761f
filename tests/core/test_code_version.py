"""The version of code follows what the code imports, and nothing that changes no behaviour."""

import subprocess
import sys
from pathlib import Path

import pytest

from optkit.core.code_version import closure, code_version

MODULES = {
    "__init__": "",
    "step": '"""A step."""\nfrom toy.inner import used\n\n\ndef step():\n    from toy import lazy\n',
    "used": "VALUE = 1\n",
    "lazy": "import toy.deep\n",
    "deep": "DEEP = 1\n",
    "unused": "VALUE = 1\n",
    "typed": "VALUE = 1\n",
    "inner/__init__": "from ..used import VALUE\n",
    "inner/used": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from toy import typed\nfrom .. import used\n",
}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A package with a step and modules that it imports at once, lazily, through others, or not at all."""
    for name, text in MODULES.items():
        path = tmp_path / "toy" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def version(folder: Path, expression: str = "code_version('toy.step')") -> str:
    """What a fresh process says."""
    code = f"from optkit.core.code_version import *; print({expression})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={"PYTHONPATH": f"{folder}:."},
    )
    return done.stdout.strip()


CELL = """
FACTOR = 2

class Scale:
    offset = 1
    def apply(self, x):
        "Scale it."
        return x * FACTOR + self.offset
"""


@pytest.mark.parametrize(
    ("old", "new"), [("* FACTOR", "+ FACTOR"), ("FACTOR = 2", "FACTOR = 3"), ("offset = 1", "offset = 2")]
)
def test_code_of_a_notebook_counts_though_it_lies_in_no_file(old: str, new: str, toy: Path) -> None:
    expression = "code_version('__main__') + str(exec({!r}, globals()) or '') + code_version('__main__')"
    first, again, other = (version(toy, expression.format(text)) for text in (CELL, "\n\n" + CELL, CELL.replace(old, new)))
    assert first == again, "where it stands does not count"
    assert first[64:] != other[64:]
    assert first[:64] == other[:64], "before the cell has run it is not there"


def test_the_closure_is_what_is_imported_wherever_the_statement_stands(toy: Path) -> None:
    expected = ["toy.deep", "toy.inner", "toy.inner.used", "toy.lazy", "toy.step", "toy.used"]
    found = version(toy, "' '.join(sorted(closure('toy.step')))").split()
    assert found == expected


@pytest.mark.parametrize("name", ["step", "used", "lazy", "deep", "inner/__init__", "inner/used"])
def test_a_change_in_what_a_step_imports_is_another_version(name: str, toy: Path) -> None:
    before = version(toy)
    path = toy / "toy" / f"{name}.py"
    path.write_text(path.read_text() + "CHANGED = 1\n")
    assert version(toy) != before


@pytest.mark.parametrize("name", ["unused", "typed"])
def test_a_change_elsewhere_is_not(name: str, toy: Path) -> None:
    before = version(toy)
    (toy / "toy" / f"{name}.py").write_text("CHANGED = 1\n")
    assert version(toy) == before


def test_what_another_package_imports_of_optkit_counts_too(toy: Path) -> None:
    (toy / "toy" / "step.py").write_text("def step():\n    from optkit.graph import passes\n")
    assert {"toy.step", "optkit.graph.passes"} <= set(version(toy, "' '.join(closure('toy.step'))").split())


def test_a_script_has_a_version_too(toy: Path) -> None:
    found = []
    for value in (1, 1, 2):
        text = f"from optkit.core.code_version import code_version\nVALUE = {value}\nprint(code_version('__main__'))\n"
        (toy / "script.py").write_text(text)
        done = subprocess.run([sys.executable, toy / "script.py"], capture_output=True, text=True, check=True)
        found.append(done.stdout)
    assert found[0] == found[1] != found[2]


def test_comments_docstrings_and_layout_do_not_count(toy: Path) -> None:
    before = version(toy)
    (toy / "toy" / "step.py").write_text(
        '"""Says it otherwise."""\n# a comment\nfrom toy.inner import (\n    used,\n)\n\n\ndef step():\n    """Does."""\n'
        "    from toy import lazy\n"
    )
    assert version(toy) == before


def test_a_script_counts_and_a_session_without_a_file_does_not_break(tmp_path: Path) -> None:
    code, said = "from optkit.core.code_version import code_version; print(code_version('__main__'))", []
    for number, text in enumerate((code, f"one = 1\n{code}")):
        (tmp_path / f"{number}.py").write_text(text)
        said.append(subprocess.run([sys.executable, tmp_path / f"{number}.py"], capture_output=True, check=True).stdout)
    said.append(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert len(set(said)) == 3


def test_nothing_is_imported_to_find_it_out() -> None:
    code = (
        "import sys; from optkit.core.code_version import code_version; code_version('optkit.pipeline.steps.train'); "
        "print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("step", "within", "without"),
    [
        ("train", "optkit.pipeline.teachers", "optkit.graph.export"),
        ("train", "optkit.pipeline.run_spec", "optkit.evaluation.gate"),
        ("export_graph", "optkit.graph.passes", "optkit.engines.select"),
        ("build_engines", "optkit.serving.native", "optkit.evaluation.parity"),
        ("score", "optkit.evaluation.parity", "optkit.report.html"),
    ],
)
def test_a_steps_closure_holds_what_computes_it(step: str, within: str, without: str) -> None:
    found = closure(f"optkit.pipeline.steps.{step}")
    assert within in found and without not in found


def test_versions_do_not_depend_on_the_order_of_names() -> None:
    names = ("optkit.graph.export", "optkit.recipe.recipe")
    assert code_version(*names) == code_version(*reversed(names)) != code_version(names[0])
