"""Nesting is judged as a parser of JSON finds it."""

import json
import random

import pytest

from optkit.serving.front.nesting import DEEPEST, too_deep


def nested(depth, opening="[", closing="]"):
    return (opening * depth + closing * depth).encode()


@pytest.mark.parametrize("depth", [0, 1, DEEPEST, DEEPEST + 1, 10 * DEEPEST, 160_000])
def test_depth(depth):
    assert too_deep(nested(depth)) == (depth > DEEPEST)
    assert too_deep(nested(depth, '{"a":', "}")) == (depth > DEEPEST)
    assert too_deep(b"[" * depth) == (depth > DEEPEST)


def test_width_is_no_depth():
    assert not too_deep(json.dumps({"inputs": [{"data": [[1, 2]] * 5000, "shape": [5000, 2]}] * 3}).encode())


@pytest.mark.parametrize(
    "text", ["[" * 100, '"[' * 100, '\\"[' * 100, "\\[" * 100, "]" * 100 + "[" * 100, "\\\\" * 3, "ü[" * 99]
)
def test_brackets_in_strings_do_not_count(text):
    assert not too_deep(json.dumps({"data": [text, [text], text]}).encode())
    assert too_deep(json.dumps({"data": [text]}).encode() + b"[" * (DEEPEST + 1))
    assert too_deep(json.dumps([text])[:-1].encode() + b"," + nested(DEEPEST) + b"]")


def test_any_json_is_judged_as_by_counting():
    rng = random.Random(0)

    def value(depth):
        kind = rng.random()
        if depth == 0 or kind < 0.02:
            return rng.choice([1, "x", '"[\\', "]}", "\\", '\\"', None])
        inner = [
            value(depth - 1 if number == 0 else rng.randint(0, min(3, depth - 1))) for number in range(rng.randint(1, 3))
        ]
        return inner if kind < 0.6 else {f'{number}"[\\{{': one for number, one in enumerate(inner)}

    def deepest(one):
        inner = one if isinstance(one, list) else one.values() if isinstance(one, dict) else None
        return 0 if inner is None else 1 + max(map(deepest, inner), default=0)

    found = set()
    for _ in range(2000):
        made = value(rng.randint(0, 2 * DEEPEST))
        found.add(deepest(made) > DEEPEST)
        assert too_deep(json.dumps(made, ensure_ascii=rng.random() < 0.5).encode()) == (deepest(made) > DEEPEST)
    assert found == {True, False}
