"""One server for all tests of a module that ask it, over toy engines."""

import pytest

from optkit.serving.client import Client
from optkit.serving.server import Server

from . import toy


@pytest.fixture(scope="module")
def toy_repository(tmp_path_factory):
    """Models `classify`, `answer` (both wait 50 ms for company), `single` (no batching) and `broken`."""
    root, engines = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("engines")
    classify = toy.folder(engines / "classify")
    answer = toy.folder(engines / "answer", head="question_answering")
    toy.place(root, classify, "classify", queue_delay_us=50_000, vocab_size=30522)
    toy.place(root, answer, "answer", (-1, 2), queue_delay_us=50_000)
    toy.place(root, classify, "single")
    toy.place(root, toy.folder(engines / "broken", broken=True), "broken")
    return root


@pytest.fixture(scope="module")
def server(toy_repository, tmp_path_factory):
    with Server(toy_repository, tmp_path_factory.mktemp("logs"), ["classify", "answer", "single"]) as running:
        yield running


@pytest.fixture
def ask(server):
    """Makes clients that are closed at the end of the test."""
    clients = []

    def make(model, **settings):
        clients.append(Client(server.url, model, **settings))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
