"""The exported graph computes what the model computes, at every shape, and has the promised form."""

from contextlib import nullcontext

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import numpy_helper

from optkit.core.errors import InputError
from optkit.graph import reference
from optkit.graph.export import _check_against_model, export
from optkit.graph.logits import examples, plain_function
from optkit.tasks.classification import Classification
from optkit.tasks.question_answering import QuestionAnswering

from .models import LENGTH, bert, feed, torch_logits

pytestmark = pytest.mark.slow

SHAPES = [(1, 2), (1, LENGTH), (3, 7), (8, 16)]


def signal_to_noise_db(expected, found):
    return 20 * np.log10(np.linalg.norm(expected) / max(np.linalg.norm(expected - found), 1e-30))


@pytest.mark.parametrize("head", ["classification", "question_answering"])
def test_a_float_graph_is_the_model(exported, head):
    model, path = exported(head)
    handle = reference.load(path)
    for shape in SHAPES:
        expected = torch_logits(model, feed(*shape))
        found = reference.infer(handle, feed(*shape))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", ["classification", "question_answering"])
def test_a_quantised_graph_is_the_fake_quantised_model(exported, head):
    model, path = exported(head, True)
    handle = reference.load(path)
    expected = np.concatenate([torch_logits(model, feed(8, 16, seed)).ravel() for seed in range(8)])
    found = np.concatenate([reference.infer(handle, feed(8, 16, seed)).ravel() for seed in range(8)])
    # now and then an activation on the edge between two integers rounds the other way; most rows are equal
    assert np.median(np.abs(found - expected)) < 1e-5
    assert signal_to_noise_db(expected, found) > 30
    float_model, _ = exported(head)
    without = np.concatenate([torch_logits(float_model, feed(8, 16, seed)).ravel() for seed in range(8)])
    assert signal_to_noise_db(expected, without) < signal_to_noise_db(expected, found) - 6


@pytest.mark.parametrize("is_quantised", [False, True])
def test_padding_changes_no_answer(exported, is_quantised):
    _, path = exported("question_answering", is_quantised)
    handle = reference.load(path)
    short = {name: array[:1] for name, array in feed(1, 9).items()}
    wide = {name: np.pad(array, ((0, 0), (0, 11))) for name, array in short.items()}
    wide["input_ids"][:, 9:] = 5  # whatever stands there
    np.testing.assert_allclose(reference.infer(handle, wide)[:, :9], reference.infer(handle, short), rtol=1e-4, atol=1e-5)


def test_a_row_of_padding_alone_gives_numbers(exported):
    _, path = exported()
    nothing = {name: np.zeros((2, 4), np.int64) for name in feed(1, 4)}
    assert np.isfinite(reference.infer(reference.load(path), nothing)).all()


def test_inputs_and_output_have_their_names_and_free_dimensions(exported):
    graph = onnx.load(exported("question_answering")[1]).graph
    found = {
        tensor.name: [d.dim_param or d.dim_value for d in tensor.type.tensor_type.shape.dim]
        for tensor in [*graph.input, *graph.output]
    }
    dims = ["batch", "sequence"]
    assert found == {"input_ids": dims, "attention_mask": dims, "token_type_ids": dims, "logits": [*dims, 2]}


def test_query_key_and_value_share_a_quantiser_and_weights_are_stored_as_int8(exported):
    graph = onnx.load(exported(is_quantised=True)[1]).graph
    kinds = [node.op_type for node in graph.node]
    # per layer: the input of query, key and value; of the attention's output; of the intermediate; of the output
    assert kinds.count("QuantizeLinear") == 2 * 4
    weights = {t.name: t for t in graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 2}
    assert len(weights) == 2 * 6
    assert not any(kind in kinds for kind in ("Constant", "Identity", "Where", "IsNaN"))


def test_the_model_is_given_back_as_it_was(tmp_path):
    model = bert().train()
    attention = model.config._attn_implementation
    export(model, tmp_path, LENGTH, Classification)
    assert model.training
    assert all(module.training for module in model.modules())
    assert model.config._attn_implementation == attention


def test_too_long_names_both_lengths(tmp_path):
    with pytest.raises(InputError, match="max_length is 33, but BertForSequenceClassification has positions for 2 to 32"):
        export(bert(), tmp_path, LENGTH + 1, Classification)


