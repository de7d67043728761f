"""Reads questions in SQuAD's JSON (Rajpurkar et al. 2016 and 2018, arXiv 1606.05250 and 1806.03822), versions 1.1 and
2.0, in which questions may have no answer."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value

from optkit.core.json_door import loads
from optkit.tasks.base import Split
from optkit.tasks.data.groups import of_dictionaries
from optkit.tasks.data.reading import no_json, text_of
from optkit.tasks.data.source import read_datasets
from optkit.tasks.data.tables import check_folder, check_text, listed, only_file, problem, required, shown

FEATURES = Features(
    {
        "id": Value("string"),
        "question": Value("string"),
        "context": Value("string"),
        "answers": {"text": List(Value("string")), "answer_start": List(Value("int32"))},
    }
)
"""A row per question, as the hub has SQuAD too; without texts in `answers` a question has no answer."""

_PREFIXES: dict[Split, tuple[str, ...]] = {"train": ("train",), "dev": ("dev", "validation")}
_KINDS = {dict: "an object {…}", list: "a list […]", str: "text", int: "a whole number"}
_LAYOUT = "follow SQuAD: data > paragraphs > context and qas > id, question and answers > text and answer_start"


def read_splits(task: str, source: str | None, group: str | None = None) -> dict[Split, Dataset]:
    """Read both splits from a folder or from the hub.

    Args:
        task: name of the task, for messages.
        source: a folder, or `hub:NAME…`.
        group: name of what questions belong to, such as `title` or `context`; None for `group`, if there is one.

    Raises:
        InputError: a file is wrong, or no source is given.
        MachineError: the hub cannot be reached.
    """
    found = required(task, source)
    if (splits := read_datasets(found)) is not None:
        named = {f"{found}, {split}": (split, rows.to_list()) for split, rows in splits.items()}
        return {split: checked(_rows(rows, where), where, group) for where, (split, rows) in named.items()}
    return {split: read(path, group) for split, path in find(Path(found)).items()}


def find(folder: Path) -> dict[Split, Path]:
    """The files `train*.json` and `dev*.json` (or `validation*.json`) of a folder.

    Raises:
        InputError: no such folder, no file for a split, or more than one.
    """
    check_folder(folder)
    files = sorted(path for path in folder.glob("*.json") if path.is_file())
    return {
        split: only_file(
            folder,
            split,
            [path for path in files if path.name.startswith(prefixes)],
            " or ".join(f"{prefix}*.json" for prefix in prefixes),
        )
        for split, prefixes in _PREFIXES.items()
    }


def read(path: Path, group: str | None = None) -> Dataset:
    """The questions of a file, checked.

    Args:
        path: of the file.
        group: see `read_splits`.

    Raises:
        InputError: the file is not SQuAD; the message names the line, the article or the question.
    """
    try:
        tree = loads(text_of(path))
    except ValueError as error:
        raise no_json(path, error, _LAYOUT) from None
    rows = list(_questions(tree, str(path)))
    if not rows:
        raise problem(path, "no questions", "one or more", "write the questions into it")
    for row in rows:
        _check_answerable(row, path)
    return checked(rows, str(path), group)


def checked(rows: Sequence[Mapping[str, Any]], source: str, group: str | None = None) -> Dataset:
    """The rows as a data set.

    Args:
        rows: with what `FEATURES` names.
        source: where they are from, for messages.
        group: see `read_splits`.

    Raises:
        InputError: an empty text, an answer that does not stand where it should, an
            `id` that comes twice; the message names the question.
    """
    seen: set[str] = set()
    for row in rows:
        where = f"{source}, question {row['id']!r}"
        if row["id"] in seen:
            raise problem(where, "this id twice", "an id for each question", "remove or rename one of the questions")
        seen.add(row["id"])
        for name in ("id", "question", "context"):
            check_text(where, name, row[name])
        _check_answers(where, row)
    columns, own = {name: [row[name] for row in rows] for name in FEATURES}, of_dictionaries(rows, group, source)
    return Dataset.from_dict({**columns, **own}, Features({**FEATURES, **dict.fromkeys(own, Value("string"))}))


def _rows(rows: Sequence[Mapping[str, Any]], source: str) -> Sequence[Mapping[str, Any]]:
    """Return rows that are not from SQuAD's own JSON, after checking their columns.

    Raises:
        InputError: a column is missing, or `answers` is not a text and a start for each answer.
    """
    for number, row in enumerate(rows, start=1):
        missing = [name for name in FEATURES if name not in row]
        answers = row.get("answers")
        if missing or not _are_answers(answers):
            found = f"no column {missing[0]!r} (columns: {listed(row)})" if missing else f"{shown(answers)} in 'answers'"
            expected = "the columns id, question, context, and answers with lists text and answer_start"
            raise problem(
                f"{source}, row {number}", found, expected, "write the rows as rajpurkar/squad on the hub has them"
            )
    return rows


def _are_answers(answers: Any) -> bool:
    """Return whether a value has lists of texts and of as many starts."""
    if not isinstance(answers, dict):
        return False
    texts, starts = answers.get("text"), answers.get("answer_start")
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        return False
    return all(isinstance(start, int) for start in starts)


def _questions(tree: object, source: str) -> Iterator[dict[str, Any]]:
    """Every question of the file with its passage and whether it is marked as impossible."""
    for i, article in enumerate(_get(tree, "data", list, source), start=1):
        at_article = f"{source}, article {i}"
        for j, paragraph in enumerate(_get(article, "paragraphs", list, at_article), start=1):
            at_paragraph = f"{at_article}, paragraph {j}"
            context = _get(paragraph, "context", str, at_paragraph)
            for k, question in enumerate(_get(paragraph, "qas", list, at_paragraph), start=1):
                row = _question(question, context, source, f"{at_paragraph}, question {k}")
                yield {"title": article.get("title"), **question, **row}


def _question(question: object, context: str, source: str, where: str) -> dict[str, Any]:
    """One row of `FEATURES`, and `impossible`."""
    name = _get(question, "id", str, where)
    where = f"{source}, question {name!r}"
    answers = _get(question, "answers", list, where)
    impossible = question.get("is_impossible") if isinstance(question, dict) else None
    if not isinstance(impossible, bool | None):
        raise problem(where, f"{shown(impossible)} in 'is_impossible'", "true or false", "write it without quotes")
    return {
        "id": name,
        "question": _get(question, "question", str, where),
        "context": context,
        "answers": {
            "text": [_get(answer, "text", str, where) for answer in answers],
            "answer_start": [_get(answer, "answer_start", int, where) for answer in answers],
        },
        "impossible": bool(impossible),
    }


def _get(parent: object, key: str, kind: type, where: str) -> Any:
    """What an object holds under a key, if it is of that kind."""
    if not isinstance(parent, dict):
        raise problem(where, shown(parent), f"an object with {key!r}", _LAYOUT)
    if key not in parent:
        raise problem(where, f"no {key!r} (keys: {', '.join(parent) or 'none'})", _KINDS[kind], _LAYOUT)
    if not isinstance(parent[key], kind) or isinstance(parent[key], bool):
        raise problem(where, f"{shown(parent[key])} in {key!r}", _KINDS[kind], _LAYOUT)
    return parent[key]


def _check_answerable(row: Mapping[str, Any], path: Path) -> None:
    """Raises InputError unless a question has answers, or is marked to have none."""
    where, answers = f"{path}, question {row['id']!r}", len(row["answers"]["text"])
    if row["impossible"] and answers:
        found = f"{answers} answers of a question marked is_impossible"
        raise problem(where, found, "none", "remove the answers, or the mark")
    if not row["impossible"] and not answers:
        raise problem(where, "no answers", "one or more, or is_impossible", "add an answer, or mark or remove the question")


def _check_answers(where: str, row: Mapping[str, Any]) -> None:
    """Raises InputError unless every answer stands in the passage at its offset, in characters."""
    texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
    for text, start in zip(texts, starts, strict=True):
        check_text(where, "text", text)
        there = row["context"][start : start + len(text)] if start >= 0 else ""
        if there != text:
            first = row["context"].find(text)
            fix = f"answer_start {first}" if first >= 0 else "quote the answer as the passage has it"
            found = f"answer_start {start}, where the passage has {shown(there)}"
            raise problem(where, found, f"the answer {shown(text)}", fix)
