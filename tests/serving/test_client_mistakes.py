"""A client's mistake is answered 400, INVALID_ARGUMENT over gRPC, with what was found and what was expected."""

import http.client
import json
import re
import struct
from contextlib import closing

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from optkit.serving import ensemble
from optkit.serving.server import Server

from . import texts, toy

pytestmark = pytest.mark.server

IDS, MASK, TEXT = "input_ids", "attention_mask", "text"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of the tensor model `tensors`, and of the texts `one` and questions `ask`."""
    folder, root = tmp_path_factory.mktemp("served"), tmp_path_factory.mktemp("repository")
    toy.place(root, toy.folder(folder / "tensors"), "tensors", vocab_size=30522)
    texts.place(root, folder, "one", texts.classification(folder / "one-data"), texts.letters())
    texts.place(root, folder, "ask", texts.questions(folder / "ask-data"), texts.letters())
    with Server(root, folder / "logs", ["tensors", *map(ensemble.pipeline, ("one", "ask"))]) as running:
        yield running


def tensor(name, data, /, shape=None, kind="INT64", **changed):
    """A tensor of a request's JSON; `changed` has other values of its members, or None for a member that is left out."""
    shape = list(np.shape(data)) if shape is None else shape
    whole = {"name": name, "shape": shape, "datatype": kind, "data": np.ravel(data).tolist(), **changed}
    return {member: value for member, value in whole.items() if value is not None}


def tokens(ids=((5, 6, 7),), mask=None, **changed):
    """A request for the tensor model; `changed` is of its ids."""
    return [tensor(IDS, ids, **changed), tensor(MASK, np.ones_like(ids) if mask is None else mask)]


def words(data=("a dog",), shape=(1, 1), kind="BYTES", **changed):
    return [{"name": TEXT, "shape": list(shape), "datatype": kind, "data": list(data), **changed}]


def question(asked="what?", passage="a dog hid", shape=(1,)):
    return [words([asked], shape, name="question")[0], words([passage], shape, name="context")[0]]


BOTH = {
    "a flat request": ("tensors", tokens([5, 6, 7]), r"Expected \[-1,-1\], got \[3\]"),
    "too many dimensions": ("tensors", tokens([[[5, 6]]]), r"Expected \[-1,-1\], got \[1,1,2\]"),
    "another type": ("tensors", tokens(kind="INT32"), "data-type is 'INT32', but model 'tensors' expects 'INT64'"),
    "too many tokens": ("tensors", tokens([[5] * 65]), "found 65 tokens, expected 1 to 64"),
    "no tokens": ("tensors", tokens(np.ones((1, 0), int)), "found 0 tokens, expected 1 to 64"),
    "a negative id": ("tensors", tokens([[5, -1]]), "input_ids: found values from -1 to 5, expected 0 to 30521"),
    "an id that is none": ("tensors", tokens([[5, 30522]]), "input_ids: found values from 5 to 30522, expected 0 to 30521"),
    "a mask of 2": ("tensors", tokens(mask=[[1, 2, 1]]), "attention_mask: found values from 1 to 2, expected 0 to 1"),
    "no rows": ("tensors", tokens(np.ones((0, 3), int)), "Expected 24, got 0"),
    "too many rows": ("tensors", tokens([[5]] * 33), "batch-size must be <= 32"),
    "an input is missing": ("tensors", tokens()[:1], r"missing required input\(s\) \['attention_mask'\]"),
    "no input": ("tensors", [], "expected 2 inputs but got 0 inputs"),
    "an input too many": ("tensors", [*tokens(), tensor("more", [[5]])], "expected 2 inputs but got 3 inputs"),
    "an input twice": ("tensors", [*tokens(), tensor(IDS, [[5]])], "'input_ids' already exists in request"),
    "other lengths": ("tensors", tokens(mask=[[1, 1]]), r"attention_mask: found int64 \[1, 2\], expected .* \[1, 3\]"),
    "other rows": ("tensors", tokens(mask=[[1] * 3] * 2), "batch size does not match"),
    "a flat text": ("one_text", words(shape=[1]), r"Expected \[-1,1\], got \[1\]"),
    "two texts in a row": ("one_text", words("ab", [1, 2]), r"Expected \[-1,1\], got \[1,2\]"),
    "no texts": ("one_text", words((), [0, 1]), "expected 1 string elements for inference input 'text'"),
    "too many texts": ("one_text", words("a" * 65, [65, 1]), "batch-size must be <= 64"),
    "tokens for a text": (
        "one_text",
        words([5], kind="INT64"),
        "'INT64', but model 'one_text' expects 'BYTES'",
    ),
    "another input": ("one_text", words(name="words"), "unexpected inference input 'words'"),
    "a passage is missing": ("ask_text", question()[:1], r"missing required input\(s\) \['context'\]"),
    "two questions": ("ask_text", [words("ab", [2], name=name)[0] for name in ("question", "context")], "got .2."),
    "an empty passage": ("ask_text", question(passage=" "), "context: found no words, expected some"),
    "a long question": ("ask_text", question("a" * 60), "question: found 60 tokens, expected at most 39"),
}
"""Mistakes that can be made over both protocols."""


def answer(server, model, content, **headers):
    """Status and error of an answer."""
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    with closing(http.client.HTTPConnection(server.url, timeout=20)) as connection:
        connection.request("POST", f"/v2/models/{model}/infer", content, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read()).get("error", "")


