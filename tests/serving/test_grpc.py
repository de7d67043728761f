"""gRPC is only there where it was asked for, and nobody controls the server through it."""

import socket
import struct
from contextlib import closing

import numpy as np
import psutil
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from optkit.serving.server import Server

from . import toy

pytestmark = pytest.mark.server
SERVICE = "/inference.GRPCInferenceService/"


@pytest.fixture(scope="module")
def server(toy_repository, tmp_path_factory):
    with Server(toy_repository, tmp_path_factory.mktemp("logs"), ["single"], grpc=True) as running:
        yield running


def http2(url, method, *fields):
    """What comes back for an empty message, sent with header fields that gRPC's own client would refuse."""

    def frame(kind, flags, stream, content=b""):
        return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content

    head = [(":method", "POST"), (":scheme", "http"), (":path", SERVICE + method), (":authority", url), ("te", "trailers")]
    head += [("content-type", "application/grpc"), *fields]
    literal = b"".join(b"\x00" + bytes([len(n)]) + n.encode() + bytes([len(v)]) + v.encode() for n, v in head)
    host, port = url.split(":")
    with closing(socket.create_connection((host, int(port)), timeout=10)) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
        connection.sendall(frame(1, 4, 1, literal) + frame(0, 1, 1, bytes(5)))
        connection.settimeout(1.0)
        found = b""
        try:
            while more := connection.recv(2**16):
                found += more
        except TimeoutError:
            pass
        return found


def test_models_answer_over_grpc(server):
    feed = toy.feed(1, 8)
    inputs = [InferInput(name, [1, 8], "INT64").set_data_from_numpy(array) for name, array in feed.items()]
    with InferenceServerClient(server.grpc_url) as client:
        logits = client.infer("single", inputs).as_numpy("logits")
    assert np.isfinite(logits).all() and logits.shape == (1, 3)


def test_nobody_controls_the_server_over_grpc(server):
    secret = server._ticket.secret
    for headers in (None, {"triton-grpc-protocol-nobody": secret}, {"optkit-secret": secret}):
        with InferenceServerClient(server.grpc_url) as client:
            for control in (
                lambda client=client, headers=headers: client.load_model("classify", headers=headers),
                lambda client=client, headers=headers: client.unload_model("single", headers=headers),
                lambda client=client, headers=headers: client.get_model_repository_index(headers=headers),
                lambda client=client, headers=headers: client.get_inference_statistics("single", headers=headers),
                lambda client=client, headers=headers: client.update_log_settings({"log_info": True}, headers=headers),
                lambda client=client, headers=headers: client.get_trace_settings(headers=headers),
                lambda client=client, headers=headers: client.get_system_shared_memory_status(headers=headers),
                lambda client=client, headers=headers: client.register_system_shared_memory("r", "k", 1, headers=headers),
                lambda client=client, headers=headers: client.unregister_cuda_shared_memory(headers=headers),
            ):
                with pytest.raises(InferenceServerException, match="This protocol is restricted"):
                    control()
            assert client.is_model_ready("single")


def test_the_key_on_the_command_line_opens_nothing(server):
    """HTTP/2 has no headers with capital letters, so that whoever reads the command line cannot send it."""
    arguments = psutil.Process(server._triton.supervisor.pid).cmdline()
    (restricted,) = [one for one in arguments if one.startswith("--grpc-restricted-protocol=")]
    key, value = restricted.rpartition(":")[2].split("=", 1)
    assert server.identity.encode() in http2(server.grpc_url, "ServerMetadata")  # it does get through
    for name in (f"triton-grpc-protocol-{key}", f"triton-grpc-protocol-{key.lower()}"):
        found = http2(server.grpc_url, "RepositoryIndex", (name, value))
        assert b"classify" not in found and b"single" not in found


def test_there_is_no_port_unless_it_was_asked_for(toy_repository, tmp_path):
    with Server(toy_repository, tmp_path) as running:
        assert running.grpc_url == f"unix:{running._ticket.folder}/grpc:1"
        with InferenceServerClient(running.grpc_url) as client:  # of this user alone, by the folder's mode
            assert client.get_server_metadata().name == running.identity
