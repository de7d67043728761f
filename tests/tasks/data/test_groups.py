"""Groups in every kind of data."""

import json

import pytest

from optkit.core.errors import InputError
from optkit.tasks.registry import load


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def drawn(name: str, rows: str, write, ending: str = "jsonl", **settings) -> tuple[list | None, list | None]:
    task = load(name, write({f"train.{ending}": rows, f"dev.{ending}": rows}), **settings)
    examples, outcomes = task.drawn()
    return examples if examples is None else examples.tolist(), outcomes if outcomes is None else outcomes.tolist()


def test_several_labels(write) -> None:
    rows = lines({"text": "a", "labels": ["x", "y"], "group": 3.0}, {"text": "b", "labels": [], "group": 4})
    assert drawn("multi_label", rows, write) == ([0, 1], [0, 1])


def test_columns_of_labels_and_values(write) -> None:
    bits = "text,x,y,group\na,1,0,one\nb,0,1,one\nc,1,1,two\n"
    assert drawn("multi_label", bits, write, "csv") == ([0, 0, 1], [0, 0, 1])
    values = "text,label,group\na,1,one\nb,2,one\nc,3,two\n"
    assert drawn("regression", values, write, "csv") == ([0, 0, 1], [0, 0, 1])


def test_blanks_around_a_name_do_not_make_another_group(write) -> None:
    assert drawn("regression", "text,label,group\na,1,one\nb,2, one\nc,3,two \n", write, "csv") == ([0, 0, 1], [0, 0, 1])


@pytest.mark.parametrize("other", ["3.0", "03", "+3"])
def test_one_number_written_in_two_ways(write, other: str) -> None:
    with pytest.raises(InputError, match=r"several groups \(.*3.*\) in 'group'; expected one. Fix: write them alike"):
        drawn("regression", f"text\tlabel\tgroup\na\t1\t3\nb\t2\t{other}\nc\t3\t4\n", write, "tsv")


@pytest.mark.parametrize("nothing", ["nan", "NaN", "None", "null", " "])
def test_what_stands_for_nothing_is_no_group(write, nothing: str) -> None:
    with pytest.raises(InputError, match=r"in 'group'; expected the name or the number of its group"):
        drawn("regression", f"text\tlabel\tgroup\na\t1\tx\nb\t2\t{nothing}\nc\t3\ty\n", write, "tsv")


def test_entities(write) -> None:
    one = {"tokens": ["a"], "tags": ["B-x"], "story": "s"}
    rows = lines(one, one, {**one, "story": "t"})
    assert drawn("token_classification", rows, write) == (None, None)
    assert drawn("token_classification", rows, write, group_column="story") == ([0, 0, 1], [0, 0, 1])


def test_questions_by_their_own_groups_or_by_what_they_are_about(write, squad_json) -> None:
    one = squad_json("a b c", ("1", "q", ["a"]), ("2", "r", ["b"]))
    other = squad_json("d e f", ("3", "q", ["d"]), ("4", "s", ["e"]))
    both = json.loads(one)
    both["data"] = [{"title": "first", **article} for article in [*both["data"], *json.loads(other)["data"]]]
    both["data"][1]["title"] = "second"
    assert drawn("qa", json.dumps(both), write, "json") == (None, None)
    assert drawn("qa", json.dumps(both), write, "json", group_column="context") == ([0, 0, 1, 1], [0, 0, 1, 1])
    assert drawn("qa", json.dumps(both), write, "json", group_column="title") == ([0, 0, 1, 1], [0, 0, 1, 1])
    questions = both["data"][0]["paragraphs"][0]["qas"]
    questions[0]["group"], questions[1]["group"] = "3", "3.0"
    both["data"][1]["paragraphs"][0]["qas"][0]["group"] = both["data"][1]["paragraphs"][0]["qas"][1]["group"] = "4"
    with pytest.raises(InputError, match=r"several groups \(3 and 3\.0\) in 'group'"):
        drawn("qa", json.dumps(both), write, "json")
    questions[0]["group"] = "g"
    del questions[1]["group"]
    with pytest.raises(InputError, match="row 2: found nothing in 'group'"):
        drawn("qa", json.dumps(both), write, "json")


def ranked(*groups: str) -> str:
    pairs = [("q", "d", 1), ("q", "e", 0), ("r", "d", 1), ("s", "e", 1)]
    rows = [
        {"query": query, "document": document, "label": label, **({"group": group} if group else {})}
        for (query, document, label), group in zip(pairs, groups or [""] * 4, strict=True)
    ]
    return lines(*rows)


def test_documents_are_drawn_with_their_query_and_queries_with_their_group(write) -> None:
    assert drawn("reranking", ranked(), write) == ([0, 0, 1, 2], None)
    assert drawn("reranking", ranked("g", "g", "h", "g"), write) == ([0, 0, 1, 0], [0, 1, 0])
    with pytest.raises(InputError, match="the query 'q' in the groups 'g' and 'h'"):
        drawn("reranking", ranked("g", "h", "h", "g"), write)


def test_embeddings(write) -> None:
    pairs = "sentence1,sentence2,score,group\na,b,1,g\nc,d,0,g\ne,f,0.5,h\n"
    assert drawn("embedding", pairs, write, "csv") == ([0, 0, 1], [0, 0, 1])
    queries = "query,positive,group\na,b,g\na,c,g\nd,e,h\n"
    assert drawn("embedding", queries, write, "csv") == ([0, 1], [0, 1])
