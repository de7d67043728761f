"""Inference over a bare socket: when a request is sent again."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from optkit.serving.wire import Wire

BUSY = {"error": "Stub process 'm_0_0' is not healthy."}
ANSWER = {"model_name": "m", "outputs": [{"name": "logits", "datatype": "FP32", "shape": [1], "data": [0.5]}]}


class Answers(BaseHTTPRequestHandler):
    """Answers what the server has been told to, one after the other."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        told = self.server.told.pop(0)  # type: ignore[attr-defined]
        body = json.dumps(told).encode()
        self.send_response(500 if "error" in told else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    found = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()


@pytest.mark.parametrize(
    ("told", "asked", "said"),
    [
        ([BUSY, BUSY, ANSWER], 3, None),
        ([BUSY, BUSY, BUSY, ANSWER], 3, "is not healthy"),  # dead, and not only kept waiting
        ([{"error": "out of memory"}, ANSWER], 1, "out of memory"),
    ],
)
def test_a_backend_that_had_no_processor_is_asked_again(
    told: list[dict[str, Any]], asked: int, said: str | None, server: ThreadingHTTPServer
) -> None:
    server.told = list(told)  # type: ignore[attr-defined]
    wire = Wire(f"127.0.0.1:{server.server_port}", 5.0)
    if said is None:
        assert wire.infer("m", []).as_numpy("logits").tolist() == [0.5]
    else:
        with pytest.raises(InferenceServerException, match=said):
            wire.infer("m", [])
    wire.close()
    assert len(server.told) == len(told) - asked  # type: ignore[attr-defined]