def test_a_model_that_tracing_cannot_follow_is_refused_and_leaves_no_graph(tmp_path):
    model = bert()
    plain = model.classifier.forward
    # the traced shape decides once and for all
    model.classifier.forward = lambda pooled: plain(pooled) * (1.0 if pooled.shape[0] == 2 else 3.0)
    with pytest.raises(InputError, match=r"differs from the model by .* on input_ids \[8, 9\]"):
        export(model, tmp_path, LENGTH, Classification)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("factor", "fits"), [(1.004, True), (0.1, False)])
def test_a_quantised_graph_may_round_otherwise_and_not_more(factor, fits, exported, tmp_path):
    """Scales that differ a little make every activation round anew: that is noise like quantisation's own."""
    model, path = exported("classification", True)
    changed = onnx.load(str(path))
    scales = {node.input[1] for node in changed.graph.node if node.op_type == "QuantizeLinear"}
    for tensor in changed.graph.initializer:
        if tensor.name in scales:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))
    onnx.save(changed, str(tmp_path / "model.onnx"))
    wrapper, feeds = plain_function(model, LENGTH, Classification), examples(model, LENGTH)
    with nullcontext() if fits else pytest.raises(InputError, match="differs from the model by"):
        _check_against_model(wrapper, tmp_path / "model.onnx", feeds)


def test_an_architecture_that_no_graph_can_hold_is_named_and_leaves_nothing(tmp_path):
    model = bert()
    plain = model.classifier.forward
    model.classifier.forward = lambda pooled: plain(torch.special.bessel_j0(pooled))
    message = "BertForSequenceClassification cannot be exported: PyTorch makes no valid graph of it .*bessel_j0"
    with pytest.raises(InputError, match=message):
        export(model, tmp_path, LENGTH, Classification)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_counts_positions_in_its_own_way_does_so_in_its_graph(tmp_path):
    model = bert()
    plain = model.forward

    def forward(input_ids, attention_mask, token_type_ids, position_ids=None):
        own = torch.arange(input_ids.shape[1]).flip(0)[None] if position_ids is None else position_ids
        return plain(input_ids, attention_mask, token_type_ids, own)

    model.forward = forward
    path = export(model, tmp_path, LENGTH, Classification)
    np.testing.assert_allclose(
        reference.infer(reference.load(path), feed(3, 7)), torch_logits(model, feed(3, 7)), rtol=1e-4, atol=1e-5
    )


def test_a_model_without_finite_logits_is_refused(tmp_path):
    model = bert()
    model.classifier.weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match="cannot be exported: its logits are not finite, or differ from call to call"):
        export(model, tmp_path, LENGTH, Classification)


@pytest.mark.parametrize("family", ["Roberta", "Electra", "DistilBert"])
@pytest.mark.parametrize("head", ["SequenceClassification", "QuestionAnswering"])
def test_relatives_of_bert(tmp_path, family, head):
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    if family == "DistilBert":
        sizes = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128}
    types = {} if family == "DistilBert" else {"type_vocab_size": 1 if family == "Roberta" else 2}
    config = getattr(transformers, f"{family}Config")(vocab_size=120, max_position_embeddings=66, **types, **sizes)
    model = getattr(transformers, f"{family}For{head}")(config).eval()
    task = Classification if "Sequence" in head else QuestionAnswering
    handle = reference.load(export(model, tmp_path, LENGTH, task))
    names = [tensor.name for tensor in handle.get_inputs()]
    assert names == ["input_ids", "attention_mask", *(["token_type_ids"] if family == "Electra" else [])]
    asked = feed(3, 11)
    asked["input_ids"][asked["attention_mask"] == 0] = config.pad_token_id
    asked["input_ids"][asked["attention_mask"] == 1] += 1  # no padding id among the tokens
    asked["input_ids"] %= 120
    with torch.no_grad():
        output = model(**{name: torch.from_numpy(asked[name]) for name in names})
    expected = output.logits if "Sequence" in head else torch.stack([output.start_logits, output.end_logits], -1)
    found = reference.infer(handle, asked)
    kept = asked["attention_mask"] > 0 if found.ndim == 3 else slice(None)
    np.testing.assert_allclose(found[kept], expected.numpy()[kept], rtol=1e-4, atol=1e-5)
