"""Requests of similar length share a run where padding would cost more than a run does."""

import itertools
import math
import time

import numpy as np
import pytest

from optkit.serving.backend.batching import Limits, answer
from optkit.serving.backend.lengths import call_cost, runs

from . import toy


@pytest.mark.parametrize(
    ("shapes", "call", "expected"),
    [
        ([(1, 480), (1, 16), (1, 16)], 40, [[1, 2], [0]]),
        ([(1, 480), (1, 16), (1, 16)], 927, [[1, 2], [0]]),
        ([(1, 480), (1, 16), (1, 16)], 928, [[1, 2, 0]]),  # a run costs what is padded
        ([(1, 480), (1, 16), (1, 16)], math.inf, [[1, 2, 0]]),
        ([(1, 16), (1, 20), (1, 200), (1, 210)], 30, [[0, 1], [2, 3]]),
        ([(1, 16), (1, 20), (1, 200), (1, 210)], 0, [[0], [1], [2], [3]]),
        ([(8, 20), (1, 16)], 10, [[1, 0]]),
        ([(1, 20), (8, 16)], 10, [[1], [0]]),  # all rows of the shorter one would be padded
        ([(2, 7)], 0, [[0]]),
    ],
)
def test_runs(shapes, call, expected):
    assert runs(shapes, call) == expected


def test_no_other_way_to_cut_costs_less():
    generator = np.random.default_rng(0)
    for call in (0, 20, 150):
        shapes = list(zip(generator.integers(1, 4, 8).tolist(), generator.integers(1, 200, 8).tolist(), strict=True))
        order = sorted(range(8), key=lambda index: shapes[index][1])
        ways = [
            [order[first:last] for first, last in itertools.pairwise([0, *cuts, 8])]
            for count in range(8)
            for cuts in itertools.combinations(range(1, 8), count)
        ]
        found = runs(shapes, call)
        assert sorted(itertools.chain(*found)) == list(range(8))
        assert cost(found, shapes, call) == min(cost(way, shapes, call) for way in ways)


def cost(way, shapes, call):
    return sum(call + sum(shapes[i][0] for i in run) * max(shapes[i][1] for i in run) for run in way)


def test_a_call_is_measured_in_tokens(monkeypatch):
    spent = iter([0, 40, 40, 60, 60, 85, 0, 116, 116, 200, 200, 276])  # the least for 8 and for 64 tokens: 20 and 76
    monkeypatch.setattr(time, "process_time", lambda: next(spent))
    asked = []
    assert call_cost(asked.append, 512) == 12  # 20 = 12 + 8 and 76 = 12 + 64, one second a token
    assert asked == [8, 8, 8, 64, 64, 64]


@pytest.mark.parametrize(("longest", "expected"), [(512, math.inf), (8, math.inf)])
def test_tokens_that_cost_nothing(longest, expected, monkeypatch):
    monkeypatch.setattr(time, "process_time", lambda: 1.0)
    assert call_cost(lambda tokens: None, longest) == expected


@pytest.mark.parametrize("head", ["classification", "question_answering"])
def test_each_request_gets_its_own_answer(head):
    engine, asked = toy.Engine(head=head), []

    def infer(feed):
        asked.append(feed["input_ids"].shape)
        return engine.infer(feed)

    feeds = [toy.feed(rows, tokens, seed) for seed, (rows, tokens) in enumerate([(1, 48), (2, 5), (1, 50), (1, 6)])]
    answers = answer(feeds, infer, Limits(max_sequence=64), head != "classification", call=20)
    assert asked == [(3, 6), (2, 50)]
    for found, feed in zip(answers, feeds, strict=True):
        np.testing.assert_allclose(found, engine.infer(feed), atol=1e-5)


def test_without_a_mask_a_length_is_a_run_whatever_it_costs():
    asked = []

    def infer(feed):
        asked.append(feed["input_ids"].shape)
        return np.zeros((len(feed["input_ids"]), 2), np.float32)

    answer([{"input_ids": toy.feed(1, n)["input_ids"]} for n in (3, 9, 3)], infer, Limits(16), call=math.inf)
    assert asked == [(2, 3), (1, 9)]
