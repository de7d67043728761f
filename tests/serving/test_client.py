"""A server that answers something else, nothing, or garbage is an error that names it, the model and the request."""

import json
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import psutil
import pytest

from optkit.core.errors import InputError, MachineError
from optkit.serving.client import Client

from . import toy

pytestmark = pytest.mark.slow

METADATA = {"name": "m", "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}]}
GOOD = {"name": "logits", "datatype": "FP32", "shape": [2, 3], "data": [0.0] * 6}


class Impostor(BaseHTTPRequestHandler):
    """Speaks enough of the protocol to answer whatever the test wants."""

    protocol_version = "HTTP/1.1"
    metadata = METADATA
    answer = staticmethod(lambda number: {"model_name": "m", "id": str(number), "outputs": [GOOD]})

    def do_GET(self):
        self.reply(self.metadata)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        number = json.loads(body[: int(self.headers["Inference-Header-Content-Length"])])["id"]
        self.reply(self.answer(number))

    def reply(self, content):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def impostor():
    """Makes a client of a server with other metadata, answers or delay than a good one."""
    servers, clients = [], []

    def make(timeout_s=5.0, **changes):
        handler = type("Changed", (Impostor,), changes)
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        clients.append(Client(f"127.0.0.1:{servers[-1].server_port}", "m", timeout_s))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
    for server in servers:
        server.shutdown()
        server.server_close()


def answering(**changes):
    """An answer to any request, with what the test changes."""
    return staticmethod(lambda number: {"model_name": "m", "id": number, "outputs": [GOOD]} | changes)


def test_a_good_answer_is_taken(impostor):
    client = impostor(answer=answering())
    assert client.infer(toy.feed(2, 4)).shape == (2, 3)
    assert len(client.infer_many([toy.feed(2, 4)] * 5, concurrency=3)) == 5


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"model_name": "other"}, "'other'"),
        ({"id": "9"}, "'9'"),
        ({"outputs": [GOOD | {"shape": [3, 2]}]}, r"\[3, 2\]"),
        ({"outputs": [GOOD | {"datatype": "FP64"}]}, "FP64"),
        ({"outputs": [GOOD | {"name": "embedding"}]}, "embedding"),
        ({"outputs": []}, r"\[\]"),
    ],
)
def test_another_answer_is_an_error(impostor, changes, found):
    client = impostor(answer=answering(**changes))
    with pytest.raises(MachineError, match=rf"server on {client.url}, model 'm', request 0: found .*{found}.*expected"):
        client.infer(toy.feed(2, 4))


def test_another_version_is_an_error(impostor):
    client = impostor(answer=answering(model_version="3"))
    assert client.infer(toy.feed(2, 4)).shape == (2, 3), "any version will do where none was asked for"
    asking = Client(client.url, "m", version=2)
    with pytest.raises(MachineError, match=r"model 'm', request 0: found \('m', '3', '0'.*expected \('m', '2', '0'"):
        asking.infer(toy.feed(2, 4))
    asking.close()


@pytest.mark.parametrize("content", [b"not json", b"[]", b'{"model_name": "m", "id": "0", "outputs": [{}]}'])
def test_garbage_is_an_error(impostor, content):
    client = impostor(answer=staticmethod(lambda number: content))
    with pytest.raises(MachineError, match=r"model 'm', request 0: "):
        client.infer(toy.feed(2, 4))


def test_fewer_numbers_than_the_shape_says_are_an_error(impostor):
    client = impostor(answer=answering(outputs=[GOOD | {"data": []}]))
    with pytest.raises(MachineError, match=r"model 'm', request 0: "):
        client.infer(toy.feed(2, 4))


@pytest.mark.parametrize("metadata", [METADATA | {"name": "other"}, METADATA | {"outputs": []}])
def test_other_metadata_are_an_error(impostor, metadata):
    with pytest.raises(MachineError, match=r"model 'm', the metadata: found"):
        impostor(metadata=metadata).infer(toy.feed(2, 4))


def test_a_stall_ends_at_the_deadline_and_the_client_lives_on(impostor):
    delays_s = iter([2.0, 0.0])

    def stall_first(number):
        time.sleep(next(delays_s))
        return {"model_name": "m", "id": number, "outputs": [GOOD]}

    client = impostor(timeout_s=0.3, answer=staticmethod(stall_first))
    started = time.monotonic()
    with pytest.raises(MachineError, match=r"request 0: no answer within 0.3 s"):
        client.infer(toy.feed(2, 4))
    assert time.monotonic() - started < 1.5
    assert client.infer(toy.feed(2, 4)).shape == (2, 3)


def test_a_refused_connection_is_reported_at_once():
    started = time.monotonic()
    with pytest.raises(MachineError, match=r"127.0.0.1:1, model 'm', request 0: the connection failed"):
        Client("127.0.0.1:1", "m").infer(toy.feed(1, 4))
    assert time.monotonic() - started < 2


