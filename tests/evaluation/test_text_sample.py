"""What a server needs to answer in words: the names that it answers with are the model's own."""

import json
from pathlib import Path

from optkit.evaluation import text_sample
from optkit.evaluation.artifacts import TEXT, TEXT_SAMPLE
from optkit.models.loading import LoadedModel
from optkit.tasks.base import Task
from optkit.tasks.served import TextSettings


def test_the_names_of_classes_are_the_models_own(tiny_model: LoadedModel, tiny_task: Task, tmp_path: Path) -> None:
    text_sample.write(tiny_task, tiny_model.tokenizer, {"fp32": [1, 0] * 32}, tmp_path, ["BAD", "GOOD"])
    assert TextSettings.read(tmp_path / TEXT).labels == ("BAD", "GOOD")
    assert json.loads((tmp_path / TEXT_SAMPLE).read_text())["answers"]["fp32"] == ["GOOD", "BAD"] * 8
