"""Served vectors: what each kind keeps, and when two answers are the same."""

import numpy as np
import pytest
from sentence_transformers.util.quantization import quantize_embeddings

from optkit.tasks.served import TextSettings
from optkit.tasks.vectors import KINDS, ServedVectors, Vector, as_served, cosines, similarities

VECTORS = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)


def settings(kind: str, prompts: dict | None = None) -> TextSettings:
    more = {"vectors": kind} | ({"prompts": prompts} if prompts else {})
    return TextSettings("embedding", ("text",), {}, 64, logits=(16,), more=more)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_declared_answered_and_read_alike(kind: str) -> None:
    form, own = ServedVectors(), settings(kind)
    outputs = form.answer(VECTORS, {}, own)
    types = {"FP32": np.float32, "INT8": np.int8, "UINT8": np.uint8}
    for name, (declared, shape) in form.outputs(own).items():
        assert outputs[name].dtype == types[declared] and outputs[name].shape == (5, *shape)
    answers = form.decode(outputs, ())
    assert [answer.kind for answer in answers] == [kind] * 5
    assert np.allclose(cosines(np.stack([one.floats() for one in answers]), as_served(VECTORS, kind)), 1.0)
    texts = [str(answer) for answer in answers]
    assert form.differing(texts, texts) == []
    assert form.differing(texts, texts[::-1]) == [0, 1, 3, 4]
    assert "16 dimensions" in answers[0].shown()


def test_bits_are_those_of_sentence_transformers() -> None:
    (found,) = ServedVectors().answer(VECTORS, {}, settings("binary")).values()
    assert np.array_equal(found, quantize_embeddings(VECTORS, "ubinary"))


def test_int8_times_its_scale_is_the_vector() -> None:
    outputs = ServedVectors().answer(VECTORS, {}, settings("int8"))
    assert outputs["embedding"].min() >= -127
    assert np.abs(outputs["embedding"] * outputs["scale"] - VECTORS).max() <= outputs["scale"].max() / 2 + 1e-7
    assert cosines(as_served(VECTORS, "int8"), VECTORS).min() > 0.9999


def test_answers_of_another_kind_or_size_differ() -> None:
    one = str(Vector(VECTORS[0], "float32"))
    assert ServedVectors().differing(
        [one, one], [str(Vector(VECTORS[0], "int8")), str(Vector(VECTORS[0, :8], "float32"))]
    ) == [0, 1]


def test_similarities_are_cosines_or_dot_products() -> None:
    queries, documents = np.array([[2.0, 0.0]], np.float32), np.array([[3.0, 0.0], [0.0, 1.0], [1.0, 1.0]], np.float32)
    assert similarities(queries, documents, by_dot=True).tolist() == [[6.0, 0.0, 2.0]]
    assert similarities(queries, documents, by_dot=False)[0] == pytest.approx([1.0, 0.0, 0.5**0.5])


def test_a_text_stands_behind_the_prompt_that_is_named() -> None:
    own = settings("float32", {"": "", "query": "query: "})
    assert ServedVectors().read(("a", "query"), own) == ("query: a",)
    assert ServedVectors().read(("a", ""), own) == ("a",) == ServedVectors().read(("a",), own)
    with pytest.raises(ValueError, match="prompt: found 'other', expected one of '', 'query'"):
        ServedVectors().read(("a", "other"), own)
