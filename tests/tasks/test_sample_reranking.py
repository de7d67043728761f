"""The sample of reranking: the same rows everywhere, and its whole way to an answer in words."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from optkit.core.errors import InputError
from optkit.tasks import registry, sample
from optkit.tasks.sample_reranking import DOCUMENTS, QUERIES, model_config

SHA256 = {
    "train": "0eca636c0ab0376d593f4feb0feb91717de649dec5932b1b76abe7329fa702bc",
    "dev": "844c582d049cfd6592173b95154b518f087d410640b5e81d01d4aff3b372ed7c",
}
"""SHA-256 of the rows by split."""
EXAMPLE = Path(__file__).parents[2] / "examples" / "reranking.py"


def test_rows_are_the_same_everywhere_and_splits_share_no_search() -> None:
    task = registry.load("sample_reranking")
    rows = {split: task.examples(split).to_list() for split in SHA256}
    assert {split: len(own) for split, own in rows.items()} == {split: DOCUMENTS * QUERIES[split] for split in rows}
    found = {split: hashlib.sha256(json.dumps(own).encode()).hexdigest() for split, own in rows.items()}
    assert found == SHA256
    assert not {row["query"] for row in rows["train"]} & {row["query"] for row in rows["dev"]}
    assert {row["label"] for row in rows["dev"]} == {0, 1, 2}
    words = sample.tokenizer()
    assert not any(words.unk_token_id in words(row["query"], row["document"])["input_ids"] for row in rows["train"])
    assert model_config().num_labels == 1 and model_config().vocab_size == len(words)


def test_it_takes_no_data_of_the_users_own() -> None:
    with pytest.raises(
        InputError, match=r"the sample ships with the package\. Fix: leave --data out, or use --task reranking"
    ):
        registry.load("sample_reranking", "folder")
    with pytest.raises(InputError, match="takes no --text-column x"):
        registry.load("sample_reranking", text_column="x")


@pytest.mark.slow
@pytest.mark.server
def test_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained, quantised, judged through the server, explained, published, asked in words and by NVIDIA's client alone."""
    from sentence_transformers import CrossEncoder

    from optkit import Distill, Quantize, Recipe, evaluate, load_model
    from optkit.cli.app import main
    from optkit.pipeline import publish
    from optkit.pipeline.run import run
    from optkit.pipeline.run_spec import RunSpec
    from optkit.registry import layout
    from optkit.report.explain import explain
    from optkit.serving import ensemble
    from optkit.serving.server import Server

    stages = {"baseline_fp32": [], "ptq_int8": [Quantize(calibrator="mse")]}
    stages["student"] = [Distill(layers=2, representation_epochs=0.5, epochs=1, label_weight=0.0)]
    recipes = {name: Recipe(name=name, stages=own, max_drop=10) for name, own in stages.items()}
    task = registry.load("sample_reranking")
    spec = RunSpec(task, None, 0, tmp_path / "checkpoints", recipes, ("onnxruntime",), seconds=0.05)
    baseline, quantised, student = (run(recipe, spec)[0] for recipe in recipes.values())
    assert baseline.examples == QUERIES["dev"] and baseline.metric == "ndcg@10" and baseline.value > 80
    assert (baseline.verdict, quantised.verdict) == ("pass", "pass")
    assert quantised.delta_ci95[0] <= quantised.delta <= quantised.delta_ci95[1]
    assert quantised.scores.keys() == {"ndcg@10", "mrr@10", "map", "recall@10"}
    assert student.value > 75  # by the teacher's margins alone
    told = " ".join(explain("ptq_int8", task.name, spec.root).split())
    assert "on 100 queries" in told and "document: " in told and " of 10)" in told

    # sentence-transformers loads the checkpoint as it is, and scores alike.
    pairs = [(row["query"], row["document"]) for row in task.examples("dev").select(range(20))]
    theirs = CrossEncoder(str(spec.folder(spec.baseline))).predict(pairs)
    ours = evaluate(load_model(str(spec.folder(spec.baseline)), task), task).predictions[:20]
    assert theirs.tolist() == pytest.approx([float(task.shown(one)) for one in ours], abs=1e-3)

    repository = tmp_path / "models"
    publish.publish("ptq_int8", task.name, spec.root, repository)
    name = "sample_reranking_ptq_int8"
    names = [name, ensemble.pipeline(name)]
    assert layout.find(repository, name).name == name
    asked = ["superb soup", "the soup was dull", "the soup was very good"]
    with Server(repository, tmp_path / "logs", names) as server:
        with pytest.raises(SystemExit):
            main(["ask", name, asked[0], "--context", asked[1], "--context", asked[2], "--url", server.url])
        lines = capsys.readouterr().out.splitlines()
        arguments = [sys.executable, str(EXAMPLE), name, *asked, "--url", server.url]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert [line.split("  ")[1] for line in lines] == [asked[2], asked[1]] and lines[0].startswith("1. 0.")
    assert [line.split("  ")[1] for line in done.stdout.splitlines()] == [asked[2], asked[1]]
