"""A head is read in one way only, or refused."""

import pytest

from optkit.serving.front.head import RefusedError, parse

ASKING = (
    b"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost:8000\r\ncontent-length:  12 \r\nInference-Header-Content-Length: 7"
)


def test_a_request_of_a_client():
    head = parse(ASKING)
    assert (head.method, head.target, head.length, head.json_length) == (b"POST", b"/v2/models/m/infer", 12, 7)
    assert head.fields[b"host"] == b"localhost:8000" and head.keep_alive
    assert parse(b"GET /v2 HTTP/1.1").length == 0
    assert not parse(b"GET /v2 HTTP/1.0").keep_alive and not parse(b"GET /v2 HTTP/1.1\r\nConnection: TE, Close").keep_alive


@pytest.mark.parametrize(
    "line",
    [
        b"GET /v2",
        b"GET  /v2 HTTP/1.1",
        b"get /v2 HTTP/1.1",
        b"GET /v2 HTTP/2.0",
        b"GET http://localhost/v2 HTTP/1.1",
        b"GET /v2\n HTTP/1.1",
        b"GET /v\xc3\xa4 HTTP/1.1",
        b"\x16\x03\x01",
        b"",
    ],
)
def test_a_first_line_that_is_none(line):
    with pytest.raises(RefusedError, match=r"not a request of HTTP/1.1") as caught:
        parse(line + b"\r\nHost: localhost")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"Content-Length: 3\r\nContent-Length: 3", 400),
        (b"Content-Length: 3, 3", 400),
        (b"Content-Length: +3", 400),
        (b"Content-Length: -3", 400),
        (b"Content-Length: 0x3", 400),
        (b"Content-Length: ", 400),
        (b"Content-Length: 9999999999999999", 400),
        (b"Content-Length : 3", 400),
        (b" Content-Length: 3", 400),
        (b"X: 1\r\n Content-Length: 3", 400),
        (b"X: 1\nContent-Length: 3", 400),
        (b"X: 1\rContent-Length: 3", 400),
        (b"X: a\x00b", 400),
        (b"no colon", 400),
        (b": 1", 400),
        (b"Host: localhost\r\nhost: evil", 400),
        (b"Inference-Header-Content-Length: 1\r\nInference-Header-Content-Length: 2", 400),
        (b"Transfer-Encoding: chunked", 411),
        (b"Transfer-Encoding: identity\r\nContent-Length: 3", 411),
    ],
)
def test_a_field_that_could_be_read_in_two_ways(lines, status):
    with pytest.raises(RefusedError) as caught:
        parse(b"POST /v2 HTTP/1.1\r\n" + lines)
    assert caught.value.status == status
