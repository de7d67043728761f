"""Embedding: rows of every kind, features, predictions, metrics, doubts, what is served, and training on a tiny model."""

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from datasets import Dataset

from optkit.compression.distill import Distill
from optkit.compression.quantize import Quantize
from optkit.compression.student import student
from optkit.core.errors import GateError, InputError
from optkit.evaluation.bootstrap import paired_bootstrap
from optkit.models.loading import LoadedModel
from optkit.pipeline import preflight
from optkit.pipeline.run_spec import RunSpec
from optkit.recipe.recipe import Recipe
from optkit.tasks.base import Task
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.embedding import Embedding
from optkit.tasks.embedding_rows import DOCUMENT, FIRST, NEGATIVE, SECOND, Evaluated
from optkit.tasks.registry import load, of_settings
from optkit.tasks.sentence_folder import SETTINGS

from .sentence_models import encoder, sentence_model

SCORED = "sentence1,sentence2,score\na,b,5\nc,d,0\ne,f,2.5\na,c,1\n"
PAIRS = "query,positive,negative\na,b,c\nd,e,b\na,f,e\n"
Write = Callable[..., Path]


def collection(write: Write, **more: str) -> Path:
    folder = write(
        {
            "corpus.jsonl": '{"_id": "x", "title": "b", "text": "c"}\n{"_id": "y", "text": "d"}\n{"_id": "z", "text": "e"}',
            "queries.jsonl": '{"_id": "1", "text": "a"}\n{"_id": "2", "text": "f"}\n{"_id": "3", "text": "g"}\n',
        }
        | more
    )
    (folder / "qrels").mkdir()
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\n1\tx\t1\n1\ty\t0\n2\tz\t2\n")
    return folder


def rotated(angles: list[float]) -> list[np.ndarray]:
    return [np.array([np.cos(angle), np.sin(angle)], np.float32) for angle in angles]


def test_pairs_with_scores(write: Write, tokenizer) -> None:
    task = load("embedding", write({"train.csv": SCORED, "dev.csv": SCORED}))
    assert task.metric == "spearman" and task.labelled
    assert task.examples("dev")["score"][:] == [1.0, 0.0, 0.5, 0.2]
    features = task.encode("dev", tokenizer)
    assert features["role"][:] == [FIRST, SECOND] * 4 and features["example"][:] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert features["text"][:] == [0, 1, 2, 3, 4, 5, 0, 2]
    logits = rotated([0, 0.1, 0, 1.5, 0, 1.0, 0, 1.2])
    order = [7, 2, 0, 5, 1, 3, 6, 4]
    predictions = task.predict(features.select(order), [logits[place] for place in order])
    assert [one.value for one in predictions] == pytest.approx(np.cos([0.1, 1.5, 1.0, 1.2]), abs=1e-6)
    scores = task.score(predictions)
    assert scores["spearman"] == pytest.approx(100.0)
    expected = scipy.stats.pearsonr([1, 0, 0.5, 0.2], np.cos([0.1, 1.5, 1.0, 1.2]))[0]
    assert scores["pearson"] == pytest.approx(100 * expected, abs=1e-4)
    assert task.shown(predictions[0]) == "0.9950" and task.same(predictions[0], predictions[1])
    assert task.requests(2) == [("a", ""), ("c", "")]
    assert task.shown_as(predictions[1], ()) == "float32 1 0"
    assert task.kept(predictions)["vectors"].shape == (8, 2)
    with pytest.raises(GateError, match="found NaN or infinity"):
        task.predict(features, [np.array([np.nan, 1.0])] * 8)


def test_vectors_are_compared_by_dot_products_where_their_model_says_so(write: Write, tokenizer) -> None:
    own = copy.deepcopy(tokenizer)
    own.init_kwargs[SETTINGS] = {"similarity": "dot"}
    task = load("embedding", write({"train.csv": SCORED, "dev.csv": SCORED}))
    predictions = task.predict(task.encode("dev", own), [np.array([2.0, 0.0]), np.array([3.0, 1.0])] * 4)
    assert [one.value for one in predictions] == [6.0] * 4


