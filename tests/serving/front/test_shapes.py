"""Shapes that ask for more than a request can hold are found, however they are written."""

import json

import pytest

from optkit.serving.front.shapes import fault


def request(*shapes):
    return json.dumps(
        {"inputs": [{"name": "shape", "shape": shape, "data": ['"shape": [9, 9]']} for shape in shapes]}
    ).encode()


@pytest.mark.parametrize("shapes", [([2, 3],), ([2, 3], [1, 4]), ([10],), ([0, 5],), ([1] * 1000,), ([2, 3], [0, 10], [4])])
def test_shapes_that_fit(shapes):
    assert not fault(request(*shapes), 10)


@pytest.mark.parametrize(
    "shapes",
    [
        *(([11],), ([2, 3], [5]), ([2**31, 2**31],), ([2**61, 8],), ([10**400],), ([0, 10**15, 10**15],)),
        *(([-1, 2],), ([-(2**31)] * 2,), ([1.5],), ([True],), ([],), (None,), ("x",), ([[1]],), ({},)),
    ],
)
def test_shapes_that_do_not(shapes):
    assert fault(request(*shapes), 10)


def test_a_shape_cannot_be_hidden():
    large = request([2**31, 2**31])
    for name in (b'"sh\\u0061pe"', b'"\\u0073hape"', b'"sha\\u0070e"', b'"shap\\u0065"', b'"s\\u0068ape"'):
        assert fault(large.replace(b'"shape":', name + b":"), 10)
    assert fault(large.replace(b'"shape": ', b'"shape"\t\r\n :\n'), 10)
    assert fault(request([1]).replace(b'"shape"', b'"shape": [2], "shape"', 1).replace(b"[1]", b"[99]"), 10)


@pytest.mark.parametrize("word", ["\\u0061", "caf\u00e9", "\x7f\x00", '\\"shape\\": [99]', '"shape": [99]'])
def test_texts_may_say_anything(word):
    text = json.dumps({"inputs": [{"name": "text", "shape": [1], "data": [word, f"{word}{word}"]}]}).encode()
    assert not fault(text, 10)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ([-1, 3], "found [-1, 3], expected a list of whole numbers"),
        ([], "found [], expected"),
        ("1x3", 'found "1x3", expected'),
        (None, "found null, expected"),
        ({"a": 1}, 'found {"a":, expected'),
        ([[1]], "found [[1], expected"),
        ([3, 9], "found [3, 9], expected at most 10 values"),
        ([1] * 1000 + [-1], f"found [{'1, ' * 13}1, expected a list"),
    ],
)
def test_what_was_found_is_said_in_short(shape, said):
    assert said in fault(request(shape), 10)
    assert "found nothing" in fault(b'{"shape":', 10)
