"""Requests become one batch and the answers come back to their owners."""

import numpy as np
import pytest

from optkit.serving.backend.batching import Limits, Refusal, answer, merge, split

from . import toy

LIMITS = Limits(max_sequence=16, pad_id=1)


class Engine:
    """Answers [batch, 2] and remembers the shapes it was asked."""

    def __init__(self):
        self.shapes = []

    def __call__(self, feed):
        self.shapes.append(feed["input_ids"].shape)
        if toy.FAILING in feed["input_ids"]:
            raise RuntimeError("out of memory")
        return feed["input_ids"][:, :2].astype(np.float32)


def test_merge_pads_ids_with_the_pad_id_and_the_rest_with_zero():
    short = {"input_ids": np.array([[5, 6]]), "attention_mask": np.array([[1, 1]])}
    long = {"input_ids": np.array([[7, 8, 9], [7, 8, 9]]), "attention_mask": np.ones((2, 3), np.int64)}
    merged = merge([short, long], pad_id=1)
    assert merged["input_ids"].tolist() == [[5, 6, 1], [7, 8, 9], [7, 8, 9]]
    assert merged["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 1]]
    assert merge([long])["input_ids"] is long["input_ids"], "a single request is not copied"


def test_split_trims_positions_that_padding_added():
    feeds = [toy.feed(1, 2), toy.feed(2, 3)]
    logits = np.arange(18.0).reshape(3, 3, 2)
    first, second = split(logits, feeds, per_token=True)
    assert first.tolist() == logits[:1, :2].tolist() and second.tolist() == logits[1:].tolist()
    assert first.dtype == np.float32 and first.flags.c_contiguous


def test_requests_share_one_run():
    engine = Engine()
    answers = answer([toy.feed(1, 3), toy.feed(2, 9), toy.feed(1, 5)], engine, LIMITS)
    assert engine.shapes == [(4, 9)] and [len(part) for part in answers] == [1, 2, 1]


def test_without_a_mask_only_one_length_shares_a_run():
    engine = Engine()
    answer([{"input_ids": toy.feed(1, n)["input_ids"]} for n in (3, 9, 3)], engine, LIMITS)
    assert engine.shapes == [(2, 3), (1, 9)]


def test_a_refused_request_never_reaches_the_engine():
    engine = Engine()
    first, refusal, last = answer([toy.feed(1, 3), toy.feed(1, 17), toy.feed(1, 4)], engine, LIMITS)
    assert refusal == Refusal("input_ids: found 17 tokens, expected 1 to 16. Truncate the text", fault_of_request=True)
    assert engine.shapes == [(2, 4)] and first.shape == last.shape == (1, 2)


def test_a_request_that_fails_the_engine_fails_alone(capsys):
    culprit = toy.feed(1, 3)
    culprit["input_ids"][0, 1] = toy.FAILING
    engine = Engine()
    good, bad = answer([toy.feed(1, 3), culprit], engine, LIMITS)
    assert isinstance(good, np.ndarray)
    assert bad == Refusal("RuntimeError: out of memory", fault_of_request=False)
    assert "Traceback" in capsys.readouterr().err


def test_an_engine_with_the_wrong_number_of_rows_is_an_error():
    (refusal,) = answer([toy.feed(2, 3)], lambda feed: np.zeros((5, 2)), LIMITS)
    assert "engine answered [5, 2] to 2 rows" in refusal.reason


@pytest.mark.parametrize(("types", "told"), [(2, {}), (3, {"token_types": 3}), (5, {"token_types": 5})])
def test_a_models_number_of_token_types_bounds_them(types, told):
    limits = Limits(max_sequence=16, **told)
    highest, beyond = (toy.feed(1, 3) | {"token_type_ids": np.array([[0, 1, one]])} for one in (types - 1, types))
    answered, refusal = answer([highest, beyond], Engine(), limits)
    assert isinstance(answered, np.ndarray)
    assert refusal.reason == f"token_type_ids: found values from 0 to {types}, expected 0 to {types - 1}"
    (refusal,) = answer([toy.feed(1, 3) | {"attention_mask": np.array([[1, 1, 2]])}], Engine(), limits)
    assert refusal.reason == "attention_mask: found values from 1 to 2, expected 0 to 1"


@pytest.mark.parametrize("feed", [{"input_ids": np.ones((2, 0), np.int64)}, {"input_ids": np.ones(3, np.int64)}])
def test_an_empty_or_flat_request_is_refused(feed):
    (refusal,) = answer([feed], Engine(), LIMITS)
    assert refusal.fault_of_request
