"""The project keeps its own rules: lint, types, docstrings, short files, and nothing that runs what it is given."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "optkit").rglob("*.py"))
CHECKED = [name for name in ("optkit", "recipes", "tests", "benchmarks", "examples") if (ROOT / name).is_dir()]
LONGEST = 300
FORBIDDEN_CALLS = {"eval", "exec", "breakpoint", "__import__"}
FORBIDDEN_IMPORTS = {"pickle", "dill", "cloudpickle", "joblib", "pdb"}
FORBIDDEN_SETTINGS = {"trust_remote_code", "allow_pickle", "shell"}
SLOW_IMPORTS = {"torch", "transformers", "datasets", "openvino", "onnxruntime", "modelopt", "tensorrt", "accelerate"}
LIGHT = (
    "optkit.cli.app",
    "optkit.report.table",
    "optkit.compression.registry",
    "optkit.engines.registry",
    "optkit.tasks.registry",
)
"""What answers at once: `--help`, `compare`, a recipe's own lines."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parsed(pattern: str = "") -> Iterator[tuple[Path, ast.Module]]:
    """The package's files with their trees, of those alone whose text has a pattern: most have nothing to be looked at."""
    for path in PACKAGE:
        if re.search(pattern, text := path.read_text()):
            yield path, ast.parse(text)


def test_ruff() -> None:
    ruff = shutil.which("ruff", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if ruff is None:
        pytest.skip("ruff is missing: pip install -e '.[test]'")
    done = subprocess.run([ruff, "check", *CHECKED], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_mypy() -> None:
    if find_spec("mypy") is None:
        pytest.skip("mypy is missing: pip install -e '.[test]'")
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_class_and_function_that_is_public_says_what_it_is() -> None:
    silent = []
    for path, module in parsed():
        if path.stat().st_size and not ast.get_docstring(module):
            silent.append(name_of(path))
        for node in module.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                silent.append(f"{name_of(path)}:{node.lineno}: {node.name}")
    assert silent == []


def test_files_are_short() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in PACKAGE}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_asserts_are_only_for_the_type_checker() -> None:
    found = []
    for path, module in parsed("assert"):
        for node in ast.walk(module):
            if isinstance(node, ast.Assert) and not ast.unparse(node.test).endswith(" is not None"):
                found.append(f"{name_of(path)}:{node.lineno}")
    assert found == []


def test_nothing_runs_what_it_is_given() -> None:
    found = []
    for path, module in parsed("|".join([*FORBIDDEN_CALLS, *FORBIDDEN_IMPORTS, *FORBIDDEN_SETTINGS])):
        for node in ast.walk(module):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS
            trusted = isinstance(node, ast.keyword) and node.arg in FORBIDDEN_SETTINGS
            if called or (trusted and not (isinstance(node.value, ast.Constant) and node.value.value is False)):
                found.append(f"{name_of(path)}:{node.lineno}")
            if imported(node) & FORBIDDEN_IMPORTS:
                found.append(f"{name_of(path)}:{node.lineno}")
    assert found == []


def test_what_answers_at_once_imports_no_heavy_packages() -> None:
    code = (
        f"import optkit, sys, {', '.join(LIGHT)}; optkit.Recipe(name='r', stages=[optkit.Quantize()]); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "optkit.cli.app" in loaded
    assert not SLOW_IMPORTS & loaded


def bare(source: str) -> list[int]:
    """Lines of texts that begin with "Of", and so leave the reader to guess what the thing is."""
    if not re.search(r"[\"']\\?\s*Of ", source):
        return []  # nothing to be taken apart
    texts = (
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    )
    return [node.lineno for node in texts if str(ast.literal_eval(node.value)).lstrip().startswith("Of ")]


def test_docstrings_say_what_the_thing_is() -> None:
    assert bare('EPOCHS = 1\n"""Of the training."""\nSIZE = 2\n"""Rows, of either split."""\n') == [2]
    files = [path for folder in CHECKED for path in sorted((ROOT / folder).rglob("*.py"))]
    assert [f"{name_of(path)}:{line}" for path in files for line in bare(path.read_text())] == []


def test_links_between_documents_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    links = [(path, link) for path in documents for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())]
    assert len(links) > 20
    assert [f"{path.name}: {link}" for path, link in links if not (path.parent / link).exists()] == []


def imported(node: ast.AST) -> set[str]:
    """Top-level packages that a statement imports."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {node.module.partition(".")[0]}
    return set()