def test_queries_find_documents_of_pairs(write: Write, tokenizer) -> None:
    task = load("embedding", write({"train.csv": PAIRS, "dev.csv": PAIRS}))
    assert task.metric == "ndcg@10" and task.metrics[0] == "ndcg@10"
    train = task.encode("train", tokenizer)
    assert train["role"][:] == [FIRST, SECOND, NEGATIVE] * 3 and np.isnan(train["score"][:]).all()
    features = task.encode("dev", tokenizer)
    assert features["role"][:] == [FIRST] * 2 + [DOCUMENT] * 4 and features["example"][:] == [0, 1, -1, -1, -1, -1]
    assert task.readable(task.examples("dev")[0]) == {"query": "a", "relevant": ["0: b", "2: f"]}
    predictions = task.predict(features, rotated([0, 1.5, 0.1, 1.4, 0.8, 1.0]))
    assert [list(one.scores) for one in predictions] == [["0", "2", "3", "1"], ["1", "3", "2", "0"]]
    assert task.score(predictions) == pytest.approx(dict.fromkeys(task.metrics, 100.0) | {"recall@1": 75.0})
    worse = task.predict(features, rotated([0, 1.5, 0.1, 0.2, 0.8, 1.4]))
    gains = 1 / np.log2(np.arange(2, 6))
    first = (gains[0] + gains[2]) / (gains[0] + gains[1])  # its own documents stand at the first and the third place
    assert task.score(worse)["ndcg@10"] == pytest.approx(50 * (first + gains[2]))
    assert task.same(predictions[0], worse[0]) and not task.same(predictions[1], worse[1])
    assert task.shown(predictions[0]).startswith("0 (0.995) b; 2 (0.697) f; 3 (0.540) c")
    beside = task.beside(task.kept(worse), task.kept(predictions))
    assert beside["top1_changed"] == 50.0 and beside["top10_changed"] == 0.0
    assert beside["cosine_worst"] == pytest.approx(100 * np.cos(1.2), abs=1e-3)
    assert task.requests(9) == [("a", "query"), ("d", "query")]


def test_columns_beside_queries_and_positives_are_told(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    rows = "query,positive,negative_1,score\na,b,c,0\nd,e,f,1\n"
    load("embedding", write({"train.csv": rows, "dev.csv": "query,positive,negative\na,b,c\n"}))
    told = [record.getMessage() for record in caplog.records if "is not read" in record.getMessage()]
    assert [one.split("train.csv: ")[1] for one in told] == [
        "each positive answers its query; negative_1, score is not read"
    ]


def test_a_collection_of_beir(write: Write, tokenizer) -> None:
    task = load("embedding", collection(write, **{"train.txt": "one\n\ntwo\n"}))
    assert not task.labelled and task.examples("train")["text"][:] == ["one", "two"]
    assert list(task.evaluated.documents) == ["b c", "d", "e"] and list(task.evaluated.names) == ["x", "y", "z"]
    assert task.examples("dev")["query"][:] == ["a", "f"] and task.examples("dev")["relevant"][:] == [["x"], ["z"]]
    predictions = task.predict(task.encode("dev", tokenizer), rotated([0, 1.5, 0.1, 1.4, 0.8]))
    assert [next(iter(one.scores)) for one in predictions] == ["x", "y"]


def test_a_collection_has_columns_of_its_own(write: Write) -> None:
    with pytest.raises(InputError, match="task 'embedding' takes no --text-column text; leave it out"):
        of_settings("embedding", DataSettings(str(collection(write, **{"train.txt": "one"})), text_column="text"))


def test_a_collection_may_have_judgements_to_train_on(write: Write) -> None:
    folder = collection(write)
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n3\ty\t1\n3\tx\t0\n3\tz\t1\n")
    task = load("embedding", folder)
    assert task.labelled and task.examples("train").to_dict() == {"query": ["g", "g"], "positive": ["d", "e"]}


def test_what_is_said_of_vectors_and_documents_is_part_of_the_data(write: Write) -> None:
    folder = collection(write, **{"train.txt": "one"})
    plain = load("embedding", folder).fingerprint()
    assert plain == load("embedding", folder).fingerprint()
    assert plain != of_settings("embedding", DataSettings(str(folder), options={"vectors": "int8"})).fingerprint()
    (folder / "corpus.jsonl").write_text((folder / "corpus.jsonl").read_text() + '\n{"_id": "w", "text": "h"}')
    assert plain != load("embedding", folder).fingerprint()


def test_prompts_stand_before_texts_by_their_role(write: Write, tokenizer) -> None:
    own = copy.deepcopy(tokenizer)
    own.init_kwargs[SETTINGS] = {"prompts": {"": "", "query": "q", "passage": "p"}}
    task = load("embedding", write({"train.txt": "a\nb\n", "dev.csv": PAIRS}))
    dev = [own.decode(ids, skip_special_tokens=True).replace(" ", "") for ids in task.encode("dev", own)["input_ids"][:]]
    assert dev == ["qa", "qd", "pb", "pe", "pf", "pc"]
    train = [own.decode(ids, skip_special_tokens=True).replace(" ", "") for ids in task.encode("train", own)["input_ids"][:]]
    assert train == ["qa", "pb"]
    settings = task.text_settings(own)
    assert settings.fields == ("text", "prompt")
    assert settings.more["prompts"] == {"": "", "query": "q", "passage": "p", "document": "p"}
    own.init_kwargs[SETTINGS] = {"prompts": {"": "x" * 64}}
    with pytest.raises(InputError, match=r"the prompt '' \('x+'?…?\)? has 66 tokens, of 64"):
        task.encode("dev", own)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"train.csv": SCORED, "dev.csv": "sentence1,sentence2,score\na,b,7\n c,d,1\n"},
            "dev.csv, line 2: found the score 7.0",
        ),
        (
            {"train.csv": SCORED, "dev.csv": "sentence1,sentence2,score\na,b,nan\nc,d,1\n"},
            "dev.csv, line 2: found the value 'nan'",
        ),
        (
            {"train.csv": SCORED, "dev.csv": "sentence1,sentence2,score\na,b,-0.5\nc,d,3\n"},
            "dev.csv, line 2: found the score -0.5",
        ),
        ({"train.csv": SCORED, "dev.csv": "sentence1,sentence2,score\na,,1\nc,d,3\n"}, "dev.csv, line 2: found empty text"),
        ({"train.csv": SCORED, "dev.csv": "sentence1,sentence2\na,b\n"}, "dev.csv: found pairs without a score"),
        ({"train.csv": SCORED, "dev.csv": "left,right\na,b\n"}, "dev.csv: found no pairs and no texts"),
        ({"train.csv": SCORED, "dev.csv": "text\na\n"}, "found texts alone in dev"),
        ({"train.csv": SCORED, "dev.csv": "query,positive\na,\n"}, "dev.csv, line 2: found empty text in 'positive'"),
        ({"train.txt": "", "dev.csv": SCORED}, "train.txt"),
        ({"dev.csv": SCORED}, "found no train file"),
    ],
)
def test_mistakes_are_named_by_file_and_line(write: Write, files: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load("embedding", write(files))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("judgements", "message"),
    [
        ("1\tx\t0\n", "no relevant document"),
        ("1\tq\t1\n", "'q' in 'corpus-id'"),
        ("9\tx\t1\n", "'9' in 'query-id'"),
        ("1\tx\t1\n1\tx\t1\n", "judged twice"),
    ],
)
def test_mistakes_of_a_collection_are_named(write: Write, judgements: str, message: str) -> None:
    folder = collection(write, **{"train.txt": "a"})
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\n" + judgements)
    with pytest.raises(InputError) as caught:
        load("embedding", folder)
    assert message in str(caught.value) and "dev.tsv, line " in str(caught.value)


