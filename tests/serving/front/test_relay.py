"""A real server behind its front: what is refused, what passes, and what becomes of clients that go, wait or hang."""

import asyncio
import gzip
import http.client
import json
import os
import socket
import time
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from tritonclient.http import InferenceServerClient, InferInput

from optkit.core.errors import InputError, MachineError
from optkit.serving.client import Client
from optkit.serving.front import crowd, relay
from optkit.serving.front.crowd import MOST, Crowd
from optkit.serving.front.relay import Conversation
from optkit.serving.front.rules import INFERENCE, Rules
from optkit.serving.front.upstream import Upstreams
from optkit.serving.server import Server
from optkit.serving.slots import Slots

from .. import toy

pytestmark = pytest.mark.server
INFER = "/v2/models/single/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of `single`, and of `slow`, which takes half a second and keeps what it is asked."""
    root = tmp_path_factory.mktemp("repository")
    toy.place(root, toy.folder(root / ".single"), "single")
    toy.place(root, toy.folder(root / ".slow", sleep_s=0.5, calls=str(root / ".calls")), "slow")
    with Server(root, tmp_path_factory.mktemp("logs"), ["single", "slow"], largest_body=2**20) as running:
        yield running


def body(ids=(5, 6), rows=1):
    inputs = {"input_ids": list(ids), "attention_mask": [1] * len(ids)}
    tensors = [{"name": n, "shape": [rows, len(ids)], "datatype": "INT64", "data": v * rows} for n, v in inputs.items()]
    return json.dumps({"inputs": tensors}).encode()


def ask(server, method="POST", path=INFER, content=b"", **headers):
    """Status and body of an answer."""
    with closing(http.client.HTTPConnection(server.url, timeout=20)) as connection:
        connection.request(method, path, content, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read()


def connect(server):
    host, port = server.url.split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def head(path=INFER, length=0, *fields):
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}", *fields, "", ""]).encode()


def answers(connection, count=1):
    """Status and body of the next answers on a connection, which may come together."""
    found = []
    with connection.makefile("rb") as file:
        for _ in range(count):
            status = int(file.readline().split()[1])
            fields = dict(line.split(b": ", 1) for line in iter(lambda: file.readline().lower().strip(), b""))
            found.append((status, file.read(int(fields[b"content-length"]))))
    return found


def works(server):
    """Whether a model is answered."""
    status, content = ask(server, content=body())
    return status == 200 and json.loads(content)["outputs"][0]["shape"] == [1, 3]


DEEP = [b"[" * 160_000, b'{"a":' * 100_000, b'{"inputs":' + b"[" * 160_000 + b"]" * 160_000 + b"}"]
SHAPES = [[-1, 2], [0, 2], [2**62, 4], [2**31, 2**31], [1, 2**63], [1, -(2**63)], [1, 10**9], [2**20, 2**20]]
SHAPES += [[1, 2.5], [], [1], "x", None, [[1]], [1] * 10000]


@pytest.mark.parametrize("deep", DEEP)
def test_a_body_that_ends_triton_is_refused(deep, server):
    compressed = gzip.compress(deep)
    assert ask(server, content=deep)[0] == 400
    assert ask(server, content=compressed, Content_Encoding="gzip")[0] == 400
    assert ask(server, content=deep + b"x" * 9, Inference_Header_Content_Length=str(len(deep)))[0] == 400
    for path in ("/v2/repository/index", "/v2/repository/models/single/load", "/v2/logging", "/v2/trace/setting"):
        assert ask(server, path=path, content=deep, Optkit_Secret=server._ticket.secret)[0] == 400
    assert works(server)


def test_what_is_too_large_is_refused_before_it_is_read(server):
    with closing(connect(server)) as connection:
        connection.sendall(head(INFER, 2**40, "Expect: 100-continue"))
        assert answers(connection)[0][0] == 413
    with closing(connect(server)) as connection:  # a client that sends all the same reads why
        connection.sendall(head(INFER, 2**22) + b"x" * 2**22)
        assert answers(connection)[0][0] == 413
    bomb = gzip.compress(b" " * 500_000_000)
    before = psutil.Process(server._front.pid).memory_info().rss + server.memory_bytes()
    assert len(bomb) < 2**20
    assert [ask(server, content=bomb, Content_Encoding=kind)[0] for kind in ("gzip", "deflate")] == [413, 413]
    after = psutil.Process(server._front.pid).memory_info().rss + server.memory_bytes()
    assert after - before < 2**26
    assert works(server)


