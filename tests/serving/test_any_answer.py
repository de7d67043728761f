"""Whatever answers in the place of a Triton server is named: never a traceback, never a hang."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optkit.core.errors import InputError, MachineError, OptkitError
from optkit.registry.live_server import Running
from optkit.serving import log
from optkit.serving.client import Client
from optkit.serving.text_client import TextClient
from tests import damage

TENSOR = {"name": "input_ids", "datatype": "INT64", "shape": [-1, -1], "dims": [-1], "data_type": "TYPE_INT64"}
GOOD = {
    "/v2": {"name": "triton", "version": "2", "extensions": []},
    "/v2/repository/index": [{"name": "m", "version": "1", "state": "READY"}, {"name": "m_text", "state": "READY"}],
    "/v2/models/m_text/config": {
        "name": "m_text",
        "input": [{"name": "text"}],
        "output": [{"name": "label"}],
        "parameters": {"labels": {"string_value": '["a", "b"]'}, "head": {"string_value": "classification"}},
    },
    "/v2/models/m": {"name": "m", "inputs": [TENSOR], "outputs": [TENSOR]},
    "/v2/models/m/stats": {"model_stats": [{"name": "m", "version": "1", "inference_count": 1}]},
}
DEEP = b"[" * 50_000


class Answers(BaseHTTPRequestHandler):
    """Answers what the server has been told to."""

    def answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(size)
        body = self.server.bodies.get(self.path) or json.dumps(GOOD.get(self.path, {})).encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def other() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.bodies = {}  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()


def asked(url: str) -> list[Callable[[], object]]:
    """Everything that commands ask a server."""
    return [
        lambda: Running(url, deadline_s=5).require(),
        lambda: Running(url, deadline_s=5).live("m"),
        lambda: Running(url, deadline_s=5).parameter("m_text", "head"),
        lambda: TextClient(url, "m", timeout_s=5).ask([("a text",)]),
        *(getattr(Client(url, "m", timeout_s=5), name) for name in ("others", "metadata", "statistics", "server")),
    ]


@st.composite
def answers(draw: st.DrawFn) -> dict[str, bytes]:
    path = draw(st.sampled_from(list(GOOD)))
    whole = json.dumps(GOOD[path]).encode()
    return {
        path: draw(damage.misfits(GOOD[path]) | damage.damaged(whole) | st.sampled_from([DEEP, b"<html>", b"5"])) or b"x"
    }


@pytest.mark.slow
@pytest.mark.doors
@given(bodies=answers())
def test_any_answer_is_taken_or_refused_by_the_servers_address(bodies: dict[str, bytes], other: ThreadingHTTPServer) -> None:
    other.bodies = bodies  # type: ignore[attr-defined]
    url = f"127.0.0.1:{other.server_port}"
    for ask in asked(url):
        try:
            ask()
        except OptkitError as error:
            assert damage.is_told(error, url)


@pytest.mark.parametrize("body", [DEEP, b"9" * 5000, b"<html>", b"[]", b"5", b'{"name": 5}'])
def test_what_is_no_triton_server_is_said(body: bytes, other: ThreadingHTTPServer) -> None:
    other.bodies = dict.fromkeys([*GOOD, "/"], body)  # type: ignore[attr-defined]
    require, _, _, ask_text, *_ = asked(f"127.0.0.1:{other.server_port}")
    for ask in (require, ask_text):
        with pytest.raises((MachineError, InputError), match=r"another server|not Triton|found no model"):
            ask()


@pytest.mark.parametrize("missing", ["input", "output", "parameters"])
def test_a_configuration_without_a_part_is_said(missing: str, other: ThreadingHTTPServer) -> None:
    path = "/v2/models/m_text/config"
    other.bodies = {path: json.dumps({name: value for name, value in GOOD[path].items() if name != missing}).encode()}  # type: ignore[attr-defined]
    with pytest.raises(MachineError, match=r"another server"):
        TextClient(f"127.0.0.1:{other.server_port}", "m", timeout_s=5).ask([("a text",)])


def test_a_task_that_nobody_has_is_said_with_the_servers_address(other: ThreadingHTTPServer) -> None:
    path = "/v2/models/m_text/config"
    other.bodies = {path: json.dumps({**GOOD[path], "parameters": {"head": {"string_value": "knitting"}}}).encode()}  # type: ignore[attr-defined]
    url = f"127.0.0.1:{other.server_port}"
    with pytest.raises(InputError, match=rf"{url}, model 'm_text': head 'knitting'"):
        TextClient(url, "m", timeout_s=5).ask([("a text",)])


def test_a_reason_of_any_length_and_depth_is_short() -> None:
    assert log.reason(b'{"error": "no such model"}') == "no such model"
    assert len(log.reason(DEEP)) == 2000
    assert len(log.reason(json.dumps({"error": "x" * 10**6}).encode())) == 2000
