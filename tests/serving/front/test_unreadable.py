"""An answer to a request that Triton could not read gets another status and is otherwise passed on as it is."""

import asyncio
import json
from functools import partial

import pytest

from optkit.serving.front import unreadable
from optkit.serving.front.crowd import Crowd
from optkit.serving.front.relay import Conversation
from optkit.serving.front.rules import INFERENCE, Rules
from optkit.serving.front.upstream import Upstreams
from optkit.serving.slots import Slots

MISTAKE = "Unable to parse 'data': attempt to access JSON non-array as array"
OTHERS = [
    "ValueError: Unable to parse 'data'",
    "in ensemble 'one_text', failed",
    "",
    "Unable to do it",
    "Failed to process the request(s) for model 'm', message: attempt to access",
]
REQUEST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"


def answer(error, status="500 Internal Server Error", more=""):
    body = json.dumps({"error": error}, separators=(",", ":")) + more
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    "error",
    [
        MISTAKE,
        "Unable to set 'classification': attempt to access JSON non-unsigned-integer as unsigned-integer",
        "failed to parse the request JSON buffer: Invalid value. at 0",
        "failed to get request params.: attempt to get members for non-object",
        "Failed to parse 'data' field: shape does not match true shape",
        "attempt to access JSON non-string as string",
    ],
)
def test_what_could_not_be_read_is_the_clients_mistake(error):
    assert unreadable.told(answer(error)) == answer(error, "400 Bad Request")
    assert unreadable.told(answer(error, "200 OK")) == answer(error, "200 OK")


@pytest.mark.parametrize("error", OTHERS)
def test_other_faults_stay_what_they_are(error):
    assert unreadable.told(answer(error)) == answer(error)


@pytest.mark.parametrize("size", [1, 5, 70, 10_000])
@pytest.mark.parametrize(("error", "status"), [(MISTAKE, "400 Bad Request"), *((other, None) for other in OTHERS)])
def test_an_answer_comes_through_in_pieces_of_any_size(size, error, status, tmp_path):
    whole = answer(error, more=" " * 200)
    expected = answer(error, status, " " * 200) if status else whole
    assert asyncio.run(relayed(whole, size, tmp_path)) == expected * 2


async def relayed(whole, size, folder):
    """What two requests on one connection get through a front, from a server that answers in such pieces."""

    async def serve(reader, writer):
        while await reader.read(2**16):
            for start in range(0, len(whole), size):
                writer.write(whole[start : start + size])
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()

    upstreams = Upstreams(str(folder / "socket"))
    begin = partial(Conversation, Crowd(0), Slots(folder / "slots"), Rules(INFERENCE, "secret", 1000), upstreams)
    loop = asyncio.get_running_loop()
    async with (
        await asyncio.start_unix_server(serve, folder / "socket"),
        await loop.create_server(begin, "127.0.0.1") as front,
    ):
        reader, writer = await asyncio.open_connection(*front.sockets[0].getsockname())
        found = b""
        for _ in range(2):
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            found += head + await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split()[0]))
        writer.close()
    return found