def retrieval(queries: int = 60) -> tuple[Embedding, Dataset]:
    rows = Dataset.from_dict(
        {"query": [f"q{place}" for place in range(queries)], "relevant": [[str(p)] for p in range(queries)]}
    )
    names = [str(place) for place in range(queries)]
    evaluated = Evaluated(names, [f"d{place}" for place in names], [{name: 1} for name in names])
    features = Dataset.from_dict(
        {
            "role": [FIRST] * queries + [DOCUMENT] * queries,
            "example": [*range(queries), *[-1] * queries],
            "text": [*range(queries), *range(queries)],
            "dot": [0] * (2 * queries),
        }
    )
    return Embedding("embedding", {"train": Dataset.from_dict({"text": ["a"]}), "dev": rows}, evaluated), features


def test_rankings_no_better_than_any_order_are_doubted() -> None:
    task, features = retrieval()
    random = np.random.default_rng(0)
    right = random.normal(size=(60, 16))
    good = task.predict(features, [*right, *right + 0.1])
    assert task.degenerate(good) is None and task.score(good)["ndcg@10"] > 99
    chance = task.predict(features, [*right, *random.normal(size=(60, 16))])
    doubt = task.degenerate(chance)
    assert (
        doubt is not None
        and doubt.reason.startswith("finds with an nDCG@10 of")
        and "any order would have 7.6" in doubt.reason
    )
    low, high = paired_bootstrap(task.outcomes(chance), task.outcomes(good), "ndcg@10", resamples=200)
    assert low < high < -70


def test_scores_are_of_the_kind_of_vectors_that_is_served(write: Write, tokenizer) -> None:
    folder = write({"train.csv": SCORED, "dev.csv": SCORED})
    random = np.random.default_rng(0)
    logits = list(random.normal(size=(8, 16)).astype(np.float32))
    found = {}
    for kind in ("float32", "int8", "binary"):
        task = of_settings("embedding", DataSettings(str(folder), options={"vectors": kind}))
        found[kind] = [one.value for one in task.predict(task.encode("dev", tokenizer), logits)]
        assert task.text_settings(tokenizer).more == {"vectors": kind}
    bits = [np.where(vector > 0, 1, -1) for vector in logits]
    assert found["binary"] == pytest.approx([bits[place] @ bits[place + 1] / 16 for place in range(0, 8, 2)])
    assert found["int8"] == pytest.approx(found["float32"], abs=0.02) and found["int8"] != found["float32"]


