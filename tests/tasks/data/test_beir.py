"""BEIR's layout: what is read of it, and mistakes in it."""

import json
from pathlib import Path

import pytest

from optkit.core.errors import InputError
from optkit.tasks.data.beir import is_collection, read

CORPUS = [
    {"_id": "d1", "title": "Zürich", "text": "A town at a lake."},
    {"_id": "d2", "title": "", "text": "A mountain."},
    {"_id": "d3", "text": "A river.", "metadata": {}},
]
QUERIES = [{"_id": "q1", "text": "which town"}, {"_id": "q2", "text": "which mountain"}]
HEAD = "query-id\tcorpus-id\tscore\n"
FILES = {
    "corpus.jsonl": "".join(json.dumps(row) + "\n" for row in CORPUS),
    "queries.jsonl": "".join(json.dumps(row) + "\n" for row in QUERIES),
    "qrels/train.tsv": f"{HEAD}q1\td1\t1\n",
    "qrels/dev.tsv": f"{HEAD}q1\td1\t2\nq1\td2\t0\nq2\td2\t1\n",
}


def written(folder: Path, **changed: str) -> Path:
    """The files with some of them changed, `qrels__dev` for `qrels/dev.tsv`."""
    files = dict(FILES)
    for name, content in changed.items():
        path = name.replace("__", "/")
        files[next((known for known in FILES if known.startswith(path)), f"{path}.tsv")] = content
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def test_what_is_read(tmp_path: Path) -> None:
    assert not is_collection(tmp_path)
    folder = written(tmp_path, candidates__dev="query-id\tcorpus-id\nq2\td3\nq2\td2\nq1\td1\n")
    assert is_collection(folder)
    found = read(folder)
    assert found.queries == {"q1": "which town", "q2": "which mountain"}
    assert found.corpus == {"d1": "Zürich A town at a lake.", "d2": "A mountain.", "d3": "A river."}
    assert found.relevance == {"train": {"q1": {"d1": 1}}, "dev": {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1}}}
    assert found.candidates == {"dev": {"q2": ["d3", "d2"], "q1": ["d1"]}}
    assert read(folder, ["dev"]).relevance.keys() == {"dev"}


def test_a_test_split_alone_and_lists_of_candidates_as_mteb_has_them(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (folder / "qrels" / "train.tsv").unlink()
    (folder / "qrels" / "dev.tsv").rename(folder / "qrels" / "test.tsv")
    (folder / "top_ranked").mkdir()
    (folder / "top_ranked" / "test.jsonl").write_text('{"query-id": "q1", "corpus-ids": ["d3", "d1"]}\n')
    found = read(folder, ["dev"])
    assert found.candidates == {"dev": {"q1": ["d3", "d1"]}}
    with pytest.raises(InputError, match="no train file"):
        read(folder)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"corpus": FILES["corpus.jsonl"] + '{"_id": "d1", "text": "x"}'},
            "corpus.jsonl, line 4: found the name 'd1' twice",
        ),
        ({"corpus": '{"_id": "d1", "title": " ", "text": ""}'}, "corpus.jsonl, line 1: found empty text in 'title'"),
        ({"corpus": '{"_id": "d1", "title": "", "text": ""}'}, "corpus.jsonl, line 1: found empty text in 'text'"),
        ({"corpus": '{"_id": "d1", "title": 5, "text": "x"}'}, "corpus.jsonl, line 1: found 5 (int) in 'title'"),
        ({"queries": '{"id": "q1", "text": "x"}'}, "queries.jsonl: found no column '_id' (columns: id, text)"),
        ({"queries": '{"_id": null, "text": "x"}'}, "queries.jsonl, line 1: found nothing in '_id'"),
        ({"qrels__dev": f"{HEAD}q9\td1\t1\n"}, "dev.tsv, line 2: found 'q9' in 'query-id', which is in no row of queries"),
        ({"qrels__dev": f"{HEAD}q1\td9\t1\n"}, "dev.tsv, line 2: found 'd9' in 'corpus-id', which is in no row of corpus"),
        ({"qrels__dev": f"{HEAD}q1\td1\t-1\n"}, "dev.tsv, line 2: found the grade '-1' in 'score'; expected a whole number"),
        ({"qrels__dev": f"{HEAD}q1\td1\t0.5\n"}, "dev.tsv, line 2: found the grade '0.5' in 'score'"),
        ({"qrels__dev": f"{HEAD}q1\td1\tnan\n"}, "dev.tsv, line 2: found the value 'nan'; expected a finite number"),
        (
            {"qrels__dev": f"{HEAD}q1\td1\t1\nq1\td1\t0\n"},
            "dev.tsv, line 3: found document 'd1' of query 'q1' judged twice; expected one grade",
        ),
        (
            {"qrels__dev": f"{HEAD}q1\td1\t1\nq2\td1\t0\n"},
            "dev.tsv, line 3: found no relevant document for 1 of 2 queries (first: 'q2'); expected one or more",
        ),
        ({"qrels__dev": "q1 0 d1 1\n"}, "dev.tsv: found a header (q1 0 d1 1) and no rows"),
        ({"candidates__dev": "query-id\tcorpus-id\nq1\td9\n"}, "dev.tsv, line 2: found 'd9' in 'corpus-id'"),
        ({"candidates__dev": "query-id\tcorpus-id\nq1\td1\nq1\td1\n"}, "dev.tsv, line 3: found document 'd1' twice"),
        (
            {"candidates__dev": "query-id\tcorpus-ids\nq1\td1\n"},
            "dev.tsv, line 2: found 'd1' in 'corpus-ids'; expected a list",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, changed: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as error:
        read(written(tmp_path, **changed))
    assert message in str(error.value)


def test_files_that_are_missing(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(
        InputError, match=r"found no corpus file \(the folder holds: qrels, queries.jsonl\); expected corpus"
    ):
        read(folder)
