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


def test_an_example_has_no_padding_among_its_tokens_but_what_the_model_does_not_count():
    model = classifier("mpnet", pad_token_id=0)  # while its embeddings take 1 for padding
    feed = example(model, ["input_ids", "attention_mask"], 8, 9)
    assert feed["input_ids"][0, 1] == 1
    assert not (feed["input_ids"][feed["attention_mask"] == 1] == 0).any()
    assert not plain_function(model, LENGTH, Classification).takes_positions


def test_bigbird_takes_what_its_full_attention_takes(tmp_path):
    assert longest_input(classifier("bigbird")) == (5 + 2 * 3) * 4
    assert longest_input(classifier("bigbird", attention_type="original_full")) == 64
    with pytest.raises(InputError, match="max_length is 45, but BigBirdForSequenceClassification has positions for 2 to 44"):
        export(classifier("bigbird"), tmp_path, 45, Classification)


def test_the_model_is_given_back_as_it_was(tmp_path):
    for name in ("deberta", "deberta-v3", "modernbert"):
        model = classifier(name)
        exported(model, tmp_path)
        assert not any("forward" in vars(module) or "get_rel_pos" in vars(module) for module in model.modules())
        assert not model.base_model._forward_pre_hooks
