"""Families are told by their modules and usual names: where the layers are, which Linear is which, and how large it is."""

from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from optkit.core.errors import InputError
from optkit.engines.tensorrt import model_check
from optkit.graph.products import module_of
from optkit.models import families, loading
from optkit.models.families import FAMILIES
from optkit.models.family import ATTENTION, Family
from optkit.models.layers import Layers
from optkit.models.loading import LoadedModel
from optkit.tasks.base import Task
from tests.conftest import saved

WORDS = {"vocab_size": 20, "pad_token_id": 0}
SIZES = {**WORDS, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
OWN_WORDS = {**WORDS, "dim": 64, "n_layers": 3, "n_heads": 4, "hidden_dim": 128}


def model(family: str, sizes: dict[str, int]) -> PreTrainedModel:
    """A classifier without weights."""
    with torch.device("meta"):
        return _made(family, sizes)


def _made(family: str, sizes: dict[str, int]) -> PreTrainedModel:
    config = getattr(transformers, f"{family}Config")(**sizes)
    return getattr(transformers, f"{family}ForSequenceClassification")(config)


@pytest.mark.parametrize(
    ("family", "layers", "linears", "roles"),
    [
        ("Bert", "bert.encoder.layer", 6, ATTENTION),
        ("Roberta", "roberta.encoder.layer", 6, ATTENTION),
        ("Electra", "electra.encoder.layer", 6, ATTENTION),
        ("DistilBert", "distilbert.transformer.layer", 6, ATTENTION),
        ("MPNet", "mpnet.encoder.layer", 6, ATTENTION),
        ("DebertaV2", "deberta.encoder.layer", 6, ATTENTION),
        ("Deberta", "deberta.encoder.layer", 4, ATTENTION[3:]),  # one Linear gives queries, keys and values
        ("ModernBert", "model.layers", 4, ATTENTION[3:]),  # likewise
        ("MobileBert", "mobilebert.encoder.layer", 15, ATTENTION),  # with a list of feed-forward blocks inside
    ],
)
def test_a_family_is_read_without_a_record(family: str, layers: str, linears: int, roles: tuple[str, ...]) -> None:
    made = model(family, OWN_WORDS if family == "DistilBert" else SIZES)
    assert families.layers_of(made) == Layers(frozenset([layers]))
    assert len(families.encoder_layers(made)) == families.depth(made.config) == 3
    assert len(families.encoder_linears(made)) == 3 * linears
    assert tuple(role for role in ATTENTION if role in families.attention_linears(made)) == roles
    assert (families.width(made.config), families.heads(made.config)) == (64, 4)


def test_layers_that_share_their_weights_are_one_set_of_modules() -> None:
    albert = model("Albert", SIZES)
    assert len(families.encoder_linears(albert)) == 6
    assert families.layers_of(albert).lists == {"albert.encoder.albert_layer_groups"}
    assert families.encoder_layers(albert) == list(albert.albert.encoder.albert_layer_groups)
    assert set(families.attention_linears(albert)) == {*ATTENTION}


def test_layers_that_are_neither_one_each_nor_shared() -> None:
    albert = model("Albert", SIZES)
    albert.config.num_hidden_groups = 2
    with pytest.raises(InputError, match="its configuration has 3 layers, its modules are 1; expected one for each"):
        families.encoder_layers(albert)


@pytest.mark.parametrize(
    ("node", "layer"),
    [
        ("/model/bert/encoder/layer.11/attention/self/query/MatMul", 11),
        ("/model/bert/encoder/layer.0/attention/self/MatMul_1", 0),
        ("/model/roberta/encoder/layer.3/output/dense/MatMul", 3),
        ("/model/electra/encoder/layer.2/intermediate/dense/MatMul", 2),
        ("/model/distilbert/transformer/layer.5/attention/q_lin/MatMul", 5),
        ("/model/mpnet/encoder/layer.2/attention/attn/q/MatMul", 2),
        ("/model/albert/encoder/albert_layer_groups.0/albert_layers.0/attention/query_3/MatMul", 0),
        ("/model/model/layers.21/attn/Wqkv/MatMul", 21),
        ("/model/deberta/encoder/layer.1/attention/self/query_proj/MatMul", 1),
        ("/model/mobilebert/encoder/layer.7/ffn.2/intermediate/dense/MatMul", 7),
        ("/model/tower/stages/stages.4/ask/MatMul", 4),  # as a Sequential is called
        ("/model/bert/pooler/dense/Gemm", None),
        ("/model/classifier/Gemm", None),
    ],
)
def test_the_layer_of_a_node(node: str, layer: int | None) -> None:
    name = module_of(node)
    assert Layers.among([name]).number(name) == layer


def test_layers_are_where_most_products_are() -> None:
    head = ["classifier.0", "classifier.2"]
    embeddings = ["bert.embeddings.tags.0", "bert.embeddings.tags.1"]
    encoder = [f"bert.encoder.layer.{layer}.{part}" for layer in range(2) for part in ("query", "ffn.0", "ffn.1")]
    layers = Layers.among([*head, *embeddings, *encoder])
    assert [layers.number(name) for name in encoder] == [0, 0, 0, 1, 1, 1]
    assert {layers.number(name) for name in [*head, *embeddings, "bert.encoder.layer", "my.bert.encoder.layers.0"]} == {None}
    assert Layers.among(["pooler", "classifier"]).lists == frozenset()


def test_lists_side_by_side_are_layers_together() -> None:
    """XLM has lists of attentions and of feed-forward blocks."""
    layers = Layers.among([f"transformer.{part}.{layer}.lin" for part in ("attentions", "ffns") for layer in range(2)])
    assert layers.lists == {"transformer.attentions", "transformer.ffns"}
    assert layers.number("transformer.ffns.1.lin2") == 1


def test_a_record_says_where_the_layers_are() -> None:
    layers = Layers.among(["bert.words.0", "bert.words.1", "bert.encoder.encoder.0"], told="encoder.encoder")
    assert layers.number("bert.encoder.encoder.3.query") == 3 and layers.number("bert.words.1") is None


def test_what_the_file_calls_a_size_is_found_in_it_too() -> None:
    config = {"model_type": "distilbert", "n_layers": 6, "dim": 768, "n_heads": 12, "max_position_embeddings": 512}
    assert (families.depth(config), families.width(config), families.heads(config)) == (6, 768, 12)
    assert model_check.of_config(config)[0].found.startswith("64 wide")
    with pytest.raises(InputError, match=r"^config\.json: num_hidden_layers is None, expected a whole number from 0 on\."):
        families.depth({"model_type": "mystery", "blocks": 6})


def test_a_record_is_for_its_own_model_type() -> None:
    FAMILIES.register("mystery", Family(depth=("blocks",)))
    try:
        assert families.depth({"model_type": "mystery", "blocks": 6}) == 6
        assert families.depth({"model_type": "bert", "blocks": 6, "num_hidden_layers": 12}) == 12
        assert families.records()["mystery"]["depth"] == ("blocks",)
    finally:
        FAMILIES.forget("mystery")
    assert families.records() == {}


def test_a_smaller_configuration_keeps_its_own_names() -> None:
    made = families.resized(BertConfig(), [0, 2, 4, 7, 9, 11], 0.5)
    assert (made.num_hidden_layers, made.hidden_size, made.intermediate_size) == (6, 384, 1536)
    assert made.to_dict().keys() == BertConfig().to_dict().keys()


def test_a_head_of_several_parts_is_no_layer() -> None:
    bert = BertForSequenceClassification(BertConfig(**{**SIZES, "num_hidden_layers": 1}))
    bert.classifier = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
    assert set(families.encoder_linears(bert)) == {name for name in families.linears(bert) if ".layer.0." in name}


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("Canine", {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}),
        ("Perceiver", {"vocab_size": 20, "d_latents": 32, "d_model": 32, "num_latents": 8}),
    ],
)
def test_a_model_without_word_embeddings_is_refused_by_its_type(family: str, sizes: dict[str, int]) -> None:
    found = model(family, sizes)
    with pytest.raises(InputError) as error:
        families.word_embeddings(found)
    refused = f"model type '{family.lower()}' is not supported: {family}ForSequenceClassification has no table of word "
    assert str(error.value).startswith(refused)


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("Mra", "model type 'mra' is not supported: its attention is computed by a CUDA kernel"),
        ("GPT2", "GPT2ForSequenceClassification is not supported: its tokens see those before them only"),
    ],
)
def test_what_no_recipe_takes_is_refused_where_a_model_is_taken(
    family: str, said: str, tiny_model: LoadedModel, tiny_task: Task, tmp_path: Path
) -> None:
    sizes = {**SIZES, "vocab_size": len(tiny_model.tokenizer), "num_labels": 2}
    found = _made(family, sizes)
    with pytest.raises(InputError, match=said):
        loading.loaded_model(found)
    folder = saved(tiny_model, tmp_path / family)
    found.save_pretrained(folder)
    with pytest.raises(InputError, match=said):
        loading.load(folder, tiny_task)