@pytest.mark.parametrize(("model", "inputs", "message"), BOTH.values(), ids=BOTH)
def test_over_both_protocols(model, inputs, message, server):
    status, error = answer(server, model, {"inputs": inputs})
    assert status == 400
    with InferenceServerClient(server.grpc_url) as client, pytest.raises(InferenceServerException) as caught:
        client.infer(model, [over_grpc(one) for one in inputs])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    for said in (error, caught.value.message()):
        assert re.search(message, said), said


def over_grpc(one):
    kind = {"INT64": np.int64, "INT32": np.int32, "BYTES": object}[one["datatype"]]
    values = [value.encode() if isinstance(value, str) else value for value in one["data"]]
    made = InferInput(one["name"], list(np.shape(values)), one["datatype"]).set_data_from_numpy(np.array(values, kind))
    return made.set_shape(one["shape"])


READ = {
    "no inputs": ({}, "'inputs': attempt to access non-existing"),
    "inputs that are no list": ({"inputs": {}}, "'inputs': attempt to access JSON non-array"),
    "no name": ({"inputs": tokens(name=None)}, "'name': attempt to access non-existing"),
    "no type": ({"inputs": tokens(datatype=None)}, "'datatype': attempt to access non-existing"),
    "no shape": ({"inputs": [{"name": IDS, "datatype": "INT64", "data": [5]}]}, "'shape': attempt to access non-existing"),
    "a type of nobody": ({"inputs": tokens(datatype="LONG")}, "invalid datatype for input input_ids"),
    "a shape that is negative": ({"inputs": tokens(shape=[-1, 3])}, r"shape: found \[-1, 3\], expected a list of whole"),
    "a shape of words": ({"inputs": tokens(shape="1x3")}, 'shape: found "1x3", expected a list of whole numbers'),
    "no data": ({"inputs": tokens(data=None)}, "must set only one of the following fields: 'data'"),
    "too few values": ({"inputs": tokens(shape=[1, 4])}, "Shape does not match true shape of 'data' field"),
    "too many values": ({"inputs": tokens(shape=[1, 2])}, "Shape does not match true shape of 'data' field"),
    "a fraction": ({"inputs": tokens(data=[5.5, 6, 7])}, "'data': attempt to access JSON non-signed-integer"),
    "a word for an id": ({"inputs": tokens(data=["a", 6, 7])}, "'data': attempt to access JSON non-signed-integer"),
    "a number beyond 64 bits": ({"inputs": tokens(data=[2**70, 6, 7])}, "'data': attempt to access JSON non-signed"),
    "data that are no list": ({"inputs": tokens(data=5)}, "'data': attempt to access JSON non-array"),
    "an id for a text": ({"inputs": words([5])}, "JSON bytes array: attempt to access JSON non-string"),
    "an output of nobody": ({"inputs": tokens(), "outputs": [{"name": "classes"}]}, "unexpected inference output 'classes'"),
    "outputs that are no list": ({"inputs": tokens(), "outputs": "logits"}, "'outputs': attempt to access JSON non-array"),
    "an output without a name": ({"inputs": tokens(), "outputs": [{}]}, "'name': attempt to access non-existing"),
    "outputs that are names": ({"inputs": tokens(), "outputs": ["logits"]}, "'name': attempt to access"),
    "a number for the number": ({"inputs": tokens(), "id": 5}, "'id': attempt to access JSON non-string"),
    "parameters in a list": ({"inputs": tokens(), "parameters": [1]}, "request params.: attempt to get members"),
    "a parameter of another type": ({"inputs": tokens(), "parameters": {"timeout": "x"}}, "'timeout': attempt to access"),
    "classes below 0": (
        {"inputs": tokens(), "outputs": [{"name": "logits", "parameters": {"classification": -2}}]},
        "'classification': attempt to access",
    ),
    "no JSON": (b"hello", "failed to parse the request JSON buffer"),
    "half a request": (json.dumps({"inputs": tokens()}).encode()[:-9], "."),
    "half a letter": (b'{"inputs": [{"name": "text", "shape": [1, 1], "data": ["\\ud800"]}]}', "surrogate pair"),
    "a list": ([], "'inputs': attempt to access non-existing"),
}
"""Mistakes in JSON, with what is said of them; Triton by itself answers 500 to most."""


@pytest.mark.parametrize(("content", "message"), READ.values(), ids=READ)
def test_json_that_cannot_be_read(content, message, server):
    model = "one_text" if "BYTES" in str(content) else "tensors"
    status, error = answer(server, model, content)
    assert status == 400 and re.search(message, error), error
    assert answer(server, "tensors", {"inputs": tokens()})[0] == 200, "it goes on"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (struct.pack("<I", 2) + b"\xff\xfe", "text: found bytes that are no UTF-8"),
        (struct.pack("<I", 200) + b"ab", "expecting string of length 200 but only 2 bytes available"),
        (struct.pack("<I", 1) + b"ab", "expecting 4 bytes but only 1 bytes available"),
        ((struct.pack("<I", 2) + b"ab") * 2, "unexpected number of string elements 2"),
        (b"", "expected 1 string elements"),
    ],
)
def test_texts_in_binary(raw, message, server):
    one = {"name": TEXT, "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [one]}).encode()
    status, error = answer(server, "one_text", head + raw, **{"Inference-Header-Content-Length": str(len(head))})
    assert status == 400 and message in error


def test_a_fault_of_the_engine_is_none_of_the_clients(server):
    status, error = answer(server, "tensors", {"inputs": tokens([[5, toy.FAILING]])})
    assert (status, error) == (500, "RuntimeError: the engine failed on token 88")