def test_compressed_requests_are_answered(server):
    assert ask(server, content=gzip.compress(body()), Content_Encoding="gzip") == ask(server, content=body())
    with closing(InferenceServerClient(server.url)) as client:
        inputs = [InferInput(name, [1, 8], "INT64") for name in ("input_ids", "attention_mask")]
        for tensor in inputs:
            tensor.set_data_from_numpy(np.ones((1, 8), np.int64))
        plain = client.infer("single", inputs).as_numpy("logits")
        for kind in ("gzip", "deflate"):
            found = client.infer("single", inputs, request_compression_algorithm=kind, response_compression_algorithm=kind)
            assert found.as_numpy("logits").tolist() == plain.tolist()


def test_batches_beyond_the_limit_are_refused(server):
    with Client(server.url, "single") as client:
        for feed in (toy.feed(33, 8), toy.feed(1, 65), toy.feed(33, 65)):
            with pytest.raises(InputError, match="status 400"):
                client.infer(feed)
    assert works(server)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_that_are_none_are_refused(shape, server):
    asked = json.loads(body())
    for tensor in asked["inputs"]:
        tensor["shape"] = shape
    assert ask(server, content=json.dumps(asked).encode())[0] in (400, 500)
    for tensor in asked["inputs"]:
        del tensor["data"]
        tensor["parameters"] = {"binary_data_size": 16}
    described = json.dumps(asked).encode()
    length = {"Inference_Header_Content_Length": str(len(described))}
    assert ask(server, content=described + bytes(32), **length)[0] in (400, 500)
    assert works(server)


def test_a_request_in_many_pieces_and_several_in_one(server):
    request = head(INFER, len(body())) + body()
    with closing(connect(server)) as connection:
        for one in range(len(request)):
            connection.sendall(request[one : one + 1])
        (first,) = answers(connection)
        connection.sendall(request * 20 + request[:-1])
        assert answers(connection, 20) == [first] * 20 and first[0] == 200
        connection.sendall(request[-1:])
        assert answers(connection) == [first]


def test_large_requests_and_answers_pass_whole(server):
    rows = 32
    content = body(range(1000, 1064), rows) + b" " * 900_000
    status, answer = ask(server, content=content)
    assert status == 200 and json.loads(answer)["outputs"][0]["shape"] == [rows, 3]


def test_only_the_owner_controls_the_server(server, tmp_path, monkeypatch):
    code = "raise RuntimeError"
    load = json.dumps({"parameters": {"config": "{}", "file:1/model.py": code}}).encode()
    for fields in ({}, {"Host": "evil.example"}, {"Origin": "http://evil.example", "Content_Type": "text/plain"}):
        for path in ("/v2/repository/models/evil/load", "/v2/repository/models/single/unload", "/v2/repository/index"):
            assert ask(server, path=path, content=load, **fields)[0] == 403
    for method, path in (
        ("GET", "/v2/models/stats"),
        ("GET", "/v2/trace/setting"),
        ("GET", "/v2/systemsharedmemory/status"),
    ):
        assert ask(server, method, path)[0] == 403
        assert ask(server, method, path, Optkit_Secret=server._ticket.secret)[0] == 200
    with Client(server.url, "single") as client:
        assert client.statistics()["name"] == "single" and client.others() == "single, slow"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # another user
        assert client.ready() and client.others() == "(only the user who serves may list them)"
        with pytest.raises(MachineError, match="status 403: no request for inference; others need the server's secret"):
            client.statistics()
    assert works(server)


def test_the_secret_is_in_one_file_of_the_owner(server):
    secret = server._ticket.secret
    assert secret in server._place.read_text() and server._place.stat().st_mode & 0o777 == 0o600
    assert secret not in server.log.read_text(errors="replace")
    for process in psutil.process_iter():
        try:
            told = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        assert not any(secret in one for one in told), process


def test_idle_connections_make_room_for_others(server):
    idle = [connect(server) for _ in range(MOST + 100)]
    try:
        assert works(server)
        assert len(psutil.Process(server._front.pid).net_connections("tcp")) < MOST + 20
        assert answers(idle[0])[0][0] == 408  # so that it knows
    finally:
        for connection in idle:
            connection.close()
    assert works(server)


