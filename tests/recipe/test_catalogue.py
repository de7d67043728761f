"""The list of recipes, copies to change, and that an installed package brings all that it needs."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from optkit.cli.app import main
from optkit.core.errors import InputError
from optkit.recipe import catalogue, finder
from tests.conftest import main_ends

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path.stem for path in (ROOT / "recipes").glob("*.py"))


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    main_ends(["recipes", "--format", "json"], 0)
    return {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}


def test_the_package_s_recipes_are_listed_with_what_they_do(capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys)
    assert sorted(found) == SHIPPED and {entry["source"] for entry in found.values()} == {"package"}
    both = found["sparse_qat"]
    assert both["stages"] == ["sparsify", "quantize"]
    assert both["does"] == "2:4 sparsity, then INT8 by quantization-aware training with the mask fixed."
    assert Path(str(both["path"])).read_text() == (ROOT / "recipes" / "sparse_qat.py").read_text()
    main_ends(["recipes"], 0)
    table = capsys.readouterr().out
    assert "sparsify → quantize" in table and all(f"\n {name} " in table for name in SHIPPED)


def test_a_recipe_that_is_copied_and_changed_goes_before_the_package_s(
    empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main_ends(["recipes", "copy", "qat_gelu10"], 0)
    assert capsys.readouterr().out == "recipes/qat_gelu10.py\n"
    copied = empty / "recipes" / "qat_gelu10.py"
    assert copied.read_text() == (ROOT / "recipes" / "qat_gelu10.py").read_text()
    copied.write_text(copied.read_text().replace("epochs=1", "epochs=2"))
    assert finder.find_recipe("qat_gelu10").stages[0].epochs == 2
    assert listed(capsys)["qat_gelu10"]["source"] == "recipes"
    main_ends(["recipes", "copy", "qat_gelu10"], 2)
    assert "recipes/qat_gelu10.py: exists already and is not overwritten" in capsys.readouterr().err
    assert "epochs=2" in copied.read_text()


def test_a_recipe_with_a_mistake_is_named_and_the_others_are_listed(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (empty / "recipes").mkdir()
    (empty / "recipes" / "mine.py").write_text(
        "from optkit import Recipe\n\nrecipe = Recipe(name='mine', description='Mine.')\n"
    )
    (empty / "recipes" / "broken.py").write_text("1 / 0\n")
    main_ends(["recipes", "--format", "json"], 0)
    out, err = capsys.readouterr()
    found = {entry["name"]: entry for entry in json.loads(out)}
    assert set(found) == {*SHIPPED, "mine"} and found["mine"]["does"] == "Mine."
    assert "left out: recipes/broken.py, line 1: ZeroDivisionError" in err


@pytest.mark.parametrize("name", ["ptq_int", "../ptq_int8", "recipes/ptq_int8.py", ""])
def test_only_a_recipe_of_the_package_is_copied(name: str, empty: Path) -> None:
    with pytest.raises(InputError, match=r"not in the package; (did you mean ptq_int8\?|known here: none)"):
        catalogue.copy(name)
    assert list(empty.iterdir()) == []


def test_a_format_that_there_is_not() -> None:
    with pytest.raises(SystemExit) as end:
        main(["recipes", "--format", "xml"])
    assert end.value.code == 2


@pytest.mark.slow
def test_a_wheel_has_the_recipes_and_every_file_of_the_package(empty: Path) -> None:
    """Built from a copy of the source, installed by unpacking: a recipe resolves outside the repository."""
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", ".*", "checkpoints", "tests")
    source = shutil.copytree(ROOT, empty / "source", ignore=left_out)
    build = "from setuptools import build_meta; build_meta.build_wheel('dist'); build_meta.build_sdist('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,), (sdist,) = (source / "dist").glob("*.whl"), (source / "dist").glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(empty / "installed")
    own = {path.relative_to(source).as_posix() for path in (source / "optkit").rglob("*") if path.is_file()}
    assert own <= names
    assert {f"optkit/recipe/shipped/{name}.py" for name in SHIPPED} <= names
    shutil.unpack_archive(sdist, empty / "sdist", filter="data")
    (unpacked,) = (empty / "sdist").iterdir()
    assert {path.stem for path in (unpacked / "recipes").glob("*.py")} == set(SHIPPED) and (unpacked / "setup.py").is_file()
    code = "import optkit; print(optkit.find_recipe('sparse_qat').name, optkit.__file__)"
    shutil.rmtree(source)
    isolated = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(empty / 'installed')!r}); {code}"]
    done = subprocess.run(isolated, cwd=empty, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["sparse_qat", str(empty / "installed" / "optkit" / "__init__.py")]