def test_a_connection_that_was_closed_while_idle_is_opened_again(impostor):
    def answer_and_hang_up(handler):
        Impostor.do_POST(handler)
        handler.close_connection = True  # without a word in the head

    client = impostor(answer=answering(), do_POST=answer_and_hang_up)
    for _ in range(3):
        assert client.infer(toy.feed(2, 4)).shape == (2, 3)
        time.sleep(0.05)


def raw(answer, delay_s=0.0):
    """A handler's method that sends bytes as they are, one by one where there is a delay, and hangs up."""

    def do_post(handler):
        handler.rfile.read(int(handler.headers["Content-Length"]))
        for start in range(0, len(answer), 1 if delay_s else len(answer)):
            handler.wfile.write(answer[start : start + 1] if delay_s else answer)
            time.sleep(delay_s)
        handler.close_connection = True

    return do_post


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (b'HTTP/1.1 400 Bad Request\r\ncontent-length: 14\r\n\r\n{"error":"no"}', InputError, "refused with status 400: no"),
        (b"HTTP/1.1 500 Error\r\nContent-Length: 4\r\n\r\noops", MachineError, "refused with status 500: oops"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", MachineError, "the connection failed: closed in the middle"),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", MachineError, "is not a Triton server's"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", MachineError, "is not a Triton server's"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, MachineError, "is not a Triton server's"),
    ],
)
def test_refusals_and_what_is_no_answer(impostor, answer, kind, reason):
    with pytest.raises(kind, match=rf"model 'm', request 0: .*{reason}"):
        impostor(do_POST=raw(answer)).infer(toy.feed(2, 4))


def test_an_answer_that_trickles_ends_at_the_deadline(impostor):
    client = impostor(timeout_s=0.5, do_POST=raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789", 0.05))
    with pytest.raises(MachineError, match=r"request 0: no answer within 0.5 s"):
        client.infer(toy.feed(2, 4))


def test_answers_come_in_the_order_of_the_feeds(impostor):
    def slow_start(number):
        time.sleep(0.2 if number == "0" else 0)
        return {"model_name": "m", "id": number, "outputs": [GOOD | {"data": [float(number)] * 6}]}

    answers = impostor(answer=staticmethod(slow_start)).infer_many([toy.feed(2, 4)] * 9, concurrency=4)
    assert [answer[0, 0] for answer in answers] == list(range(9))


def test_times_are_each_requests_own(impostor):
    def slow_start(number):
        time.sleep(0.2 if number == "0" else 0)
        return {"model_name": "m", "id": number, "outputs": [GOOD]}

    times_ms = impostor(answer=staticmethod(slow_start)).time_many([toy.feed(2, 4)] * 9, concurrency=2)
    assert times_ms.shape == (9,) and times_ms[0] > 200 and np.median(times_ms) < 100


def test_threads_leave_no_file_descriptors_behind(impostor):
    client = impostor(answer=answering())
    client.infer_many([toy.feed(2, 4)] * 8, concurrency=4)
    before = psutil.Process().num_fds()
    for _ in range(5):
        client.infer_many([toy.feed(2, 4)] * 8, concurrency=4)
    assert psutil.Process().num_fds() < before + 10


def test_the_first_failure_stops_the_rest(impostor):
    asked = []

    def fail_third(number):
        asked.append(number)
        return {"model_name": "m" if number != "3" else "other", "id": number, "outputs": [GOOD]}

    with pytest.raises(MachineError, match=r"request 3: found"):
        impostor(answer=staticmethod(fail_third)).infer_many([toy.feed(2, 4)] * 500, concurrency=2)
    assert len(asked) < 50


ASKING = """
import sys
from optkit.serving.client import Client
from tests.serving import toy
client = Client(sys.argv[1], "m", 2.0)
try:
    client.infer_many([toy.feed(2, 4)] * 9, concurrency=3)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_drops_the_rest_and_waits_for_nobody(impostor):
    asked, three = [], threading.Event()

    def stall(number):
        asked.append(number)
        if len(asked) == 3:
            three.set()
        time.sleep(1.5)
        return {"model_name": "m", "id": number, "outputs": [GOOD]}

    url = impostor(answer=staticmethod(stall)).url
    process = subprocess.Popen([sys.executable, "-c", ASKING, url], stdout=subprocess.PIPE, text=True)
    try:
        assert three.wait(60)
        process.send_signal(signal.SIGINT)
        interrupted = time.monotonic()
        assert process.stdout.readline() == "interrupted\n"
        assert time.monotonic() - interrupted < 1.2
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert sorted(asked) == ["0", "1", "2"]


def test_a_concurrency_of_zero_is_refused(impostor):
    with pytest.raises(InputError, match=r"found concurrency 0, expected 1 or more"):
        impostor().infer_many([], 0)
