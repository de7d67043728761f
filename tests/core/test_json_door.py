import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optkit.core import json_door
from optkit.core.errors import InputError, MachineError
from optkit.core.json_door import parse_json, read_json
from tests import damage

DEEP = "[" * 160_000


class Told(TypedDict):
    name: str
    sizes: dict[str, int]


@dataclass
class Line:
    value: float
    seed: int | None
    interval: list[float] = field(default_factory=list)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "not JSON (Expecting value"),
        ("{", "not JSON (Expecting"),
        (b"\xff", "not JSON ('utf-8' codec can't decode byte 0xff"),
        (DEEP, "more than 64 levels of brackets"),
        ("[" * 65 + "]" * 65, "more than 64 levels of brackets"),
        ('{"a":' * 65 + "1" + "}" * 65, "more than 64 levels of brackets"),
        ("1" * 5000, "a number of 5,000 digits, expected at most 40"),
        ("[-" + "1" * 41 + "]", "a number of 42 digits"),
        (r'["\ud800"]', r"half of a surrogate pair in 'the text': '\ud800'"),
        (r'{"a": {"b": ["\udfff"]}}', r"half of a surrogate pair in 'b': '\udfff'"),
        (r'{"a": {"\udfff": 1}}', r"half of a surrogate pair in '\udfff': '\udfff'"),
        ('{"a": 1, "b": 2, "a": 1}', "the name 'a' twice in an object"),
    ],
)
def test_what_is_no_json_is_named_and_says_what_to_do(text: str | bytes, found: str) -> None:
    with pytest.raises(InputError) as error:
        parse_json(text, "a.json", fix="write it anew")
    assert str(error.value).startswith("a.json: ")
    assert found in str(error.value)
    assert str(error.value).endswith("; write it anew")
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("text", ["1" * 40, "-" + "9" * 40, "[" * 64 + "]" * 64, r'"😀"', '"grün"', "\ufeff[1]"])
def test_what_json_may_hold(text: str) -> None:
    assert parse_json(text.encode(), "a.json") == json.loads(text.removeprefix("\ufeff"))


@pytest.mark.parametrize(
    ("value", "kind", "found"),
    [
        ([], dict, "the whole is an array, expected an object"),
        ({"name": "a"}, Told, "the whole lacks sizes"),
        ({"name": 1, "sizes": {}}, Told, "name is 1, expected text"),
        ({"name": "a", "sizes": {"x": "1"}}, Told, 'sizes.x is "1", expected a whole number'),
        ({"name": "a", "sizes": {"x": True}}, Told, "sizes.x is true, expected a whole number"),
        ({"value": None, "seed": 1}, Line, "value is null, expected a number"),
        ({"value": 1, "seed": 1.5}, Line, "seed is 1.5, expected a whole number"),
        ({"value": 1, "seed": 1, "interval": [1, {}]}, Line, "interval[1] is an object, expected a number"),
        ({"value": 1, "seed": 1, "other": 1}, Line, "the whole has other, which no such record has"),
        ([{"a": [1]}], list[dict[str, list[str]]], "[0].a[0] is 1, expected text"),
        ("x" * 500, int, f'the whole is "{"x" * 59}, expected a whole number'),
    ],
)
def test_another_type_is_named_with_its_place(value: Any, kind: Any, found: str) -> None:
    with pytest.raises(MachineError) as error:
        parse_json(json.dumps(value), "server on a:1", kind, "ask another one", MachineError)
    assert str(error.value) == f"server on a:1: {found}; ask another one"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"name": "a", "sizes": {}, "more": 1}, Told),
        ({"value": 1, "seed": None}, Line),
        ({"value": 1.5, "seed": 3, "interval": [0, 1.5]}, Line),
        ([1, "a", None, {}], list[Any]),
        ([["a", 1]], list[list[str | int]]),
    ],
)
def test_what_fits_comes_as_it_is(value: Any, kind: Any) -> None:
    assert parse_json(json.dumps(value), "a.json", kind) == value


def test_what_is_no_file_or_too_large_is_named_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large.json").write_text("[" + " " * 100 + "]")
    for name, found in {
        "missing": "No such file",
        ".": "found a folder, expected a file",
        "pipe": "found no regular file",
        "large.json": "has 102 bytes, expected at most 100",
    }.items():
        with pytest.raises(InputError, match=found) as error:
            read_json(tmp_path / name, largest=100)
        assert str(tmp_path / name) in str(error.value)


def test_a_name_that_is_too_long_is_a_wrong_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: File name too long"):
        json_door.read_bytes(tmp_path / ("x" * 300))


TOLD = {"name": "a", "sizes": {"x": 1}, "lines": [{"value": 1.5, "seed": None}, {"value": 2, "seed": 3, "interval": [0.5]}]}


class Whole(Told):
    lines: list[Line]


@pytest.mark.slow
@pytest.mark.doors
@given(content=damage.misfits(TOLD) | damage.damaged(json.dumps(TOLD).encode()) | st.binary())
def test_any_file_fits_or_is_refused_by_its_name(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("door") / "told.json"
    path.write_bytes(content)
    try:
        found = read_json(path, Whole)
    except InputError as error:
        assert damage.is_told(error, path)
        assert len(str(error)) < 1000
    else:
        assert json.dumps(found).encode()
        assert all(isinstance(line["value"], int | float) for line in found["lines"])
