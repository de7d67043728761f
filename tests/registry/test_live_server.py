"""A server that runs goes over to a new version without a failed request, or keeps the old one."""

import dataclasses
import threading
from contextlib import contextmanager

import numpy as np
import psutil
import pytest

from optkit.core.errors import GateError, InputError, MachineError
from optkit.registry import disk, history, layout, verify
from optkit.registry.disk import locked
from optkit.registry.live_server import Running
from optkit.registry.release import place
from optkit.registry.rollback import rollback
from optkit.registry.smoke_test import Probe
from optkit.serving import repository as repositories
from optkit.serving.client import Client
from optkit.serving.server import Server

from . import killing, small
from .conftest import trusting

pytestmark = pytest.mark.server


@pytest.fixture
def server(repository, tmp_path):
    """A server of the repository with three versions, the third one live."""
    with Server(repository, tmp_path / "logs", [small.MODEL]) as running:
        yield running


def publish(root, release, url):
    with locked(root, "test"):
        running = Running(url)
        running.require()
        return place(root, release, trusting, running)


def answers(server, release):
    """Whether the server answers with this release's engine."""
    with Client(server.url, small.MODEL) as client:
        return np.allclose(client.infer(release.probes["sample"].feed), release.probes["sample"].logits, atol=1e-4)


def loaded(server):
    """{(model, version)} that the server has loaded."""
    return {key for key, state in Running(server.url)._states().items() if state in ("READY", "LOADING")}


def wrong(release):
    """A release that expects other answers than its engine gives."""
    given = release.probes["opt"]
    return dataclasses.replace(release, probes={**release.probes, "opt": Probe(given.feed, -given.logits)})


def broken(release, folder):
    """A release whose engine cannot be loaded by anybody."""
    small.engine(folder)
    (folder / "model.onnx").write_bytes(b"no graph")
    return dataclasses.replace(release, engine=folder)


def unchanged(server, repository, releases):
    """The third version serves, and nothing else is there."""
    assert answers(server, releases[2])
    assert {key for key in loaded(server) if key[1]} == {(small.MODEL, "3")}
    assert repositories.versions(repository / small.MODEL) == (1, 2, 3)
    assert verify.verify(repository) == [] and layout.live(repository / small.MODEL) == 3
    assert not list(repository.glob(f"{disk.UNFINISHED}*"))


def test_the_server_goes_over_to_the_new_version_and_back(server, repository, releases):
    assert answers(server, releases[2])
    publish(repository, releases[3], server.url)
    assert answers(server, releases[3])
    assert rollback(repository, small.MODEL, url=f"http://{server.url}/", why="too slow") == 3
    assert answers(server, releases[2])
    assert history.read(repository / small.MODEL)[-1]["why"] == "too slow"


def test_a_model_that_the_server_does_not_have_yet(server, repository, tmp_path):
    release = small.release(tmp_path / "engine", 7, name="another")
    publish(repository, release, server.url)
    with Client(server.url, "another") as client:
        client.infer(release.probes["sample"].feed)


def test_no_request_fails_while_versions_change(server, repository, releases):
    """Six clients ask all the time; each answer is one of the two versions', and none is an error."""
    feed = releases[2].probes["sample"].feed
    right = [releases[number].probes["sample"].logits for number in (1, 2, 3)]
    stop, failures, counts = threading.Event(), [], [0, 0, 0]

    def ask():
        with Client(server.url, small.MODEL) as client:
            while not stop.is_set():
                try:
                    answer = client.infer(feed)
                    counts[[np.allclose(answer, logits, atol=1e-4) for logits in right].index(True)] += 1
                except Exception as error:
                    failures.append(error)
                    return

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    publish(repository, releases[3], server.url)
    rollback(repository, small.MODEL, to=2, url=server.url)
    rollback(repository, small.MODEL, to=3, url=server.url)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures and min(counts) > 0, (failures, counts)


def test_a_version_that_the_server_rejects(server, repository, releases, tmp_path):
    with pytest.raises(MachineError, match=r"cannot load model '.publishing-\w+': .*Protobuf parsing failed") as caught:
        publish(repository, broken(releases[3], tmp_path / "broken"), server.url)
    assert "Its log says more" in str(caught.value)
    unchanged(server, repository, releases)


def test_a_version_that_answers_wrongly(server, repository, releases):
    with pytest.raises(GateError, match=r"probe 'opt' \[8, 16\]: logits differ from the reference by"):
        publish(repository, wrong(releases[3]), server.url)
    unchanged(server, repository, releases)


def test_a_version_that_fails_only_when_it_has_gone_live(server, repository, releases, monkeypatch):
    """It passes its trial, and the server cannot load it in its place: the old version serves on."""
    trial = Running.trial

    def sabotage(self, folder):
        with trial(self, folder) as name:
            yield name
        (folder / "4" / "engine" / "model.onnx").write_bytes(b"no graph")

    monkeypatch.setattr(Running, "trial", contextmanager(sabotage))
    with pytest.raises(MachineError, match="cannot load model 'classification_tiny'"):
        publish(repository, releases[3], server.url)
    unchanged(server, repository, releases)


def test_a_rollback_to_a_version_that_cannot_be_loaded(server, repository, releases, monkeypatch):
    """Its files are what they were, and the server fails all the same: what was live stays live."""
    monkeypatch.setattr("optkit.registry.verify.version", lambda folder: [])
    (repository / small.MODEL / "1" / "engine" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(MachineError, match="cannot load model"):
        rollback(repository, small.MODEL, to=1, url=server.url)
    assert answers(server, releases[2]) and layout.live(repository / small.MODEL) == 3


def test_a_server_that_is_lost_between_load_and_probe(server, repository, releases, monkeypatch):
    load = Running.load

    def load_and_lose(self, model):
        load(self, model)
        next(
            p for p in psutil.process_iter(["cmdline"]) if f"--id={server.identity}" in (p.info["cmdline"] or ())[1:2]
        ).kill()

    monkeypatch.setattr(Running, "load", load_and_lose)
    with pytest.raises(MachineError, match=r"model '.publishing-\w+', request 0: refused with status 503: Triton has ended"):
        publish(repository, releases[3], server.url)
    assert repositories.versions(repository / small.MODEL) == (1, 2, 3)
    assert layout.live(repository / small.MODEL) == 3 and verify.verify(repository) == []
    assert not list(repository.glob(f"{disk.UNFINISHED}*"))


@pytest.mark.parametrize("live", [True, False])
def test_a_server_that_is_lost_while_it_goes_over(live, server, repository, releases, tmp_path, monkeypatch):
    """The repository goes back to what it was, or to no model at all where there was none."""
    load = Running.load

    def lose(self, model):
        if not model.startswith(disk.UNFINISHED):
            server.close()
        load(self, model)

    monkeypatch.setattr(Running, "load", lose)
    release = releases[3] if live else small.release(tmp_path / "engine", 7, name="another")
    with pytest.raises(MachineError, match=r"does not answer: .*Is it running there\?"):
        publish(repository, release, server.url)
    assert repositories.models(repository) == {small.MODEL: (1, 2, 3)}
    assert layout.live(repository / small.MODEL) == 3 and verify.verify(repository) == []


def test_killed_at_every_request_to_the_server(server, repository, releases):
    """The server serves old or new; the next publisher unloads what the dead one had on trial."""
    step, killed = 0, True
    while killed:
        killed = killing.killed_at(step, "socket.connect", killing.publish, repository, releases[step % 2], server.url)
        step += 1
        assert verify.verify(repository) == []
        with Client(server.url, small.MODEL) as client:
            client.infer(releases[0].probes["sample"].feed)
    assert step > 6
    publish(repository, releases[3], server.url)
    assert answers(server, releases[3])
    assert not [name for name, _ in loaded(server) if name.startswith(disk.UNFINISHED)]


def test_an_interruption_leaves_the_old_version(server, repository, releases):
    # in the middle of the trial: after those that look for the server and what it has loaded
    assert killing.interrupted_at(4, "socket.connect", killing.publish, repository, releases[3], server.url)
    unchanged(server, repository, releases)


def test_a_server_of_another_repository(server, tmp_path, releases):
    with pytest.raises(MachineError, match=r"failed to poll from model repository.*Does it serve this repository"):
        publish(tmp_path / "elsewhere", releases[3], server.url)
    assert repositories.models(tmp_path / "elsewhere") == {}


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1", "127.0.0.1:http", "https://127.0.0.1:1", "127.0.0.1:1/v2", "127.0.0.1:99999"]
)
def test_an_address_that_is_none(url):
    with pytest.raises(InputError, match=r"expected host:port of a Triton server's HTTP protocol"):
        Running(url)


def test_nobody_listens_there(repository, releases):
    with pytest.raises(MachineError, match=r"127.0.0.1:1: does not answer: .*refused.*Is it running there"):
        publish(repository, releases[3], "127.0.0.1:1")
