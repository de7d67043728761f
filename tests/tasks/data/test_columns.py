"""Columns under the user's own names, and labels as tables have them."""

import pytest

from optkit.core.errors import InputError
from optkit.tasks.registry import load

OWN = "id,review,title,mood\n1,nice and long,A,up\n2,dull,B,down\n"


def both(text: str, ending: str = "csv") -> dict[str, str]:
    return {f"train.{ending}": text, f"dev.{ending}": text}


def test_named_columns(write) -> None:
    folder = write(both(OWN))
    task = load("classification", folder, text_column="review", label_column="mood")
    assert task.examples("dev").to_dict() == {"text": ["nice and long", "dull"], "label": [1, 0]}
    pair = load("classification", folder, text_column="title", text_pair_column="review", label_column="mood")
    assert pair.examples("dev").to_dict() == {"text": ["A", "B"], "text_pair": ["nice and long", "dull"], "label": [1, 0]}


def test_naming_what_would_be_found_anyway_changes_nothing(write) -> None:
    folder = write(both("sentence,label\na,x\nb,y\n"))
    named = load("classification", folder, text_column="sentence", label_column="label")
    assert named.fingerprint() == load("classification", folder).fingerprint()


def test_a_text_called_label(write) -> None:
    task = load("classification", write(both("label,y\na,x\nb,z\n")), text_column="label", label_column="y")
    assert task.examples("dev").to_dict() == {"text": ["a", "b"], "label": [0, 1]}


GROUPED = "text,label,group,story\na b,x,7,one\nb c,y,7,two\nc d,x,8,one\n"


def test_groups_are_read_and_drawn(write) -> None:
    folder = write(both(GROUPED))
    task = load("classification", folder)
    assert task.examples("dev")["group"][:] == ["7", "7", "8"] and task.drawn().examples.tolist() == [0, 0, 1]
    assert task.drawn().outcomes.tolist() == [0, 0, 1] and task.belonging("train") == [[0], [0], [1]]
    assert load("classification", folder, text_column="text").drawn().examples.tolist() == [0, 0, 1]
    named = load("classification", folder, group_column="story")
    assert named.drawn().examples.tolist() == [0, 1, 0] and named.fingerprint() != task.fingerprint()
    assert load("classification", folder, group_column="text").drawn().examples.tolist() == [0, 1, 2]
    assert load("classification", folder, label_column="group").drawn() == (None, None)


def test_dev_alone_may_have_groups(write) -> None:
    task = load("classification", write({"train.csv": "text,label\na,x\nb,y\n", "dev.csv": GROUPED}))
    other = load("classification", write({}), group_column="story")
    assert task.fingerprint() == other.fingerprint() and task.drawn().examples.tolist() != other.drawn().examples.tolist()
    assert task.drawn().examples.tolist() == [0, 0, 1] and task.belonging("train") == [[0], [1]]


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        (GROUPED.replace("7,two", ",two"), {}, r"train.csv, line 3: found nothing in 'group'.*--group-column NAME"),
        (GROUPED.replace("8,", "7,"), {}, "found one group, '7', in all 3 rows; expected several"),
        (GROUPED, {"group_column": "stories"}, "--group-column stories: no such column in train and dev"),
    ],
)
def test_groups_that_are_none(text: str, settings: dict, message: str, write) -> None:
    with pytest.raises(InputError, match=message):
        load("classification", write(both(text)), **settings)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            {"text_column": "revue"},
            r"no column 'revue' \(columns: id, review, title, mood\).*did you mean 'review'",
        ),
        ({"text_pair_column": "title"}, "no first text; add --text-column"),
        ({"text_column": "review", "label_column": "review"}, "found one twice"),
        ({"text_column": "review"}, r"no column 'label'.*--label-column NAME"),
        ({"label_column": "mood"}, "no column with text.*--text-column NAME"),
    ],
)
def test_wrong_names_are_told(named: dict[str, str], message: str, write) -> None:
    with pytest.raises(InputError, match=message):
        load("classification", write(both(OWN)), **named)


def test_tasks_of_fixed_columns_take_no_names(write) -> None:
    for task in ("sample", "qa"):
        with pytest.raises(InputError, match=f"task '{task}' takes no --text-column x"):
            load(task, text_column="x")


@pytest.mark.parametrize(
    ("text", "ending", "labels"),
    [
        ('{"text": "a", "label": 1.0}\n{"text": "b", "label": 0.0}\n', "jsonl", ("0", "1")),
        ("text,label\na,1.0\nb,2.0\n", "csv", ("1", "2")),
        ('{"text": "a", "label": true}\n{"text": "b", "label": false}\n', "jsonl", ("false", "true")),
    ],
)
def test_numbers_and_truth_values_as_labels(text: str, ending: str, labels: tuple[str, ...], write) -> None:
    assert load("classification", write(both(text, ending))).labels == labels


def test_scores_are_no_classes(write) -> None:
    with pytest.raises(InputError, match=r"numbers with fractions as labels \(2\.5\); expected classes"):
        load("classification", write(both("text,label\na,0.0\nb,1.0\nc,2.5\n")))
    many = "text,label\n" + "".join(f"row {i},name {i}\n" for i in range(30))
    with pytest.raises(InputError, match=r"found 30 classes in 30 rows.*--label-column"):
        load("classification", write(both(many)))


def test_classes_that_differ_in_capitals_alone_are_told(write, caplog) -> None:
    assert load("classification", write(both("text,label\na,Pos\nb,pos\nc,neg\n"))).labels == ("Pos", "neg", "pos")
    assert "train.csv: Pos and pos are different classes" in caplog.text


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ("neg", "neg\u200b", r"'neg' and 'neg\u200b'"),
        ("ne\u0301gatif", "n\u00e9gatif", r"'ne\u0301gatif' and 'n\xe9gatif'"),
        ("not sure", "not\u00a0sure", r"'not sure' and 'not\xa0sure'"),
        ("\u2764", "\u2764\ufe0f", r"'\u2764' and '\u2764\ufe0f'"),
        ("n\u00c9g", "ne\u0301g", "ne\u0301g and n\u00c9g"),
    ],
)
def test_classes_that_look_alike_are_told_apart(one: str, other: str, told: str, write, caplog) -> None:
    rows = f"text,label\na,{one}\nb,{other}\nc,pos\n"
    assert set(load("classification", write(both(rows))).labels) == {one, other, "pos"}
    assert f"train.csv: {told} are different classes" in caplog.text


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_labels_that_look_alike_are_told_apart(ending: str, write, caplog) -> None:
    lists = '{"text": "a", "labels": ["neg", "x"]}\n{"text": "b", "labels": ["ne\u00adg"]}\n'
    rows = "text,neg,ne\u00adg,x\na,1,0,1\nb,0,1,0\n"
    load("multi_label", write(both(lists if ending == "jsonl" else rows, ending)))
    assert rf"train.{ending}: 'neg' and 'ne\xadg' are different classes" in caplog.text


def test_classes_that_are_written_otherwise_are_not_told(write, caplog) -> None:
    load("classification", write(both("text,label\na,\u00a1s\u00ed!\nb,\u00bfs\u00ed?\nc,si\n")))
    assert "different classes" not in caplog.text


def test_a_class_of_dev_that_looks_as_one_of_train_is_told_apart(write) -> None:
    files = {"train.csv": "text,label\na,n\u00e9g\nb,pos\n", "dev.csv": "text,label\na,ne\u0301g\nb,pos\n"}
    with pytest.raises(InputError, match=r"found label 'ne\\u0301g'; expected a class of the train file: 'n\\xe9g', pos"):
        load("classification", write(files))
