"""`optkit serve` goes on when its server or its front dies, and says what happened."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from http.client import HTTPConnection

import psutil
import pytest

from optkit.core.errors import InputError, MachineError
from optkit.serving.client import Client
from optkit.serving.serve import _example, serve

from . import toy

pytestmark = pytest.mark.server
CODE = "import sys; from pathlib import Path; from optkit.serving.serve import serve; serve(Path(sys.argv[1]), 0)"
COMMAND = (
    "import sys; from optkit.cli import app, ending; ending.ONCE_S = 0.0; "
    "app.main(['serve', '--unpublished', '--port', '0', '--repository', sys.argv[1]])"
)


@contextmanager
def serving(repository, code=CODE):
    """Yield the address of `optkit serve`, and a function that waits for a line that it prints."""

    def told(pattern):
        lines = []
        for line in process.stderr:
            lines.append(line)
            if re.search(pattern, line):
                return line
        raise AssertionError("".join(lines))

    process = subprocess.Popen([sys.executable, "-c", code, str(repository)], stderr=subprocess.PIPE, text=True)
    try:
        url = re.search(r"http://(\S+)", told("serving .* on")).group(1)
        told("curl")
        yield url, told, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        process.stderr.close()


def child(process, index, part):
    """The process below one whose command line ends in a part at some place."""
    return next(p for p in process.children(recursive=True) if "".join(p.cmdline()[index : index + 1]).endswith(part))


def place(root, name, **settings):
    toy.place(root, toy.folder(root / f".{name}", **settings), name)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_server_that_dies_is_started_again(number, tmp_path):
    root = tmp_path / "repository"
    for name in ("one", "two"):
        place(root, name)
    with serving(root) as (url, told, process), Client(url, "one") as client:
        feed = toy.feed(1, 8)
        before = client.infer(feed)
        place(root, "three")  # published meanwhile
        child(process, 0, "/tritonserver").send_signal(number)
        said, deadline = set(), time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if (client.infer(feed) == before).all() and said:
                    break
            except MachineError as error:
                said.add(re.search(r"(status \d+|connection failed)", str(error)).group(1))
        assert said == {"status 503"}  # a short refusal, and nothing else
        assert number.name in told(rf"server on {url} ended \(.*\); starting it again")
        assert "one, three, two" in told(f"on http://{url} again, after")
        for name in ("one", "two", "three"):
            with Client(url, name) as other:
                assert (other.infer(feed) == before).all()


def test_another_signal_lets_the_server_end(tmp_path):
    place(tmp_path / "repository", "one")
    with serving(tmp_path / "repository", COMMAND) as (_, told, process):
        process.send_signal(signal.SIGINT)
        told("stopping")
        for _ in range(5):
            time.sleep(0.05)
            process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize(("words", "ids"), [(30522, [101, 102]), (102, [101, 101]), (50, [49, 49]), (None, [101, 102])])
def test_the_command_line_that_is_shown_asks_for_words_that_there_are(words, ids):
    parameters = {"vocab_size": {"string_value": str(words)}} if words else {}
    names = ("attention_mask", "input_ids", "token_type_ids")
    tensors = _example({"parameters": parameters, "input": [{"name": one} for one in names]})
    assert [one["data"] for one in tensors] == [[1, 1], ids, [0, 0]]


@pytest.mark.parametrize("backend", ['backend: "onnxruntime"', 'platform: "tensorrt_plan"'])
def test_a_model_for_other_servers_is_refused_with_the_way_to_serve_it(backend, tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "config.pbtxt").write_text(backend)
    with pytest.raises(InputError, match=r"model 'm' .* is for Triton's backend '(onnx|tensorrt).* --flavour python"):
        serve(tmp_path, 0)
    (tmp_path / "m" / "config.pbtxt").write_text("backend python")
    with pytest.raises(InputError, match=r"m/config\.pbtxt: not a Triton model configuration: 1:"):
        serve(tmp_path, 0)


def test_a_front_that_dies_is_started_again(tmp_path):
    place(tmp_path / "repository", "one")
    with serving(tmp_path / "repository") as (url, told, process), Client(url, "one") as client:
        before = client.infer(toy.feed(1, 8))
        child(process, 2, "-c").send_signal(signal.SIGKILL)
        assert "its front: exit status -9" in told("ended")
        told("again, after")
        client.close()
        assert (client.infer(toy.feed(1, 8)) == before).all()


def test_a_request_that_gets_past_the_front_costs_seconds(tmp_path):
    """Triton makes room for this shape times eight bytes, which overflows."""
    place(tmp_path / "repository", "one")
    asked = {"inputs": [{"name": "input_ids", "shape": [2**31, 2**31], "datatype": "INT64", "data": [1]}]}
    with serving(tmp_path / "repository") as (url, told, process):
        open_here = child(process, 0, "/tritonserver").net_connections("unix")
        triton = next(one.laddr for one in open_here if one.laddr.endswith("/http"))
        curl = ["curl", "-s", "--unix-socket", triton, "-d", json.dumps(asked), "http://localhost/v2/models/one/infer"]
        assert subprocess.run(curl, capture_output=True).returncode != 0
        assert "SIGSEGV" in told("ended")
        assert float(re.search(r"after ([\d.]+) s", told("again, after")).group(1)) < 30
        with Client(url, "one") as client:
            assert client.infer(toy.feed(1, 8)).shape == (1, 3)
        with closing(HTTPConnection(url)) as connection:
            connection.request("POST", "/v2/models/one/infer", json.dumps(asked))
            assert connection.getresponse().status == 400  # the front finds it
    assert not os.path.exists(os.path.dirname(triton))
