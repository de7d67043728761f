"""Going back to earlier data finds the finished work again, results and published names included."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerBase

from optkit.core.atomic import file_hash
from tests.conftest import main_ends

RUN = ["run", "ptq_int8", "--task", "classification", "--data", "reviews", "--model", "mini"]
OPTIONS = ["--engine", "onnxruntime", "--seconds", "0.05", "--epochs", "6", "--learning-rate", "3e-3", "--batch-size", "16"]


@pytest.fixture
def folder(
    tmp_path: Path,
    tiny_data: Path,
    tiny_config: BertConfig,
    tiny_tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A working directory with data in `reviews/` and a model without a head in `mini/`, and no recipes."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_data, tmp_path / "reviews")
    torch.manual_seed(0)
    BertModel(tiny_config).save_pretrained(tmp_path / "mini")
    tiny_tokenizer.save_pretrained(tmp_path / "mini")
    return tmp_path


@pytest.mark.server
def test_data_that_are_changed_and_changed_back(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Trained twice in all; graph, engines and scores come back too; the commands of 0.1 find the project by themselves."""
    data, place = folder / "reviews" / "train.tsv", folder / "checkpoints" / "classification" / "reviews-mini"
    first, weights, said = data.read_text(), [], []
    for text in (first, first + "a lovely film\tgood\n", first):
        data.write_text(text)
        main_ends([*RUN, *OPTIONS], 0)
        captured = capfd.readouterr()
        said.append(captured.err)
        assert f"project reviews-mini, in {place.relative_to(folder)}" in captured.err
        assert "reviews-mini (classification): accuracy and speed" in captured.out
        weights.append(file_hash(place / "baseline_fp32" / "seed-0" / "model.safetensors"))
    assert weights[0] == weights[2] != weights[1]
    made = [sum(what in text for what in (": training (", ": ONNX graph", ": engines", ": scoring")) for text in said]
    assert made == [4, 4, 0], said[2]
    assert "found again in .superseded" in said[2]
    main_ends(["compare", "--task", "classification", "--format", "json"], 0)
    assert {row["project"] for row in json.loads(capfd.readouterr().out)} == {"reviews-mini"}
    main_ends(["publish", "best", "--task", "classification"], 0)
    assert capfd.readouterr().out.startswith("model_repository/reviews-mini_")
    main_ends(["explain", "ptq_int8", "--task", "classification", "--data", "reviews"], 0)
    assert "ptq_int8 int8 (onnxruntime), reviews-mini (classification), seed 0" in capfd.readouterr().out
