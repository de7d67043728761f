"""Folders of a recipe's graph in the hands of the libraries that they are for, in an environment of their own.

sentence-transformers' backends need optimum, which has no release for the transformers that optkit trains with.
"""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pytest import TempPathFactory
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from optkit.compression import checkpoint
from optkit.core.errors import InputError
from optkit.models.loading import inference
from optkit.pipeline import library_folder
from optkit.pipeline.run_spec import RunSpec
from optkit.recipe.finder import find
from optkit.tasks.registry import load
from tests.pipeline import library_loader

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-libraries" / "bin" / "python"
needs_libraries = pytest.mark.skipif(not PYTHON.exists(), reason="no other libraries here: make test-libraries")
LOADED = {
    "sample": ["optimum"],
    "sample_multi_label": ["optimum"],
    "sample_token_classification": ["optimum"],
    "sample_reranking": ["optimum", "sentence-transformers"],
    "sample_embedding": ["sentence-transformers"],
}


def _spec(task: str, root: Path) -> RunSpec:
    (_,), known = find(["baseline_fp32"])
    return RunSpec(load(task), None, 0, root, known, ("onnxruntime",), 0.2)


def _expected(spec: RunSpec, flavour: str) -> list[np.ndarray]:
    """What PyTorch gives for the loader's texts; scores of pairs as a `CrossEncoder` has them, between 0 and 1."""
    loaded = checkpoint.load(spec.folder(spec.baseline), spec.task)
    first, pairs = library_loader.TEXTS[0], spec.task.library_classes[flavour] == "CrossEncoder"
    texts = [(first, text) if pairs else (text,) for text in library_loader.TEXTS]
    logits = [inference(loaded.model, spec.task)(dict(loaded.tokenizer(*one, return_tensors="np"))) for one in texts]
    return [1 / (1 + np.exp(-one)) if pairs else one for one in logits]


@needs_libraries
@pytest.mark.slow
@pytest.mark.parametrize("task", LOADED)
def test_the_libraries_answer_as_the_model_does(task: str, tmp_path_factory: TempPathFactory) -> None:
    spec = _spec(task, tmp_path_factory.mktemp("checkpoints"))
    assert set(spec.task.library_classes) == set(LOADED[task])
    for flavour, name in spec.task.library_classes.items():
        target = tmp_path_factory.mktemp("folders") / flavour
        line = library_folder.write(spec.baseline, spec, flavour, target)
        assert name in line and str(target) in line
        for backend in ("onnx", "openvino"):
            command = [PYTHON, library_loader.__file__, name, backend, str(target)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env={"HF_HUB_OFFLINE": "1"})
            found = json.loads(done.stdout.splitlines()[-1])
            for one, wanted in zip(found, _expected(spec, flavour), strict=True):
                assert np.abs(np.array(one) - wanted.flatten()).max() < 0.1, (flavour, backend)  # OpenVINO may take bf16


def test_a_tokenizer_of_no_class_of_its_own_has_a_name_that_older_libraries_know(tmp_path: Path) -> None:
    whole = Tokenizer(WordLevel({"a": 0, "[UNK]": 1}, "[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=whole).save_pretrained(tmp_path)
    library_folder.name_tokenizer(tmp_path / "tokenizer_config.json")
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert AutoTokenizer.from_pretrained(tmp_path)("a")["input_ids"] == [0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target": None}, "needs a folder"),
        ({"kinds": ["openvino"]}, "--engine openvino: a folder of the flavour optimum holds the graph"),
        ({"container": "26.07"}, "--container 26.07: a folder"),
    ],
)
def test_what_a_folder_cannot_have_is_refused(given: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        library_folder.check("optimum", **{"target": tmp_path / "new", **given})


def test_a_task_without_a_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no class for the task 'sample_qa'; no library loads its folders"):
        library_folder.check_task("optimum", _spec("sample_qa", tmp_path))