def test_requests_whose_client_has_gone_are_not_computed(server):
    connections = [connect(server) for _ in range(6)]
    for number, connection in enumerate(connections):
        content = body((1000 + number, 7))
        connection.sendall(head("/v2/models/slow/infer", len(content)) + content)
        time.sleep(0.02)  # so that they queue in this order
    for connection in connections[1:5]:
        connection.close()
    assert [answers(connections[number])[0][0] for number in (0, 5)] == [200, 200]
    calls = (server.repository / ".calls").read_text().splitlines()
    assert [json.loads(line)["input_ids"][0][0] for line in calls] == [1000, 1005]
    for number in (0, 5):
        connections[number].close()


@contextmanager
def listening(server, tmp_path, monkeypatch, **limits):
    """Yield a function that talks to a front of this process before the same server, whose limits are others."""
    for name, value in limits.items():
        monkeypatch.setattr(relay if hasattr(relay, name) else crowd, name, value)

    async def talk(script):
        everybody = Crowd(0)
        upstreams = Upstreams(f"{server._ticket.folder}/http")
        begin = partial(Conversation, everybody, Slots(tmp_path / "slots"), Rules(INFERENCE, "s", 2**20), upstreams)
        listener = await asyncio.get_running_loop().create_server(begin, "127.0.0.1", 0)
        working = asyncio.create_task(asyncio.to_thread(script, listener.sockets[0].getsockname()[1]))
        while not working.done():
            everybody.sweep()
            await asyncio.sleep(0.01)
        listener.close()
        return await working

    yield lambda script: asyncio.run(talk(script))


def until_closed(port, sent=b""):
    """Everything that comes back after some bytes, in time."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as connection:
        connection.sendall(sent)
        return connection.makefile("rb").read()


@pytest.mark.parametrize(
    ("limit", "sent", "status"),
    [
        ("FIRST_S", b"", b"408"),
        ("HEAD_S", b"POST", b"408"),
        ("HEAD_S", head()[:-2], b"408"),
        ("BODY_S", head(INFER, 100) + b"{", b"408"),
        ("BODY_S", head(INFER, 100, "Inference-Header-Content-Length: 2") + b"{}x", b"408"),
        ("MOST_BYTES", head(INFER, 1000) + b" " * 1000, b"429"),
    ],
)
def test_who_does_not_come_to_an_end_is_told_so(limit, sent, status, server, tmp_path, monkeypatch):
    with listening(server, tmp_path, monkeypatch, **{limit: 0.1}) as talk:
        assert talk(lambda port: until_closed(port, sent)).split()[1] == status


def test_too_many_that_are_busy(server, tmp_path, monkeypatch):
    def script(port):
        busy = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        for connection in busy:
            connection.sendall(b"POST ")
        time.sleep(0.2)
        told = until_closed(port)
        for connection in busy:
            connection.close()
        return told

    with listening(server, tmp_path, monkeypatch, MOST=3) as talk:
        assert talk(script).split()[1] == b"429"


def test_a_connection_that_was_used_is_closed_in_silence(server, tmp_path, monkeypatch):
    """A client could take a refusal for the answer to its next request."""
    with listening(server, tmp_path, monkeypatch, IDLE_S=0.1) as talk:
        told = talk(lambda port: until_closed(port, head(INFER, len(body())) + body()))
    assert told.startswith(b"HTTP/1.1 200") and told.count(b"HTTP/1.1") == 1


def test_without_triton_clients_are_told_to_come_again(tmp_path):
    version = toy.place(tmp_path / "repository", toy.folder(tmp_path / "engine"), "single")
    assert version.is_dir()
    with Server(tmp_path / "repository", tmp_path / "logs", ["single"]) as running:
        running._triton.close()
        with closing(connect(running)) as connection:
            connection.sendall(head(INFER, len(body())) + body())
            assert connection.recv(10_000).split()[1] == b"503"
        running.restart(["single"])
        assert works(running)
        os.kill(running._front.pid, 9)
        running._front.wait()
        running.restart(["single"])
        assert works(running)
    assert not Path(running._ticket.folder).exists() and not running._place.exists()