def spec_of(data: Path, model: Path, root: Path, *recipes: Recipe) -> RunSpec:
    known = {recipe.name: recipe for recipe in (Recipe(name="baseline_fp32"), *recipes)}
    task: Task = load("embedding", data)
    return RunSpec(task, str(model), 0, root, known)


STUDENT = Recipe(name="student", stages=[Distill(layers=1, representation_epochs=1, epochs=20, learning_rate=3e-3)])


@pytest.fixture
def texts(write: Write) -> Path:
    words = ("the", "cat", "dog", "sat", "ran", "on", "mat", "red", "blue")
    random = np.random.default_rng(0)
    lines = [" ".join(random.choice(words, random.integers(2, 7))) for _ in range(128)]
    return write(
        {
            "train.txt": "\n".join(lines),
            "dev.csv": "sentence1,sentence2,score\nthe cat,the dog,4\nred mat,cat ran,1\na cat,the cat,5\n",
        }
    )


@pytest.mark.slow
def test_a_student_learns_from_texts_alone(texts: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    from optkit.compression import checkpoint
    from optkit.evaluation.evaluate import evaluate
    from optkit.pipeline.steps.train import trained
    from optkit.tasks.vectors import cosines

    spec = spec_of(texts, sentence_model(tmp_path_factory.mktemp("model")), tmp_path_factory.mktemp("root"), STUDENT)
    taught = checkpoint.load(trained(STUDENT, spec), spec.task)
    assert taught.model.config.num_hidden_layers == 1
    teacher = evaluate(spec.start(), spec.task).predictions
    own = evaluate(taught, spec.task).predictions
    alike = cosines(*(np.concatenate([one.vectors for one in side]) for side in (own, teacher)))
    untaught = evaluate(_untaught(spec), spec.task).predictions
    before = cosines(*(np.concatenate([one.vectors for one in side]) for side in (untaught, teacher)))
    assert 1 - alike.mean() < (1 - before.mean()) / 2


def _untaught(spec: RunSpec) -> LoadedModel:
    """The student before anything was taught."""
    loaded = spec.start()
    loaded.model = student(loaded.model, 1, None)
    return loaded


def test_texts_alone_train_no_baseline(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    spec = spec_of(texts, encoder(tmp_path_factory.mktemp("model")), tmp_path_factory.mktemp("root"))
    with pytest.raises(InputError, match="the train split has no labels to train the FP32 baseline by; give a model"):
        preflight.require([spec.baseline], spec)


@pytest.mark.slow
def test_texts_alone_train_nothing_without_a_teacher(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    alone = Recipe(name="alone", stages=[Quantize(epochs=1, teacher=None)])
    spec = spec_of(texts, sentence_model(tmp_path_factory.mktemp("model")), tmp_path_factory.mktemp("root"), alone)
    with pytest.raises(InputError, match="quantize: the train split has no labels to train by; name a teacher"):
        preflight.require([alone], spec)


@pytest.mark.slow
def test_teachers_of_vectors_of_different_sizes_are_refused_before_training(
    texts: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Alone each may teach: what it teaches is then how alike texts are."""
    thin = Recipe(name="thin", stages=[Distill(hidden_size=16)])
    both = Recipe(name="both", stages=[Quantize(epochs=1, teacher=["baseline_fp32@1", "thin"])])
    one = Recipe(name="one", stages=[Quantize(epochs=1, teacher="thin")])
    model, root = sentence_model(tmp_path_factory.mktemp("model")), tmp_path_factory.mktemp("root")
    spec = spec_of(texts, model, root, thin, both, one)
    assert preflight.refusals([both, one], spec) == {
        "both": "quantize: the vectors of its teachers have different dimensions ('baseline_fp32@1' of 32, 'thin' of 16), "
        "and cannot be averaged; name one of them, or teachers of one size"
    }


@pytest.mark.parametrize("rows", [SCORED, "query,positive\na cat,the cat\nred,blue\nthe dog,a dog\non,the mat\n"])
def test_an_encoder_learns_from_pairs(write: Write, rows: str, tmp_path_factory: pytest.TempPathFactory, caplog) -> None:
    from optkit.pipeline.steps.train import trained
    from optkit.recipe.training import Training

    caplog.set_level(logging.INFO)
    root = tmp_path_factory.mktemp("root")
    known = {"baseline_fp32": Recipe(name="baseline_fp32", training=Training(epochs=20, learning_rate=3e-3, batch_size=8))}
    task = load("embedding", write({"train.csv": rows, "dev.csv": rows}))
    spec = RunSpec(task, str(encoder(tmp_path_factory.mktemp("model"))), 0, root, known)
    folder = trained(spec.baseline, spec)
    assert "no modules.json; vectors are the tokens' mean, normalised" in caplog.text
    losses = [entry["loss"] for entry in json.loads((folder / "history.json").read_text())]
    assert losses[-1] < losses[0]
