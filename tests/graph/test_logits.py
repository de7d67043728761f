"""Graphs of many families compute what PyTorch computes, at lengths beyond their windows and buckets."""

import numpy as np
import onnx
import pytest
import torch

from optkit.compression import quantizers
from optkit.compression.quantize import Quantize
from optkit.core.errors import InputError
from optkit.graph import reference
from optkit.graph.audit import audit
from optkit.graph.export import export
from optkit.graph.logits import example, input_names, plain_function
from optkit.models.families import longest_input
from optkit.tasks.classification import Classification

from .families import FAMILIES, classifier, texts

LENGTH = 40


def exported(model, folder):
    return export(model, folder, min(LENGTH, longest_input(model) or LENGTH), Classification)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_graph_is_what_its_model_computes_by_itself(name, tmp_path):
    model = classifier(name)
    path = exported(model, tmp_path)
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert not kinds & {"If", "Loop", "IsNaN"}
    handle = reference.load(path)
    for batch, sequence in ((1, 2), (2, 11), (4, 23), (3, LENGTH)):
        feed = texts(model, batch, sequence)
        feed["input_ids"][0, sequence // 2] = model.config.pad_token_id or 0  # which may be a word of the text too
        if "token_type_ids" in input_names(model):
            feed["token_type_ids"] = (torch.arange(sequence) > sequence // 2).long().expand(batch, sequence)
        with torch.no_grad():
            expected = model(**feed).logits.numpy()
        found = reference.infer(handle, {key: tensor.numpy() for key, tensor in feed.items()})
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_quantised_graph_covers_every_product_of_the_encoder(name, tmp_path):
    model = classifier(name)
    quantizers.insert(model, Quantize())
    quantizers.calibrate(model, lambda quantised: quantised(**texts(model, 4, 23)))
    found = audit(exported(model, tmp_path))
    found.check_quantised()
    assert found.covered_gemms == found.encoder_gemms > 0


@pytest.mark.parametrize(
    ("name", "form", "counts"),
    [
        ("xlm-roberta", "added", False),
        ("eurobert", "inside", False),  # its head averages tokens by the mask
        ("modernbert", "inside", False),
        ("deberta-v3", "plain", False),
        ("xlm", "plain", True),
    ],
)
def test_the_form_of_the_mask_is_found_by_trying(name, form, counts):
    found = plain_function(classifier(name), LENGTH, Classification)
    assert (found.form, not found.takes_positions) == (form, counts)


@pytest.mark.parametrize(("name", "uncounted"), [("mpnet", 1), ("xlm-roberta", 1), ("roformer", None)])
def test_tokens_that_are_padding_are_counted_as_the_model_counts_them(name, uncounted):
    model = classifier(name)
    made = plain_function(model, LENGTH, Classification)
    assert made.takes_positions == (name != "roformer")
    assert made.uncounted == uncounted
    feed = texts(model, 3, 12)
    feed["input_ids"][:, 4] = model.config.pad_token_id
    feed |= {"token_type_ids": torch.zeros_like(feed["input_ids"])} if "token_type_ids" in made.names else {}
    with torch.no_grad():
        expected = model(**feed).logits.numpy()
    np.testing.assert_allclose(made.infer(feed), expected, rtol=1e-4, atol=1e-5)


def test_a_graph_of_a_model_that_counts_every_token_slices_its_positions(tmp_path):
    def operators(name):
        return [node.op_type for node in onnx.load(exported(classifier(name), tmp_path / name)).graph.node]

    assert "CumSum" not in operators("albert")
    assert operators("xlm-roberta").count("CumSum") == 1


def test_an_example_has_padding_among_its_tokens():
    model = classifier("mpnet", pad_token_id=0)  # while its embeddings take 1 for padding
    feed = example(model, ["input_ids", "attention_mask"], 8, 9)
    assert feed["input_ids"][0, 1:3].tolist() == [1, 0]
    assert (feed["input_ids"][feed["attention_mask"] == 0] == 0).all()
    assert plain_function(model, LENGTH, Classification).takes_positions


def test_bigbird_takes_what_its_full_attention_takes(tmp_path):
    assert longest_input(classifier("bigbird")) == (5 + 2 * 3) * 4
    assert longest_input(classifier("bigbird", attention_type="original_full")) == 64
    with pytest.raises(InputError, match="max_length is 45, but BigBirdForSequenceClassification has positions for 2 to 44"):
        export(classifier("bigbird"), tmp_path, 45, Classification)


@pytest.mark.slow
def test_the_model_is_given_back_as_it_was(tmp_path):
    for name in ("deberta", "deberta-v3", "modernbert"):
        model = classifier(name)
        exported(model, tmp_path)
        assert not any("forward" in vars(module) or "get_rel_pos" in vars(module) for module in model.modules())
        assert not model.base_model._forward_pre_hooks
