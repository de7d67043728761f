"""Order of classes: what names tell, what they do not, and what the user says."""

import logging

import pytest
import torch
import transformers
from transformers import BertConfig

from optkit.core.errors import InputError
from optkit.models.class_order import names_of, order, permute, served_names


@pytest.mark.parametrize(
    ("found", "classes", "rows"),
    [
        (["negative", "positive"], ["negative", "positive"], [0, 1]),
        (["positive", "negative"], ["negative", "positive"], [1, 0]),
        (["POSITIVE", "NEGATIVE"], ["negative", "positive"], [1, 0]),
        (["Not Entailment", "Entailment"], ["entailment", "not_entailment"], [1, 0]),
        (["not-entailment", "ENTAILMENT"], ["entailment", "not_entailment"], [1, 0]),
        (["positive", "negative"], ["neg", "pos"], [1, 0]),
        (["pos", "neg", "neu"], ["negative", "neutral", "positive"], [1, 2, 0]),
        (["LABEL_0", "LABEL_1"], ["0", "1"], [0, 1]),
        (["LABEL_1", "LABEL_0"], ["0", "1"], [1, 0]),
        (["1", "0"], ["0", "1"], [1, 0]),
        (["1", "-1"], ["-1", "1"], [1, 0]),
        (["5 stars", "1 star"], ["1", "5"], [1, 0]),
        (["b", "B"], ["B", "b"], [1, 0]),
        (["C", "C++"], ["C++", "C"], [1, 0]),
        (["schlecht", "größer"], ["GRÖSSER", "schlecht"], [1, 0]),
        (["Positif", "Ne\u0301gatif"], ["N\u00e9gatif", "Positif"], [1, 0]),
        (["positif", "ne\u0301gatif"], ["N\u00c9GATIF", "Positif"], [1, 0]),
        (["pos\u200b", "neg"], ["neg", "pos"], [1, 0]),
        (["कि", "का"], ["का", "कि"], [1, 0]),
    ],
)
def test_names_that_tell(found: list[str], classes: list[str], rows: list[int]) -> None:
    assert order(found, classes, None, "it") == rows


@pytest.mark.parametrize(
    ("found", "classes"),
    [
        (["positive", "negative"], ["0", "1"]),
        (["0", "1"], ["negative", "positive"]),
        (["LABEL_0", "LABEL_1"], ["negative", "positive"]),
        (["LABEL_0", "LABEL_1"], ["1", "2"]),
        (["neutral", "negative", "positive"], ["n", "neg", "pos"]),
        (["good", "bad"], ["negative", "positive"]),
        (["good", "good"], ["bad", "good"]),
        (["10", "20"], ["1", "2"]),
        (["1", "0"], ["-1", "0"]),
        (["yes", "no"], ["false", "true"]),
        (["कि", "x"], ["का", "x"]),
    ],
)
def test_names_that_do_not_tell(found: list[str], classes: list[str]) -> None:
    with pytest.raises(InputError) as error:
        order(found, classes, None, "--model m")
    text = str(error.value)
    assert text.startswith(f"--model m: its head's classes are {', '.join(found)} (id2label in config.json)")
    assert f"the data's are {', '.join(classes)}" in text and f"--labels {','.join(classes)}" in text


def test_the_user_tells() -> None:
    assert order(["x", "y", "z"], ["a", "b", "c"], ["b", " c", "a"], "it") == [2, 0, 1]
    for labels in (["a", "b"], ["a", "b", "d"], ["a", "a", "b"], ["a", "b", "c", "c"]):
        with pytest.raises(InputError, match=r"--labels \S+ are not the data's classes; expected each of a, b, c once"):
            order(["x", "y", "z"], ["a", "b", "c"], labels, "it")


def test_names_that_look_alike_are_told_apart() -> None:
    assert order(["x", "y"], ["n\u00e9g", "pos"], ["pos", "ne\u0301g"], "it") == [1, 0]
    with pytest.raises(
        InputError, match=r"classes are 'ne\\u0301g', b \(id2label.*the data's are 'n\\xe9g', c, and the names"
    ):
        order(["ne\u0301g", "b"], ["n\u00e9g", "c"], None, "it")


def test_a_match_by_beginnings_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    order(["positive", "negative"], ["neg", "pos"], None, "it")
    assert "by their beginnings: negative is neg, positive is pos" in caplog.text


def test_the_names_of_a_configuration() -> None:
    assert names_of(BertConfig(id2label={0: "b", 1: "a"})) == ["b", "a"]
    assert names_of(BertConfig(num_labels=3)) == ["LABEL_0", "LABEL_1", "LABEL_2"]


def test_the_names_that_are_served() -> None:
    assert served_names(["POSITIVE", "NEGATIVE"], [1, 0], ["negative", "positive"]) == ["NEGATIVE", "POSITIVE"]
    assert served_names(["LABEL_0", "LABEL_1"], [1, 0], ["negative", "positive"]) == ["negative", "positive"]


@pytest.mark.parametrize("family", ["Bert", "Roberta", "DistilBert", "Electra", "Albert", "DebertaV2", "MPNet"])
def test_the_rows_of_any_head_are_sorted(family: str) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    if family == "DistilBert":
        sizes = {"dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 64}
    config = getattr(transformers, f"{family}Config")(vocab_size=20, max_position_embeddings=18, num_labels=32, **sizes)
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()  # as wide as its hidden states
    ids = torch.arange(2, 9)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        rows = torch.randperm(32).tolist()
        permute(model, rows, "it")
        assert torch.allclose(model(input_ids=ids).logits, before[:, rows], atol=1e-6)


def test_a_head_without_a_linear_is_refused() -> None:
    model = transformers.BertForSequenceClassification(
        BertConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=1)
    )
    model.classifier = torch.nn.Sequential(model.classifier, torch.nn.Tanh(), torch.nn.LayerNorm(2))
    torch.nn.init.normal_(model.classifier[2].weight)
    with pytest.raises(InputError, match="cannot be sorted into the order of the data's classes"):
        permute(model, [1, 0], "it")
