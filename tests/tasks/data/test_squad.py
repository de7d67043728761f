"""SQuAD's JSON: files found, questions read, and mistakes located."""

import json

import pytest
from datasets import Dataset, DatasetDict

from optkit.core.errors import InputError
from optkit.tasks.data import squad
from optkit.tasks.registry import load

PASSAGE = "Zürich — die Stadt 🙂 am See."


@pytest.fixture
def good(squad_json) -> str:
    return squad_json(PASSAGE, ("q1", "Where?", ["am See", "See"]), ("q2", "Which?", ["Zürich"]))


def test_a_row_for_each_question(good: str, write) -> None:
    task = load("qa", write({"train-v1.1.json": good, "validation.json": good}))
    assert (task.head, task.metric, task.labels, task.max_length) == ("question_answering", "f1", (), 384)
    assert task.examples("dev").features == squad.FEATURES
    assert task.examples("train")[0] == {
        "id": "q1",
        "question": "Where?",
        "context": PASSAGE,
        "answers": {"text": ["am See", "See"], "answer_start": [21, 24]},
    }


def test_a_limit_keeps_some_questions(good: str, write) -> None:
    folder = write({"train.json": good, "dev.json": good})
    assert len(load("squad", folder, limit_train=1).examples("train")) == 1
    assert len(load("squad", folder, limit_train=1).examples("dev")) == 2
    assert load("squad", folder, limit_train=1).fingerprint() != load("qa", folder).fingerprint()


def test_files_that_are_missing_or_too_many(good: str, write) -> None:
    with pytest.raises(InputError, match=r"no train file \(the folder holds: train\.tsv\); expected train\*\.json"):
        load("qa", write({"train.tsv": "x"}))
    with pytest.raises(InputError, match=r"found 2 train files \(train-v1\.1\.json, train-v2\.0\.json\); expected one"):
        load("qa", write({"train-v1.1.json": good, "train-v2.0.json": good, "dev.json": good}))
    with pytest.raises(InputError, match="nowhere: found no such folder"):
        load("qa", write({}) / "nowhere")


def one_article(**paragraph: object) -> str:
    return json.dumps({"data": [{"paragraphs": [paragraph]}]})


LAYOUT = "Fix: follow SQuAD: data > paragraphs > context and qas > id, question and answers > text and answer_start"
QUESTION = {"id": "q", "question": "who?", "answers": [{"text": "He", "answer_start": 0}]}
MISTAKES = {
    "found an empty file; expected data": "",
    "line 2: found no JSON (Expecting value at column 10); expected JSON": '{\n "data": }',
    f"found ['x']; expected an object with 'data'. {LAYOUT}": '["x"]',
    "found no 'data' (keys: text, label); expected a list […]": '{"text": "a", "label": 1}',
    "found 5 in 'data'; expected a list […]": '{"data": 5}',
    "found no questions; expected one or more": '{"data": []}',
    "article 1: found 'x'; expected an object with 'paragraphs'": '{"data": ["x"]}',
    "article 1, paragraph 1: found no 'context' (keys: none); expected text": one_article(),
    "article 1, paragraph 1: found no 'qas' (keys: context); expected a list […]": one_article(context="c"),
    "article 1, paragraph 1, question 1: found no 'id' (keys: none); expected text": one_article(context="c", qas=[{}]),
    "question 'q': found no 'answers' (keys: id, question); expected a list […]": one_article(
        context="c", qas=[{"id": "q", "question": "who?"}]
    ),
    "question 'q': found '0' in 'answer_start'; expected a whole number": one_article(
        context="c", qas=[{**QUESTION, "answers": [{"text": "c", "answer_start": "0"}]}]
    ),
    "question 'q': found no answers; expected one or more, or is_impossible. Fix: add an answer, or mark": one_article(
        context="He did.", qas=[{**QUESTION, "answers": []}]
    ),
    "question 'q': found answer_start 3, where the passage has 'di'; expected the answer 'He'. Fix: answer_start 0": (
        one_article(context="He did.", qas=[{**QUESTION, "answers": [{"text": "He", "answer_start": 3}]}])
    ),
    "question 'q': found answer_start -4, where the passage has ''; expected the answer 'did'": one_article(
        context="He did.", qas=[{**QUESTION, "answers": [{"text": "did", "answer_start": -4}]}]
    ),
    "question 'q': found answer_start 0, where the passage has 'He'; expected the answer 'he'. Fix: quote the": (
        one_article(context="He did.", qas=[{**QUESTION, "answers": [{"text": "he", "answer_start": 0}]}])
    ),
    "question 'q': found empty text in 'text'; expected text": one_article(
        context="He did.", qas=[{**QUESTION, "answers": [{"text": "", "answer_start": 0}]}]
    ),
    "question 'q': found empty text in 'question'; expected text": one_article(
        context="He did.", qas=[{**QUESTION, "question": " "}]
    ),
    "question 'q': found this id twice; expected an id for each question": one_article(
        context="He did.", qas=[QUESTION, QUESTION]
    ),
    "question 'q': found 1 answers of a question marked is_impossible; expected none": one_article(
        context="He did.", qas=[{**QUESTION, "is_impossible": True}]
    ),
    "question 'q': found 'false' in 'is_impossible'; expected true or false": one_article(
        context="He did.", qas=[{**QUESTION, "is_impossible": "false"}]
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_located(message: str, good: str, write) -> None:
    folder = write({"train-v1.1.json": MISTAKES[message], "dev-v1.1.json": good})
    with pytest.raises(InputError) as error:
        load("qa", folder)
    where, text = str(error.value).split("train-v1.1.json", 1)
    assert where == f"{folder}/"
    assert text.lstrip(",: ").startswith(message)
    assert "Fix: " in text


def test_a_line_that_is_not_utf8(good: str, write) -> None:
    folder = write({"train.json": good, "dev.json": b'{\n"data": "\xff"}'})
    with pytest.raises(InputError, match=r"dev\.json, line 2: found byte 0xff, which is not UTF-8"):
        load("qa", folder)


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"text": ["a"], "label": [1]}, r"no column 'id' \(columns: text, label\)"),
        ({"id": ["1"], "question": ["q"], "context": ["c"], "answers": ["c"]}, "'c' in 'answers'"),
    ],
)
def test_rows_of_another_form_are_told(columns: dict[str, list], found: str, tmp_path) -> None:
    rows = Dataset.from_dict(columns)
    DatasetDict({"train": rows, "dev": rows}).save_to_disk(tmp_path)
    with pytest.raises(InputError, match=rf"train, row 1: found {found}; expected the columns id, question, context"):
        squad.read_splits("qa", str(tmp_path))
