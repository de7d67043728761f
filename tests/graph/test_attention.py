"""What moves out of attention moves only where nothing changes: the logits stay those of the graph as it was."""

import numpy as np
import onnx
import pytest
from onnx import helper

from optkit.graph import reference
from optkit.graph.export import export
from optkit.graph.passes import constants
from optkit.graph.products import products
from optkit.graph.tensorrt import attention
from optkit.tasks.classification import Classification

from .families import FAMILIES, classifier, texts
from .models import LENGTH, bert, feed, with_biases

pytestmark = pytest.mark.slow

MOVED = {
    "albert": (2, 2, 2),
    "convbert": (0, 2, 0),
    "deberta": (0, 0, 0),
    "deberta-v3": (0, 0, 0),
    "distilbert": (2, 2, 2),
    "eurobert": (0, 0, 0),
    "mobilebert": (2, 2, 2),
    "modernbert": (0, 0, 0),
    "mpnet": (2, 2, 2),
    "roformer": (0, 0, 2),
    "xlm-roberta": (2, 2, 2),
}
"""Scales, biases of keys and biases of values that move, of two layers each."""


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A BERT whose biases all matter."""
    return export(with_biases(bert()), tmp_path_factory.mktemp("graph"), LENGTH, Classification)


def move(model):
    """All three, and how many of each there were."""
    scales, keys = attention.fold_scales(model.graph), attention.drop_key_biases(model.graph)
    found = attention.foldings(model.graph)
    for folding in found:
        attention.fold_value_bias(model.graph, folding)
    return scales, keys, len(found)


def answers(model, path, asked):
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return reference.infer(reference.load(path), asked)


def test_a_bert_without_scale_and_biases_in_its_attention_answers_the_same(graph, tmp_path):
    model, asked = onnx.load(graph), feed(8, LENGTH)
    expected = answers(model, tmp_path / "before.onnx", asked)
    assert move(model) == (2, 2, 2)
    names = {node.name for node in model.graph.node}
    assert not any(name.endswith(("self/Mul", "self/Div", "key/Add", "value/Add")) for name in names)
    assert sum(name.endswith("query/Add") for name in names) == 2
    np.testing.assert_allclose(answers(model, tmp_path / "after.onnx", asked), expected, rtol=1e-4, atol=1e-5)
    assert move(model) == (0, 0, 0)


def test_biases_that_were_only_dropped_would_be_seen(graph, tmp_path):
    model, asked = onnx.load(graph), feed(8, LENGTH)
    expected = answers(model, tmp_path / "before.onnx", asked)
    for folding in attention.foldings(model.graph):
        attention._bypass(attention._View(model.graph), folding.values)
    assert np.abs(answers(model, tmp_path / "after.onnx", asked) - expected).max() > 0.01


@pytest.mark.parametrize("name", FAMILIES)
def test_families_answer_the_same(tmp_path, name):
    model = with_biases(classifier(name))
    asked = {key: tensor.numpy() for key, tensor in texts(model, 4, 16).items()}
    asked["token_type_ids"] = np.zeros_like(asked["input_ids"])
    graph = onnx.load(export(model, tmp_path / "graph", 32, Classification))
    expected = answers(graph, tmp_path / "before.onnx", asked)
    moved = move(graph)
    np.testing.assert_allclose(answers(graph, tmp_path / "after.onnx", asked), expected, rtol=1e-3, atol=1e-4)
    assert moved == MOVED.get(name, moved)


@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_what_another_node_reads_too_stays(graph, name):
    model = onnx.load(graph)
    for node in list(model.graph.node):
        if node.name.endswith(f"layer.0/attention/self/{name}/Add"):
            other = f"{node.output[0]}/other"
            model.graph.node.append(helper.make_node("Relu", [node.output[0]], [other], name=other))
            model.graph.output.append(helper.make_empty_tensor_value_info(other))
    assert move(model) == {"query": (1, 2, 2), "key": (2, 1, 2), "value": (2, 2, 1)}[name]


def test_probabilities_that_do_not_add_up_to_one_pass_on_no_bias(graph):
    """A factor behind softmax, such as the mask of heads that are left out."""
    model = onnx.load(graph)
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    masked = helper.make_node("Mul", [softmax.output[0], softmax.output[0]], ["masked"], name="masked")
    for node in model.graph.node:
        if softmax.output[0] in node.input:
            node.input[list(node.input).index(softmax.output[0])] = "masked"
    model.graph.node.append(masked)
    assert len(attention.foldings(model.graph)) == 1


def test_a_bias_that_other_layers_read_too_is_not_scaled_for_them(graph):
    """The exporter stores equal tensors once."""
    model = onnx.load(graph)
    biases = [node.input[0] for node in model.graph.node if node.name.endswith("query/Add")]
    for node in model.graph.node:
        if node.name.endswith("key/Add"):
            node.input[0] = biases[0]
    before = {name: tensor.SerializeToString() for name, tensor in constants(model.graph).items()}
    attention.fold_scales(model.graph)
    after = constants(model.graph)
    assert all(after[name].SerializeToString() == content for name, content in before.items())
    assert [node.input[0] for node in model.graph.node if node.name.endswith("key/Add")] == [biases[0]] * 2


def test_where_attention_is_quantised_the_scale_is_that_of_the_queries_quantiser(tmp_path, exported):
    from optkit.graph.tensorrt import ranges
    from optkit.graph.tensorrt.placement import Placement, place

    source = exported(is_quantised=True)[1]
    model, asked = onnx.load(source), feed(8, LENGTH)
    place(model, Placement(attention=True), ranges.measure(source, [asked]))
    expected = answers(model, tmp_path / "before.onnx", asked)
    assert attention.fold_scales(model.graph) == 2
    np.testing.assert_allclose(answers(model, tmp_path / "after.onnx", asked), expected, rtol=1e-4, atol=1e-5)
    first = next(product.name for product in products(model.graph) if product.is_attention)
    node = next(node for node in model.graph.node if node.name == first)
    made_by = {output: each for each in model.graph.node for output in each.output}
    assert "times_0.25" in made_by[node.input[0]].input[1]  # heads of 16
