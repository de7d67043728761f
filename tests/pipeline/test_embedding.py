"""Embeddings the whole way: the sample from training to a published model that is asked; and prompts through a server."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoTokenizer

import optkit
from optkit.compression import checkpoint
from optkit.core.errors import InputError
from optkit.evaluation.artifacts import TEXT
from optkit.evaluation.results import Row
from optkit.evaluation.through_server import model_config
from optkit.models.loading import inference
from optkit.pipeline import library_folder
from optkit.pipeline.ask import answer
from optkit.pipeline.publish import publish
from optkit.pipeline.run import run
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.build_engines import converted
from optkit.pipeline.steps.score import scored
from optkit.recipe.finder import find
from optkit.recipe.recipe import Recipe
from optkit.report.explain import explain
from optkit.serving import ensemble, repository
from optkit.serving.server import Server
from optkit.tasks import sentence_folder
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.registry import load, of_settings
from optkit.tasks.vectors import cosines
from tests.tasks.sentence_models import sentence_model

pytestmark = [pytest.mark.slow, pytest.mark.server]
EXAMPLE = Path(__file__).parents[2] / "examples" / "embedding.py"


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    (_,), known = find(["ptq_int8"])
    return RunSpec(load("sample_embedding"), None, 0, tmp_path_factory.mktemp("checkpoints"), known, ("onnxruntime",), 0.2)


@pytest.fixture(scope="module")
def row(spec: RunSpec) -> Row:
    (found,) = run(spec.recipes["ptq_int8"], spec)
    return found


@pytest.fixture(scope="module")
def published(spec: RunSpec, row: Row, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("repository")
    publish("ptq_int8", "sample_embedding", spec.root, target)
    return target


def test_int8_is_judged_beside_the_vectors_of_the_baseline(row: Row, spec: RunSpec) -> None:
    assert row.verdict == "pass" and row.metric == "ndcg@10" and row.value > 70 and row.examples == 150
    assert 99 < row.scores["cosine_mean"] < 100 and 90 < row.scores["cosine_worst"] <= row.scores["cosine_mean"]
    assert 0 <= row.scores["top1_changed"] <= 40 and row.scores["top1_changed"] <= row.scores["top10_changed"] + 40
    assert set(row.ladder) == {"float", "pytorch", "graph", "engine", "server"}
    told = explain("ptq_int8", "sample_embedding", spec.root, most=2)
    assert f"cosine_worst {row.scores['cosine_worst']:.2f}, top1_changed" in told
    assert "query: " in told and "relevant: [" in told and "moved by" in told and len(told) < 8000


def test_a_published_model_finds_what_is_alike(published: Path, tmp_path: Path) -> None:
    name = "sample_embedding_ptq_int8"
    with Server(published, tmp_path / "logs", [name, ensemble.pipeline(name)]) as server:
        assert answer(name, ["great soup"], server.url).startswith("a vector of 64 dimensions (float32, length 1.000): ")
        queries = optkit.encode(["great soup", "awful soup"], name, server.url)
        reviews = ["the soup was superb", "the soup was terrible", "the film was superb"]
        near = queries @ optkit.encode(reviews * 30, name, server.url).T
        assert near.shape == (2, 90) and near[0, 0] > near[0, 2] and near[1, 1] > near[1, 2]
        assert np.allclose(near[:, :3], near[:, -3:], atol=0.05)
        command = [sys.executable, str(EXAMPLE), name, "great soup", *reviews, "--http", server.url]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert sorted(line[7:] for line in done.stdout.splitlines()) == sorted(reviews)
        assert done.stdout.splitlines()[-1].endswith("the film was superb")
        with pytest.raises(InputError, match="found 2 texts, expected 1: text"):
            optkit.encode(["great soup"], name, server.url, prompt="query")


def test_a_folder_for_sentence_transformers_gives_the_same_vectors(spec: RunSpec, row: Row, tmp_path: Path) -> None:
    """The pooling is the library's; its backends themselves are tried by `make test-libraries`."""
    recipe, target, flavour = spec.recipes["ptq_int8"], tmp_path / "folder", "sentence-transformers"
    library_folder.check(flavour, target)
    assert library_folder.write(recipe, spec, flavour, target).startswith(f'SentenceTransformer("{target}", backend=')
    with pytest.raises(InputError, match="exists and is not empty"):
        library_folder.check(flavour, target)
    found = sentence_folder.read(target)
    assert found is not None and (found.pooling, found.normalize, found.max_length) == ("cls", False, 48)
    texts = ["the soup was superb", "great soup"]
    feed = dict(AutoTokenizer.from_pretrained(target)(texts, padding=True, return_tensors="np"))
    session = onnxruntime.InferenceSession(str(target / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])
    wanted = {tensor.name: feed[tensor.name] for tensor in session.get_inputs()}
    (tokens,) = session.run(["last_hidden_state"], wanted)
    features = {"token_embeddings": torch.from_numpy(tokens), "attention_mask": torch.from_numpy(feed["attention_mask"])}
    pooled = Pooling.load(str(target), subfolder="1_Pooling")(features)["sentence_embedding"].numpy()
    loaded = checkpoint.load(spec.folder(recipe), spec.task)
    assert cosines(pooled, inference(loaded.model, spec.task)(feed)).min() > 0.98


@pytest.mark.parametrize("kind", ["float32", "int8", "binary"])
def test_prompts_and_kinds_of_vectors_are_served(kind: str, tmp_path: Path) -> None:
    prompts = {"query": "query : ", "document": "passage : "}
    folder = sentence_model(tmp_path / "model", prompts=prompts)
    pairs = "query,positive\n" + "\n".join(f"{one} cat,the {one} dog" for one in ("red", "blue", "a", "on", "ran", "sat"))
    for split in ("train", "dev"):
        (tmp_path / f"{split}.csv").write_text(pairs)
    task = of_settings("embedding", DataSettings(str(tmp_path), options={"vectors": kind}))
    known = {"baseline_fp32": Recipe(name="baseline_fp32")}
    spec = RunSpec(task, str(folder), 0, tmp_path / "checkpoints", known, ("onnxruntime",), 0.1)
    served, engine = scored(spec.baseline, spec) / TEXT, converted(spec.baseline, spec) / "fp32"
    root, loaded = tmp_path / "models", spec.start()
    config = model_config("cats", engine, loaded, task, 24, task.shape_of_logits(spec.folder(spec.baseline)))
    repository.place(root, engine, config)
    ensemble.stage(root, served, "cats", config)
    theirs = SentenceTransformer(str(folder), device="cpu")
    texts = ["the cat sat on the mat", "a dog"]
    with Server(root, tmp_path / "logs", [ensemble.pipeline("cats")]) as server:
        for prompt, encode in (("query", theirs.encode_query), ("document", theirs.encode_document), (None, theirs.encode)):
            expected, found = encode(texts), optkit.encode(texts, "cats", server.url, prompt)
            if kind == "float32":
                assert found.dtype == np.float32 and np.allclose(found, expected, atol=1e-5)
            elif kind == "int8":
                assert (
                    found.dtype == np.int8
                    and np.abs(found - 127 * expected / np.abs(expected).max(1, keepdims=True)).max() <= 0.51
                )
            else:
                assert found.dtype == np.uint8 and np.array_equal(found, np.packbits(expected > 0, axis=1))
        with pytest.raises(InputError, match="prompt: found 'other', expected one of"):
            optkit.encode(texts, "cats", server.url, "other")
