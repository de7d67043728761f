"""The sample of tagging: its rows, and the whole way of its small model, from training to entities from a server."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import pipeline

from optkit import Distill, Quantize, Recipe
from optkit.core.errors import InputError
from optkit.evaluation.artifacts import STAGE_SCORES, read_scores
from optkit.evaluation.results import Row
from optkit.pipeline.publish import publish
from optkit.pipeline.remote_validation import Target, validate
from optkit.pipeline.run import run
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.train import trained
from optkit.recipe.stage import BASELINE
from optkit.report.explain import explain
from optkit.serving.server import Server
from optkit.serving.text_client import TextClient
from optkit.tasks import sample, sample_token_classification
from optkit.tasks.data.sample_grammar import Claim, Clause, Pair
from optkit.tasks.entities import Entities
from optkit.tasks.outcomes import value
from optkit.tasks.registry import load

NAME = "sample_token_classification"
MODEL = f"{NAME}_ptq_int8"
SHA256 = "31ff79aa85646519467cdd1e2b0ebec21d0212465dc353c1399dd40678135752"
"""SHA-256 of the rows; it changes with them."""
EXAMPLE = Path(__file__).parents[2] / "examples" / "token_classification.py"
TEXT = "The polite cook denied that the soup was not very good, but the critic said that the wine was awful."
LONG = f"{TEXT} " * 20
FOUND = ["polite cook", "not very good", "critic", "awful"]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    """A baseline, its INT8 and a student, with engines of ONNX Runtime."""
    stages = {
        BASELINE: [],
        "ptq_int8": [Quantize(calibrator="mse")],
        "student": [Distill(layers=2, representation_epochs=0, epochs=1)],
    }
    recipes = {name: Recipe(name=name, stages=own, max_drop=5) for name, own in stages.items()}
    root = tmp_path_factory.mktemp("checkpoints")
    return RunSpec(load(NAME), None, 0, root, recipes, engines=("onnxruntime",), seconds=0.05)


@pytest.fixture(scope="module")
def row(spec: RunSpec) -> Row:
    (row,) = run(spec.recipes["ptq_int8"], spec)
    return row


@pytest.fixture(scope="module")
def repository(spec: RunSpec, row: Row, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which the INT8 engine is published."""
    root = tmp_path_factory.mktemp("repository")
    publish(row.recipe, NAME, spec.root, root)
    return root


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(repository, tmp_path_factory.mktemp("logs"), [MODEL, f"{MODEL}_text"]) as server:
        yield server


def test_words_of_a_sentence_with_their_tags() -> None:
    claim = Claim("lying", "cook", "denied", Clause("soup", "not very", "good"))
    tagged = [*sample_token_classification.tagged(Pair(claim, "even if", Clause("bar", "", "plain"), comma=True))]
    assert (
        " ".join(word for word, _ in tagged)
        == "the lying cook denied that the soup was not very good , even if the bar was plain"
    )
    tags = ["O", "B-speaker", "I-speaker", *["O"] * 5, "B-blame", "I-blame", "I-blame", *["O"] * 6, "B-neutral"]
    assert [tag for _, tag in tagged] == tags


def test_rows_are_pinned_and_disjoint() -> None:
    task = load(NAME)
    rows = {split: task.examples(split).to_dict() for split in ("train", "dev")}
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest() == SHA256
    assert not set(rows["train"]["text"]) & set(rows["dev"]["text"])
    encoded = sample.tokenizer()(rows["train"]["text"])["input_ids"]
    assert max(map(len, encoded)) <= sample.MAX_LENGTH
    with pytest.raises(InputError, match="but the sample ships with the package"):
        load(NAME, "folder")


@pytest.mark.slow
def test_a_teacher_and_its_student_are_trained(spec: RunSpec) -> None:
    scores = read_scores(trained(spec.recipes["student"], spec) / STAGE_SCORES)
    assert value(scores[BASELINE], "f1") > 80 and value(scores["distill"], "f1") > 60


@pytest.mark.slow
@pytest.mark.server
def test_transformers_own_pipeline_finds_the_same_in_the_checkpoint(spec: RunSpec) -> None:
    tagger = pipeline("token-classification", str(trained(spec.baseline, spec)), aggregation_strategy="first")
    found = tagger(TEXT)
    assert [TEXT[one["start"] : one["end"]] for one in found] == FOUND
    assert [one["entity_group"] for one in found] == ["speaker", "blame", "speaker", "blame"]


@pytest.mark.slow
@pytest.mark.server
def test_the_int8_engine_passes_its_gate(spec: RunSpec, row: Row) -> None:
    assert (row.verdict, row.metric, row.precision) == ("pass", "f1", "int8"), row.reasons
    assert row.value > 80 and set(row.scores) >= {"f1", "precision", "recall", "macro_f1", "f1_speaker"}
    said = explain("ptq_int8", NAME, spec.root)
    assert "entities: " in said and " [speaker]" in said and "server: " in said


@pytest.mark.slow
@pytest.mark.server
def test_entities_come_from_the_server(server: Server) -> None:
    with TextClient(server.url, MODEL) as client:
        first, nothing, long = client.ask([(TEXT,), ("the",), (f"{TEXT} " * 20,)])
    assert isinstance(first, Entities) and isinstance(long, Entities)
    assert [one.text for one in first.found] == FOUND and [TEXT[one.start : one.end] for one in first.found] == FOUND
    assert first.found[0].type == first.found[2].type == "speaker" and first.found[3].type == "blame"
    assert str(nothing) == "no entities"
    assert all(one.text == LONG[one.start : one.end] for one in long.found)
    assert len(long.found) > 20 and long.found[-1].end > 19 * len(TEXT)  # through some thirty windows


@pytest.mark.slow
@pytest.mark.server
def test_the_example_asks_with_nvidias_client_alone(server: Server) -> None:
    command = [sys.executable, "-I", str(EXAMPLE), MODEL, TEXT, "the", "--url", server.url]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0] == TEXT and lines[-1] == "the"
    assert [line.split("\t")[-1] for line in lines[1:-1]] == FOUND


@pytest.mark.slow
@pytest.mark.server
def test_a_running_server_is_validated(spec: RunSpec, server: Server) -> None:
    found = validate("ptq_int8", spec.task, spec.root, Target(server.url))
    assert found.verdict == "pass" and found.value == pytest.approx(found.rungs["server"])
    with pytest.raises(
        InputError, match=r"scored with pieces=first, found pieces=all\. Give the same: --task-option pieces=first"
    ):
        validate("ptq_int8", load(NAME, options={"pieces": "all"}), spec.root, Target(server.url))
