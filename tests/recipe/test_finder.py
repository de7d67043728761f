"""Finding recipes: by name and by file, with every mistake said at once and its place given."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from optkit import Recipe, find_recipe
from optkit.core.errors import InputError
from optkit.recipe import finder
from optkit.recipe.stage import BASELINE

SHIPPED = Path(__file__).parents[2] / "recipes"
NAMES = {
    "baseline_fp32",
    "pq_ptq_int8",
    "ptq_int8",
    "qat_gelu10",
    "qat_mean",
    "qat_per_tensor",
    "sparse_2to4",
    "distill_6l",
    "distill_4l",
    "sparse_qat",
    "distill_6l_qat",
    "distill_6l_sparse_qat",
    "distill_4l_sparse_qat",
}
"""What scripts may rely on."""


def module(name: str, stages: str = "") -> str:
    return f'from optkit import Quantize, Recipe\n\nrecipe = Recipe(name="{name}", stages=[{stages}])\n'


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes modules in `recipes/` of the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()

    def write_all(**modules: str) -> None:
        for name, text in modules.items():
            (tmp_path / "recipes" / f"{name}.py").write_text(text)

    return write_all


def mistakes(*names: str) -> str:
    with pytest.raises(InputError) as error:
        finder.find(names)
    assert error.value.exit_status == 2
    return str(error.value)


def test_by_name_and_by_path(write: Callable[..., None], tmp_path: Path) -> None:
    write(one=module("one"), two=module("two"))
    (tmp_path / "elsewhere.py").write_text(module("three"))
    asked, known = finder.find(["two", "recipes/one.py", "elsewhere.py"])
    assert [recipe.name for recipe in asked] == ["two", "one", "three"]
    assert set(known) == {*NAMES, "one", "two", "three"}


def test_the_order_is_that_of_the_names_and_the_baseline_is_always_known(write: Callable[..., None]) -> None:
    write(a=module("a", "Quantize()"), baseline_fp32=module(BASELINE), z=module("z", "Quantize(epochs=1)"))
    asked, _ = finder.find(["z", "a", "baseline_fp32"])
    assert [recipe.name for recipe in asked] == ["z", "a", BASELINE]
    Path("recipes/baseline_fp32.py").unlink()
    asked, known = finder.find(["a"])
    assert [recipe.name for recipe in asked] == ["a"] and known[BASELINE].is_baseline


def test_the_source_of_a_technique_that_a_recipe_defines_is_found(write: Callable[..., None]) -> None:
    stage = "class Clip(Stage):\n    technique: Literal['clip'] = 'clip'\n    order: ClassVar[int] = 25\n"
    imports = "from typing import ClassVar, Literal\nfrom optkit import Recipe, Stage\n"
    apply = "    def apply(self, loaded, context):\n        return []\n"
    write(one=f"{imports}{stage}{apply}recipe = Recipe(name='one', stages=[Clip()])\n")
    (recipe,), _ = finder.find(["one"])
    assert sys.modules[recipe.modules[0]].__file__ == str(Path("recipes/one.py").absolute())


def test_one_recipe_asked_for_twice_is_found_once(write: Callable[..., None]) -> None:
    write(one=module("one"))
    asked, _ = finder.find(["one", "recipes/one.py", "one"])
    assert [recipe.name for recipe in asked] == ["one"]


def test_an_unknown_name_gets_a_suggestion(write: Callable[..., None]) -> None:
    write(qat_gelu10=module("qat_gelu10", "Quantize()"), ptq_int8=module("ptq_int8", "Quantize()"))
    assert mistakes("qat_gelu") == "recipe 'qat_gelu': no file recipes/qat_gelu.py; did you mean qat_gelu10?"
    assert mistakes("sparse_2t4").endswith("did you mean sparse_2to4?")
    both = f"known here: ptq_int8, qat_gelu10; in the package: {', '.join(sorted(NAMES))}"
    assert mistakes("zzz") == f"recipe 'zzz': no file recipes/zzz.py; {both}"


def test_without_a_folder_of_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert mistakes("one").startswith("recipe 'one': no file recipes/one.py; known here: none (recipes/ is empty); in the p")
    asked, known = finder.find(["sparse_qat"])
    assert [recipe.name for recipe in asked] == ["sparse_qat"] and set(known) == NAMES
    assert find_recipe("ptq_int8").has("quantize")


def test_a_recipe_of_ones_own_goes_before_the_package_s(write: Callable[..., None]) -> None:
    write(ptq_int8=module("ptq_int8", "Quantize(calibrator='entropy')"), taught=module("taught", "Quantize(epochs=1)"))
    asked, known = finder.find(["ptq_int8", "taught"])
    assert asked[0] == known["ptq_int8"] and asked[0].stages[0].calibrator == "entropy"
    shipped_one = find_recipe(str(SHIPPED / "ptq_int8.py"))
    assert shipped_one.stages[0].calibrator == "kl", "a path means the file itself"


def test_teachers_are_found_in_the_package_too(write: Callable[..., None]) -> None:
    write(small=module("small", "Quantize(epochs=1, teacher='distill_6l')"))
    asked, known = finder.find(["small"])
    assert asked[0].teachers == ("distill_6l",) and known["distill_6l"].has("distill")
    write(distill_6l="1 / 0\n")
    assert mistakes("small") == "recipes/distill_6l.py, line 1: ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipes = 3\n", "recipes/it.py: has no `recipe = Recipe(…)`; found NoneType"),
        ("recipe = 3\n", "recipes/it.py: has no `recipe = Recipe(…)`; found int"),
        ("import os\n\nx = 1 / 0\n", "recipes/it.py, line 3: ZeroDivisionError: division by zero"),
        ("def f():\n    return {}['key']\n\n\nf()\n", "recipes/it.py, line 2: KeyError: 'key'"),
        ("\n\nrecipe = Recipe(\n", "recipes/it.py, line 3: SyntaxError: '(' was never closed"),
        ("import nowhere_to_be_found\n", "recipes/it.py, line 1: ModuleNotFoundError: No module named"),
    ],
)
def test_a_broken_module_is_named_with_its_line(text: str, message: str, write: Callable[..., None]) -> None:
    write(it=text)
    assert mistakes("it").startswith(message)


def test_the_mistakes_of_all_files_are_reported_together(write: Callable[..., None]) -> None:
    write(none="", bad=module("bad", "Quantize(epochs=-1)"), boom="1 / 0\n")
    text = mistakes("none", "bad", "boom", "gone")
    assert "recipes/none.py: has no `recipe" in text
    assert "recipes/bad.py: recipe 'bad' has 1 mistake:\n  - Quantize.epochs is -1" in text
    assert "recipes/boom.py, line 1: ZeroDivisionError" in text
    assert "recipe 'gone': no file recipes/gone.py" in text
    assert text.count("gone.py") == 1


def test_unknown_teachers_of_all_recipes_are_reported_together(write: Callable[..., None]) -> None:
    write(a=module("a", "Quantize(epochs=1, teacher='nobody')"), b=module("b", "Quantize(epochs=1, teacher='b')"))
    text = mistakes("a", "b")
    assert "recipe 'a': teacher 'nobody' is not a recipe; known: a, b, baseline_fp32" in text
    assert "recipe 'b': it is its own teacher; expected another recipe, as baseline_fp32" in text


def test_a_folder_as_a_teacher_is_not_looked_for_among_the_recipes(write: Callable[..., None]) -> None:
    write(a=module("a", "Quantize(epochs=1, teacher='./big')"))
    asked, _ = finder.find(["a"])
    assert asked[0].teachers == ("./big",)


def test_a_broken_teacher_is_reported_with_its_own_mistake(write: Callable[..., None]) -> None:
    write(student=module("student", "Quantize(epochs=1, teacher='big')"), big=module("big", "Quantize(epochs=-1)"))
    assert "Quantize.epochs is -1" in mistakes("student")


def test_recipes_that_teach_each_other(write: Callable[..., None]) -> None:
    write(a=module("a", "Quantize(epochs=1, teacher='b')"), b=module("b", "Quantize(epochs=1, teacher='a')"))
    assert "a" in mistakes("a") and "teach" in mistakes("a")


def test_a_circle_of_teachers_is_named_once(write: Callable[..., None]) -> None:
    circle = {"a": "b", "b": "c", "c": "a"}
    write(**{name: module(name, f"Quantize(epochs=1, teacher='{teacher}')") for name, teacher in circle.items()})
    assert mistakes(*circle) == "recipes a, b, c teach each other; expected one of them to learn from another recipe"


def test_a_broken_baseline_is_not_replaced_by_another(write: Callable[..., None]) -> None:
    write(one=module("one", "Quantize()"), baseline_fp32="1 / 0\n")
    assert mistakes("one").startswith("recipes/baseline_fp32.py, line 1: ZeroDivisionError")


def test_one_file_in_two_spellings(write: Callable[..., None]) -> None:
    write(one=module("one"))
    asked, _ = finder.find(["one", str(Path("recipes/one.py").absolute())])
    assert len(asked) == 1


def test_two_recipes_of_one_name_would_share_a_folder(write: Callable[..., None]) -> None:
    write(one=module("same"), two=module("same", "Quantize()"))
    assert mistakes("one", "two").startswith("recipe 'same' stands in recipes/one.py and in recipes/two.py; expected each")


def test_a_broken_module_that_was_not_asked_for_does_not_matter(write: Callable[..., None]) -> None:
    write(one=module("one"), broken="1 / 0\n")
    _, known = finder.find(["one"])
    assert set(known) == {*NAMES, "one"}


def shipped(monkeypatch: pytest.MonkeyPatch) -> dict[str, Recipe]:
    """The recipes of the project by name, as a run of all of them finds them."""
    monkeypatch.chdir(SHIPPED.parent)
    asked, _ = finder.find([str(path) for path in sorted(SHIPPED.glob("*.py"))])
    return {recipe.name: recipe for recipe in asked}


def test_the_shipped_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shipped(monkeypatch)
    assert next(iter(found)) == BASELINE
    assert sorted(found) == sorted(path.stem for path in SHIPPED.glob("*.py"))
    assert set(found) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_shipped_recipe_is_what_its_name_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words, recipe = name.split("_"), shipped(monkeypatch)[name]
    stages = {stage.technique: stage for stage in recipe.stages}
    assert ("distill" in stages) is ("distill" in words)
    assert ("sparsify" in stages) is ("sparse" in words)
    assert ("product_quantize" in stages) is ("pq" in words)
    assert ("quantize" in stages) is bool({"qat", "ptq"} & set(words))
    if "distill" in stages:
        assert f"{stages['distill'].layers}l" in words
    if "quantize" in stages:
        assert bool(stages["quantize"].epochs) is ("qat" in words)
    if "gelu10" in words:
        assert stages["quantize"].gelu_clip == 10
    if "sparsify" in stages:
        assert stages["sparsify"].epochs > 0, "pruned and not trained again, a model forgets"
    assert set(recipe.teachers) <= {BASELINE, *(f"{BASELINE}@{seed}" for seed in range(2) if name == "qat_mean")}


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("distill_4l_sparse_qat", "distill_4l"),
        ("distill_6l_qat", "distill_6l"),
        ("distill_6l_sparse_qat", "distill_6l"),
        ("sparse_qat", "sparse_2to4"),
    ],
)
def test_shipped_recipes_share_what_they_begin_with(name: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = shipped(monkeypatch)
    assert found[name].stages[: len(found[prefix].stages)] == found[prefix].stages


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.py")), ids=lambda path: path.stem)
def test_a_shipped_recipe_is_one_screen_with_a_docstring_and_a_script(path: Path) -> None:
    text = path.read_text()
    assert text.startswith('"""') and "optkit.main(recipe)" in text
    assert len(text.splitlines()) <= 40
    assert f"python recipes/{path.name}" in text


def test_a_recipe_is_also_a_script(tmp_path: Path) -> None:
    script = [sys.executable, str(SHIPPED / "ptq_int8.py"), "--tusk", "sample"]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 2
    assert " run [OPTIONS] " in done.stderr and "No such option: --tusk" in done.stderr
