"""Who may ask what, and how large it may be."""

import gzip
import zlib

import pytest

from optkit.serving.front.head import RefusedError
from optkit.serving.front.rules import INFERENCE, METRICS, Rules

RULES = Rules(INFERENCE, "secret", 1000)


def request(line, *fields, rules=RULES):
    return rules.request("\r\n".join([f"{line} HTTP/1.1", *fields]).encode())


def refusal(line, *fields, rules=RULES):
    with pytest.raises(RefusedError) as caught:
        request(line, *fields, rules=rules)
    return caught.value.status


@pytest.mark.parametrize(
    "line",
    [
        "GET /v2",
        "GET /v2/health/live",
        "GET /v2/health/ready",
        "GET /v2/models/my.model-1",
        "GET /v2/models/m/versions/3",
        "GET /v2/models/m/ready",
        "GET /v2/models/m/config",
        "POST /v2/models/m/infer",
        "POST /v2/models/.publishing-1/versions/12/infer",
    ],
)
def test_everybody_may_infer(line):
    assert request(line, "Host: 127.0.0.1:8000").head.target.decode() == line.split()[1]


@pytest.mark.parametrize(
    "line",
    [
        "POST /v2/repository/index",
        "POST /v2/repository/models/m/load",
        "POST /v2/repository/models/m/unload",
        "POST /v2/repository/my/models/m/load",
        "GET /v2/systemsharedmemory/status",
        "POST /v2/systemsharedmemory/region/r/register",
        "POST /v2/cudasharedmemory/unregister",
        "GET /v2/trace/setting",
        "POST /v2/models/m/trace/setting",
        "POST /v2/logging",
        "GET /v2/models/stats",
        "GET /v2/models/m/stats",
        "GET /v2/models/m/versions/1/stats",
        "POST /v2/models/m/generate",
        "POST /v2/models/m/../../repository/models/m/load",
        "POST /v2/models/../infer",
        "POST /v2/models/m%2finfer",
        "POST /v2/models/m/infer?x=/v2/repository/index",
        "POST //v2/models/m/infer",
        "POST /v2/models/m/infer/",
        "GET /v2/models/m/infer",
        "POST /V2/Repository/index",
        "GET /metrics",
        "GET /",
    ],
)
def test_all_else_needs_the_secret(line):
    assert refusal(line) == 403
    assert (
        refusal(line, "Optkit-Secret: secret2") == refusal(line, "Optkit-Secret:") == refusal(line, "Secret: secret") == 403
    )
    assert refusal(line, "Optkit-Secret: x", "Optkit-Secret: secret") == 400
    assert request(line, "Optkit-Secret: secret").head.method.decode() == line.split()[0]


def test_metrics_are_read_and_nothing_else():
    rules = Rules(METRICS, "secret", 1000)
    assert request("GET /metrics", rules=rules)
    assert refusal("GET /v2", rules=rules) == refusal("POST /metrics", rules=rules) == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "CONNECT", "TRACE", "PATCH"])
def test_other_methods_are_refused(method):
    assert refusal(f"{method} /v2", "Optkit-Secret: secret") == 405


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "LOCALHOST", "[::1]:1"])
def test_local_hosts(host):
    assert request("GET /v2", f"Host: {host}")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil", "localhost:x", "", "0.0.0.0", "a, localhost"]
)
def test_a_foreign_host_is_refused_whoever_asks(host):
    assert refusal("GET /v2", f"Host: {host}", "Optkit-Secret: secret") == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin"])
def test_what_a_page_has_a_browser_fetch_is_refused(site):
    assert refusal("GET /v2", "Host: localhost", f"Sec-Fetch-Site: {site}") == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:8000", ""])
def test_a_web_page_is_refused_whoever_asks(origin):
    assert refusal("POST /v2/models/m/infer", "Host: localhost", f"Origin: {origin}", "Optkit-Secret: secret") == 403


def test_sizes():
    assert request("POST /v2/models/m/infer", "Content-Length: 1000").held == 1000
    assert refusal("POST /v2/models/m/infer", "Content-Length: 1001") == 413
    assert request("POST /v2/models/m/infer", "Content-Length: 9", "Inference-Header-Content-Length: 2").held == 2
    assert refusal("POST /v2/models/m/infer", "Content-Length: 9", "Inference-Header-Content-Length: 10") == 400
    assert refusal("POST /v2/models/m/infer", "Content-Length: 9", "Content-Encoding: br") == 415
    assert refusal("POST /v2/models/m/infer", "Content-Length: 9", "Content-Encoding: gzip, gzip") == 415


def unpack(body, *fields):
    asked = request("POST /v2/models/m/infer", f"Content-Length: {len(body)}", "Content-Encoding: gzip", *fields)
    assert asked.held == len(body)
    return RULES.content(asked, bytearray(body))


def test_compressed_bodies_are_unpacked_up_to_the_limit():
    body = b'{"inputs": []}'.ljust(1000)
    assert unpack(gzip.compress(body)) == unpack(zlib.compress(body)) == body
    for bomb in (gzip.compress(b"x" * 1001), gzip.compress(b"x" * 100_000)):
        with pytest.raises(RefusedError, match="unpacks to more than 1000 bytes") as caught:
            unpack(bomb)
        assert caught.value.status == 413
    for broken in (b"nothing", gzip.compress(body)[:-1], gzip.compress(body) + b"x", gzip.compress(body) * 2):
        with pytest.raises(RefusedError, match="Content-Encoding") as caught:
            unpack(broken)
        assert caught.value.status == 400


def test_nesting_is_looked_for_in_the_json_alone():
    deep = b"[" * 100
    with pytest.raises(RefusedError, match="JSON"):
        unpack(gzip.compress(deep))
    assert unpack(gzip.compress(b"{}" + deep), "Inference-Header-Content-Length: 2") == b"{}" + deep
    asked = request("POST /v2/models/m/infer", "Content-Length: 102", "Inference-Header-Content-Length: 2")
    assert RULES.content(asked, bytearray(b"{}" + deep)) == b"{}" + deep


def test_triton_gets_a_head_of_our_own():
    fields = (
        "Host: localhost",
        "Content-Length: 9",
        "Inference-Header-Content-Length: 2",
        "X-Other: 1",
        "Accept-Encoding: a%d",
    )
    head = request("POST /v2/models/m/infer", *fields).upstream % (7, 9)
    assert head.decode().split("\r\n") == [
        "POST /v2/models/m/infer HTTP/1.1",
        "Host: localhost",
        "inference-header-content-length: 2",
        "accept-encoding: a%d",
        "optkit-slot: 7",
        "Content-Length: 9",
        "",
        "",
    ]
