"""Reranking: grades, rankings, margins, what is served, doubts, and mistakes in tables."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from optkit.core.errors import GateError, InputError
from optkit.tasks.data.tables import Table
from optkit.tasks.registry import load
from optkit.tasks.reranking import Place, Relevance, Reranking
from optkit.tasks.served import TextSettings

QUERIES = ["b", "a", "b", "a", "b"]
DOCUMENTS = ["one", "two", "three", "four", "five"]
GRADES = [0, 1, 2, 0, 0]


def table(queries: list = QUERIES, documents: list = DOCUMENTS, label: list = GRADES, name: str = "label") -> Table:
    columns = {"query": queries, "document": documents, name: label}
    return Table("rows", columns, range(1, len(queries) + 1), "row")


def task_of(dev: Table, train: Table | None = None) -> Reranking:
    return Reranking("reranking", {"train": train or table(), "dev": dev})


def logits(*values: float) -> list[np.ndarray]:
    return [np.array([value]) for value in values]


def many(queries: int = 60, documents: int = 8) -> Reranking:
    """A task with one relevant document for each query, the last."""
    pairs = [
        (f"q{query}", f"d{query} {at}", int(at == documents - 1)) for query in range(queries) for at in range(documents)
    ]
    return task_of(table(*map(list, zip(*pairs, strict=True))))


def places(values: np.ndarray) -> list[Place]:
    return [Place(float(value), 1, 1) for value in values]


def test_features_predictions_and_scores(tokenizer) -> None:
    task = task_of(table())
    features = task.encode("dev", tokenizer)
    assert features["labels"][:] == [0, 0.5, 1, 0, 0]
    assert features["queries"][:] == [0, 1, 0, 1, 0]
    predictions = task.predict(features.select([4, 0, 1, 2, 3]), logits(3.0, -1.0, 0.5, 1.0, 0.25))
    assert predictions == [(-1.0, 3, 3), (0.5, 1, 2), (1.0, 2, 3), (0.25, 2, 2), (3.0, 1, 3)]
    ndcg = (1 / np.log2(3) + 1) / 2  # the first query finds its document at the second place, the second at the first
    assert task.score(predictions) == pytest.approx({"ndcg@10": 100 * ndcg, "mrr@10": 75, "map": 75, "recall@10": 100})
    assert task.outcomes(predictions)["mrr@10"].tolist() == [50, 100]
    assert task.shown(predictions[2]) == "0.7311" == str(Relevance(1 / (1 + np.exp(-1.0)), 2))
    assert task.told(predictions[2]) == "0.7311 (place 2 of 3)"
    assert task.metric_in_words == "ndcg@10, the mean over 2 queries"
    assert task.logits_shape == (1,)
    assert task.text_fields == ("query", "document")
    with pytest.raises(GateError, match="found NaN or infinity"):
        task.predict(features, logits(1, 2, np.nan, 3, 4))


def test_a_document_keeps_its_place_or_stays_beyond_the_first_ten() -> None:
    task = task_of(table())
    assert task.same(Place(1, 2, 30), Place(5, 2, 30))
    assert task.same(Place(1, 11, 30), Place(1, 30, 30))
    assert not task.same(Place(1, 10, 30), Place(1, 11, 30))
    assert not task.same(Place(1, 1, 30), Place(1, 2, 30))


def test_equal_scores_do_not_stand_by_the_order_of_the_rows() -> None:
    task = many(400, 2)
    outcomes = task.outcomes(places(np.zeros(800)))
    assert outcomes["mrr@10"].mean() == pytest.approx(75, abs=3)


def test_cross_entropy_of_grades() -> None:
    found = Reranking.loss({"logits": torch.tensor([[0.0], [np.log(3.0)]])}, {"labels": torch.tensor([0.5, 1.0])})
    assert found.item() == pytest.approx((np.log(2) - np.log(0.75)) / 2)


def test_margins_are_of_the_same_query() -> None:
    student, teacher = torch.tensor([[1.0], [5.0], [0.0], [2.0]]), torch.tensor([[0.0], [9.0], [2.0], [1.0]])
    targets = {"queries": torch.tensor([7, 3, 7, 7])}
    # Margins of the student: 1 - 0, 1 - 2, 0 - 2; of the teacher: 0 - 2, 0 - 1, 2 - 1.
    assert Reranking.teaching_loss(student, teacher, targets).item() == pytest.approx(((1 + 2) ** 2 + 0 + (-2 - 1) ** 2) / 3)
    assert Reranking.teaching_loss(student + 4, teacher, targets).item() == pytest.approx(6)
    alone = student.clone().requires_grad_()
    value = Reranking.teaching_loss(alone, teacher, {"queries": torch.arange(4)})
    value.backward()
    assert value.item() == 0 and alone.grad.abs().sum() == 0


def test_what_is_served() -> None:
    form = Reranking.served
    settings = TextSettings("reranking", ("query", "document"), {}, 16)
    queries = np.array([[b"b"], [b"a"], [b"b"], [b"b"]], dtype=object)
    outputs = form.answer(np.array([[0.0], [1e4], [2.0], [-1e4]], np.float32), {"query": queries}, settings)
    assert outputs["rank"].tolist() == [[2], [1], [1], [3]]
    assert outputs["score"][:, 0] == pytest.approx([0.5, 1, 0.880797, 0])
    assert {name: array.dtype for name, array in outputs.items()} == {"score": np.float32, "rank": np.int32}
    answers = form.decode(outputs, ())
    assert form.shown([("b", "x"), ("b", "y")], [answers[0], answers[2]]) == "1. 0.8808  y\n2. 0.5000  x"


def test_served_scores_differ_where_rounding_does_not_explain_it() -> None:
    differing = Reranking.served.differing
    assert differing(["0.999999", "0.52", "0.3"], ["1", "0.5", "0.2"]) == [2]
    assert differing(["0.01", "0.0002"], ["0.011", "0.001"]) == [1]


def test_grades_may_be_called_scores_and_true(tokenizer) -> None:
    assert task_of(table(label=[False, True, True, False, False], name="score")).examples("dev")["label"][:] == [
        0,
        1,
        1,
        0,
        0,
    ]


def test_the_same_document_twice_is_two_documents() -> None:
    task = task_of(table(documents=["one", "two", "same", "four", "same"], label=[0, 1, 1, 0, 1]))
    assert task.outcomes(places(np.array([5.0, 1, 2, 0, 1])))["map"].tolist() == pytest.approx(
        [100 * (1 / 2 + 2 / 3) / 2, 100]
    )


def test_queries_without_a_relevant_document_are_left_out_where_that_is_asked_for(write, caplog) -> None:
    rows = "query,document,label\nq,a,0\nq,b,0\nr,c,1\ns,d,0\ns,e,1\n"
    folder = write({"train.csv": rows, "dev.csv": rows})
    with pytest.raises(InputError, match=r"dev.csv, line 2: found no relevant .* --task-option unanswered=left_out"):
        load("reranking", folder)
    with caplog.at_level(logging.WARNING):
        task = load("reranking", folder, options={"unanswered": "left_out"})
    assert "dev.csv: 1 of 3 queries have no relevant document and are left out" in caplog.text
    assert task.examples("dev")["document"][:] == ["c", "d", "e"] and len(task.examples("train")) == 5
    (folder / "dev.csv").write_text("query,document,label\nq,a,0\n")
    with pytest.raises(InputError, match=r"no relevant document for 1 of 1 queries"):
        load("reranking", folder, options={"unanswered": "left_out"})
    (folder / "dev.csv").rename(folder / "dev.jsonl")
    (folder / "dev.jsonl").write_text('{"query": ["q"], "document": "a", "label": 1}')
    with pytest.raises(InputError, match=r"dev.jsonl, line 1: found \['q'\] \(list\) in 'query'"):
        load("reranking", folder, options={"unanswered": "left_out"})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"label": [0, 1, 0, 0, 0]},
            "rows, row 1: found no relevant document for 1 of 2 queries (first: 'b'); expected one",
        ),
        ({"label": [0, 1, 0.5, 0, 0]}, "rows, row 3: found the grade 0.5 in 'label'; expected a whole number from 0"),
        ({"label": [0, 1, -1, 0, 0]}, "rows, row 3: found the grade -1 in 'label'"),
        ({"label": [0, 1, 10**9, 0, 0]}, "rows, row 3: found the grade 1000000000 in 'label'"),
        ({"label": [0, 1, None, 0, 0]}, "rows, row 3: found no value (None); expected a number"),
        ({"label": [0, 1, float("nan"), 0, 0]}, "rows, row 3: found the value nan; expected a finite number"),
        ({"label": [0, 1, "yes", 0, 0]}, "rows, row 3: found the value 'yes'"),
        ({"name": "stars"}, "rows: found no column 'label' or 'score' (columns: query, document, stars)"),
        (
            {"documents": ["one", "two", "same", "four", "same"]},
            "rows, row 5: found the grade 0 for what has 2 at rows, row 3",
        ),
        ({"documents": ["one", "two", " ", "four", "five"]}, "rows, row 3: found empty text in 'document'"),
        ({"queries": ["b", "a", None, "a", "b"]}, "rows, row 3: found nothing in 'query'"),
    ],
)
def test_a_mistake_is_named_with_its_row(changed: dict, message: str) -> None:
    with pytest.raises(InputError) as error:
        task_of(table(**changed))
    assert message in str(error.value)


def test_train_needs_both_kinds_of_documents_and_dev_a_relevant_one() -> None:
    task_of(table(), table(label=[0, 1, 0, 0, 0]))  # queries to learn from need no relevant document
    with pytest.raises(InputError, match=r"rows: found the grade 1 in each of 5 rows; expected documents that are relevant"):
        task_of(table(), table(label=[1] * 5))
    single = Table("rows", {"text": ["a", "b"], "label": [0, 1]}, [1, 2])
    with pytest.raises(InputError, match=r"expected text and text_pair; or question and sentence; .* or query and document"):
        task_of(single, single)


def test_doubts() -> None:
    task, random = many(), np.random.default_rng(0)
    right = np.tile([0, 0, 0, 0, 0, 0, 0, 1.0], 60)
    assert task.degenerate(places(right + random.normal(size=480))) is None
    assert task.degenerate(places(right + 100 * np.repeat(random.normal(size=60), 8))) is None  # scores of a query matter
    constant = task.degenerate(places(np.repeat(random.normal(size=60), 8)))
    assert constant.verdict == "fail" and "gives all documents of a query the same score" in constant.reason
    assert task.degenerate(places(-right + random.normal(size=480) / 10)).verdict == "fail"
    chance = task.degenerate(places(random.normal(size=480)))
    assert "the same documents in random order would have" in chance.reason
    alike = task_of(table(label=[1, 2, 1, 2, 1])).degenerate(places(np.arange(5.0)))
    assert alike.verdict == "undecided" and "whose documents are all equally relevant" in alike.reason


def test_a_bad_teacher(tokenizer) -> None:
    task = task_of(table())
    features = task.encode("train", tokenizer)
    assert task.weakness(features, logits(0, 1, 1, 0, 0.5)) is None
    assert "random order would have" in task.weakness(features, logits(1, 0, 0, 1, 1))


def test_what_is_doubtful_in_rows_is_said(caplog: pytest.LogCaptureFixture) -> None:
    rows = table(["x", "x", "x ", "x"], ["a", "a", "b", "c"], [0, 1, 1, 0])
    scored = replace(rows, columns={**rows.columns, "score": [1, 1, 1, 1]})
    with caplog.at_level(logging.WARNING):
        task_of(table(["x"], ["a"], [1]), scored)
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [
        "grades are taken from 'label'; 'score' is not read",
        "documents of a query with grades that contradict each other: 1",
        "queries that differ from others in blanks alone, and stay queries of their own: 1",
    ]


def test_by_name_from_a_file_and_from_a_collection(tmp_path, caplog: pytest.LogCaptureFixture) -> None:
    rows = "q,a,grade\nx,y,0\nx,z,4\n"
    for split in ("train", "dev"):
        (tmp_path / f"{split}.csv").write_text(rows)
    task = load("reranking", tmp_path, text_column="q", text_pair_column="a", label_column="grade", metric="map")
    assert task.examples("dev")["label"][:] == [0, 4] and task.metric == "map"

    folder = tmp_path / "beir"
    for name, content in {
        "corpus.jsonl": "".join(f'{{"_id": "d{at}", "title": "T{at}", "text": "text"}}\n' for at in range(4)),
        "queries.jsonl": "".join(f'{{"_id": "q{at}", "text": "same"}}\n' for at in range(3)),
        "qrels/train.tsv": "query-id\tcorpus-id\tscore\nq0\td0\t1\n",
        "qrels/dev.tsv": "query-id\tcorpus-id\tscore\nq0\td0\t1\nq1\td1\t2\n",
        "candidates/train.tsv": "query-id\tcorpus-id\nq0\td1\n",
        "candidates/dev.tsv": "query-id\tcorpus-id\nq0\td2\nq0\td0\nq1\td3\nq2\td3\n",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(content)
    with caplog.at_level(logging.WARNING):
        task = load("reranking", folder)
    assert "candidates of queries without judgements are left out: q2" in caplog.text
    assert "1 relevant documents of 1 queries are not among their candidates" in caplog.text
    assert task.examples("train")["document"][:] == ["T0 text", "T1 text"]
    assert task.examples("dev")["document"][:] == ["T2 text", "T0 text", "T3 text"]
    before = task.fingerprint()
    judgements = (folder / "qrels" / "dev.tsv").read_text()
    (folder / "qrels" / "dev.tsv").write_text(judgements.replace("q1\td1\t2", "q1\td1\t1"))
    assert load("reranking", folder).fingerprint() != before  # what no row has changes the metrics too
    # Queries of equal text stay apart, and a relevant document that is no candidate is missed.
    assert task.score(places(np.array([0.0, 1.0, 1.0])))["recall@10"] == 50
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t1\nq1\td1\t0\n")
    task = load("reranking", folder, options={"unanswered": "left_out"})
    assert task.examples("dev")["document"][:] == ["T2 text", "T0 text"]
    assert "1 of 2 queries have no relevant document and are left out" in caplog.text
    with pytest.raises(InputError, match="takes no --text-column"):
        load("reranking", folder, text_column="x")
    (folder / "candidates" / "dev.tsv").write_text("query-id\tcorpus-id\nq1\td0\n")
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t1\n")
    with pytest.raises(InputError, match="candidates of dev: found none for the query 'q0'"):
        load("reranking", folder)
