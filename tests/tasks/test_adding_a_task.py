"""The task of docs/adding-a-task.md, as it stands there: trained, exported, built, scored and answered in words."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from transformers import BertModel

from optkit import Distill, Quantize, Recipe
from optkit.core.errors import InputError
from optkit.core.json_door import read_json
from optkit.evaluation import parity
from optkit.evaluation.artifacts import STAGE_SCORES, read_scores
from optkit.evaluation.text_sample import write as write_text
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.build_engines import converted
from optkit.pipeline.steps.train import trained
from optkit.recipe.stage import BASELINE
from optkit.recipe.training import Training
from optkit.tasks import registry
from optkit.tasks.served import TextSettings

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[2] / "docs" / "adding-a-task.md"


@pytest.fixture(scope="module")
def loudness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The page's code as a module, and its task by name."""
    folder = tmp_path_factory.mktemp("package")
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (folder / "loudness.py").write_text(code)
    sys.path.insert(0, str(folder))
    module = importlib.import_module("loudness")
    registry.TASKS.register("loudness", module.Loudness)
    yield module
    registry.TASKS.forget("loudness")
    sys.path.remove(str(folder))
    del sys.modules["loudness"]


@pytest.fixture(scope="module")
def data(loudness, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny texts, of which those with a bad word count as loud."""
    folder = tmp_path_factory.mktemp("loudness")
    for split in ("train", "dev"):
        text = (tiny_data / f"{split}.tsv").read_text()
        (folder / f"{split}.tsv").write_text(text.replace("\tbad", "\tloud").replace("\tgood", "\tcalm"))
    return folder


@pytest.fixture(scope="module")
def spec(data: Path, tiny_config, tiny_tokenizer, tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    """A baseline, its INT8 and a student, with engines of ONNX Runtime."""
    folder = tmp_path_factory.mktemp("work")
    torch.manual_seed(0)
    BertModel(tiny_config).save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    training = Training(epochs=6, learning_rate=3e-3, batch_size=16, precision="fp32")
    stages = {BASELINE: [], "ptq_int8": [Quantize()], "student": [Distill(layers=1, representation_epochs=1, epochs=4)]}
    recipes = {name: Recipe(name=name, stages=own, training=training) for name, own in stages.items()}
    task = registry.load("loudness", data)
    return RunSpec(task, str(folder / "model"), 0, folder / "checkpoints", recipes, engines=("onnxruntime",), seconds=0.05)


@pytest.mark.parametrize("recipe", ["ptq_int8", "student"])
def test_recipes_train_it(recipe: str, spec: RunSpec) -> None:
    scores = read_scores(trained(spec.recipes[recipe], spec) / STAGE_SCORES)
    assert min(values.mean() for values in scores.values()) > 90


def test_an_engine_scores_and_answers_as_the_task_predicts(spec: RunSpec, tmp_path: Path) -> None:
    folder = converted(spec.recipes["ptq_int8"], spec)
    tokenizer = spec.start().tokenizer
    features = spec.task.encode("dev", tokenizer)
    logits = parity.at_engine(folder / "int8", features, spec.collator(tokenizer))
    (rung,) = parity.rungs(spec.task, features, {"engine": logits})
    assert rung.scores["accuracy"] > 90
    (chosen,) = (one for one in read_json(folder / "conversion.json")["candidates"] if one["chosen"])
    assert chosen["predictions"] > 0  # counted by `decisions`
    write_text(spec.task, tokenizer, {"int8": rung.predictions}, tmp_path)
    form = registry.form("loudness")
    answers = form.decode(form.answer(np.stack(logits), {}, TextSettings.read(tmp_path / "text")), ())
    of_row = dict(zip(features["example"], answers, strict=True))
    assert [str(of_row[row]) for row in sorted(of_row)] == [spec.task.shown(one) for one in rung.predictions]
    assert answers[0].shown() == f"{answers[0]} ({answers[0].probability:.3f})"


def test_wrong_data_is_named(data: Path, tmp_path: Path) -> None:
    for split in ("train", "dev"):
        (tmp_path / f"{split}.csv").write_text("text,label\na,loud\nb,quiet\n")
    with pytest.raises(InputError, match=r"train.csv, line 3: found the label 'quiet'; expected calm or loud"):
        registry.load("loudness", tmp_path)
