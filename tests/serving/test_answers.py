"""What a real server answers is what the engine answers, however requests are batched."""

import threading

import numpy as np
import pytest

from optkit.core.errors import InputError, MachineError
from optkit.serving.client import Client

from . import toy

pytestmark = pytest.mark.server

HEADS = {"classify": {"head": "classification"}, "answer": {"head": "question_answering"}}


def same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert found.dtype == np.float32


@pytest.mark.parametrize("model", HEADS)
@pytest.mark.parametrize(("batch", "sequence"), [(1, 1), (1, 64), (8, 17), (32, 64)])
def test_answers_equal_the_engines(ask, model, batch, sequence):
    feed = toy.feed(batch, sequence)
    same(ask(model).infer(feed), toy.infer(HEADS[model], feed))


@pytest.mark.parametrize("model", HEADS)
def test_requests_of_different_lengths_share_batches_and_keep_their_answers(server, ask, model):
    feeds = [toy.feed(1 + n % 3, 5 + 4 * n, seed=n) for n in range(12)]
    before = _executions(server, model)
    answers = ask(model).infer_many(feeds, concurrency=12)
    for feed, answer in zip(feeds, answers, strict=True):
        same(answer, toy.infer(HEADS[model], feed))
    assert _executions(server, model) - before < len(feeds), "no two requests shared a batch"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": -np.ones((1, 9), np.int64)}, "found values from -1 to -1, expected 0 to 30521"),
        ({"input_ids": np.full((1, 9), 30522)}, "found values from 30522 to 30522, expected 0 to 30521"),
        ({"attention_mask": np.full((1, 9), 2)}, "attention_mask: found values from 2 to 2, expected 0 to 1"),
        ({"attention_mask": np.ones((1, 8), np.int64)}, "found int64 .1, 8., expected int64 .batch, sequence. like"),
        ({"input_ids": np.ones((1, 9), np.float32)}, "data-type is 'FP32', but model 'classify' expects 'INT64'"),
    ],
)
def test_a_bad_request_is_refused(ask, change, message):
    with pytest.raises(InputError, match=message):
        ask("classify").infer({**toy.feed(1, 9), **change})


def test_a_request_beyond_the_models_limits_is_refused(ask):
    with pytest.raises(InputError, match=r"found 65 tokens, expected 1 to 64. Truncate the text"):
        ask("classify").infer(toy.feed(1, 65))
    with pytest.raises(InputError, match=r"request batch-size must be <= 32"):
        ask("classify").infer(toy.feed(33, 8))


@pytest.mark.parametrize(("token", "error"), [(-1, InputError), (toy.FAILING, MachineError)])
def test_a_bad_request_alone_gets_the_error_of_its_batch(server, ask, token, error):
    """Eight requests wait for each other in the server; the one that cannot be answered spoils nothing."""
    feeds = [toy.feed(1, 6 + n, seed=n) for n in range(8)]
    feeds[3]["input_ids"][0, 0] = token
    outcomes = _at_once(ask("classify"), feeds)
    assert isinstance(outcomes.pop(3), error)
    for feed, outcome in zip(feeds[:3] + feeds[4:], outcomes, strict=True):
        same(outcome, toy.infer(HEADS["classify"], feed))


def test_models_come_and_go_on_one_server(server, ask):
    feed = toy.feed(2, 8)
    server.unload("single")
    with pytest.raises(MachineError, match=r"'single', request 0: refused with status"):
        ask("single").infer(feed)
    server.load("single")
    same(ask("single").infer(feed), toy.infer(HEADS["classify"], feed))


def test_the_repository_holds_what_was_placed_and_nothing_else(server, toy_repository):
    """The backend's interpreter would leave byte code beside `model.py`."""
    assert sorted(path.name for path in (toy_repository / "single/1").iterdir()) == ["engine", "model.py"]


def _executions(server, model):
    """How often the server ran the model."""
    with Client(server.url, model) as client:
        return client.statistics()["execution_count"]


def _at_once(client, feeds):
    """All feeds from a thread each; an answer or an exception for each."""
    outcomes = [None] * len(feeds)
    barrier = threading.Barrier(len(feeds))

    def work(index):
        barrier.wait(10)
        try:
            outcomes[index] = client.infer(feeds[index])
        except Exception as error:
            outcomes[index] = error
        finally:
            client.close()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(feeds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes
