"""The live model and the one that is to follow it are asked the same, and what differs is counted."""

import json
from dataclasses import replace

import numpy as np
import pytest

from optkit.core.errors import GateError, InputError, MachineError
from optkit.pipeline.publish import Options, publish
from optkit.registry import layout
from optkit.registry.disk import locked
from optkit.registry.release import place
from optkit.registry.shadow import read_requests
from optkit.serving import repository as repositories
from optkit.serving.server import Server

from . import small
from .conftest import trusting

pytestmark = pytest.mark.server


@pytest.fixture
def server(repository, tmp_path):
    with Server(repository, tmp_path / "logs", [small.MODEL]) as running:
        yield running


def body(feed):
    """A request as it is posted to Triton."""
    inputs = [
        {"name": name, "shape": list(array.shape), "datatype": "INT64", "data": array.ravel().tolist()}
        for name, array in feed.items()
    ]
    return json.dumps({"inputs": inputs})


def test_too_many_differences_keep_the_live_version(checkpoints, repository, server, releases):
    """Other random weights: nearly every prediction is another one."""
    expected = r"shadow: [1-4] of 4 predictions differ from those of 'classification_tiny' on .*at most 5.0% were expected"
    with pytest.raises(GateError, match=expected):
        publish("tiny", "classification", checkpoints, repository, options=Options(shadow=server.url))
    assert repositories.versions(repository / small.MODEL) == (1, 2, 3)


def test_differences_are_allowed_and_written_down(checkpoints, repository, server, releases, tmp_path):
    requests = tmp_path / "requests.jsonl"
    feeds = [small.release(tmp_path / str(n), n).probes["opt"].feed for n in range(2)]
    requests.write_text("\n".join(body(feed) for feed in feeds) + "\n\n")
    options = Options(shadow=server.url, requests=requests, max_disagreement=1.0)
    version = publish("tiny", "classification", checkpoints, repository, options=options)
    found = layout.provenance(version)["checks"]["shadow"]
    assert (found["requests"], found["predictions"]) == (2, 16)
    assert 0 < found["differ"] <= 16 and found["share"] == found["differ"] / 16 and found["mean_difference"] > 0


def test_the_same_engine_agrees(checkpoints, repository, releases, tmp_path):
    engine = checkpoints / "classification" / "tiny" / "seed-0" / "engines" / "fp32"
    with locked(repository, "test"):
        place(repository, replace(releases[0], engine=engine), trusting)  # takes no text, so that it is another release
    with Server(repository, tmp_path / "logs", [small.MODEL]) as server:
        version = publish("tiny", "classification", checkpoints, repository, options=Options(shadow=server.url))
    assert layout.provenance(version)["checks"]["shadow"]["differ"] == 0


def test_a_live_model_that_is_not_there(checkpoints, repository, server, tmp_path):
    (tmp_path / "empty").mkdir()
    with (
        Server(tmp_path / "empty", tmp_path / "logs") as other,
        pytest.raises(MachineError, match="Request for unknown model: 'classification_tiny'"),
    ):
        publish("tiny", "classification", checkpoints, repository, options=Options(shadow=other.url))
    with pytest.raises(MachineError, match="the connection failed"):
        publish("tiny", "classification", checkpoints, repository, options=Options(shadow="127.0.0.1:1"))


def test_requests_are_read_as_they_were_posted(tmp_path):
    path = tmp_path / "requests.jsonl"
    feed = {"input_ids": np.arange(6).reshape(2, 3), "attention_mask": np.ones((2, 3), np.int64)}
    path.write_text(body(feed))
    (found,) = read_requests(path)
    assert found.keys() == feed.keys() and all(np.array_equal(found[name], feed[name]) for name in feed)


@pytest.mark.parametrize(
    "line", ["no json", "[]", '{"inputs": 3}', '{"inputs": [{"name": "a", "shape": [1, 3], "data": [1]}]}']
)
def test_a_line_that_is_no_request_is_named(line, tmp_path):
    path = tmp_path / "requests.jsonl"
    path.write_text(body({"input_ids": np.ones((1, 2), np.int64)}) + "\n" + line)
    with pytest.raises(InputError, match=r"requests.jsonl:2: .+; expected a request's body"):
        read_requests(path)


def test_files_without_requests_are_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read: .*No such file"):
        read_requests(tmp_path / "none")
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match="found no requests"):
        read_requests(tmp_path / "empty")
