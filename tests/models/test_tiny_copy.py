"""Tiny copies keep what tells a family's layers apart, in sizes that every technique takes."""

import pytest
import torch
import transformers

from optkit.models import families, two_to_four
from optkit.models.tiny_copy import LENGTH, WINDOW, WORDS, tiny_copy

NAMES = [
    "Albert",
    "Bert",
    "ConvBert",
    "Deberta",
    "DebertaV2",
    "DistilBert",
    "Electra",
    "EuroBert",
    "JinaEmbeddingsV3",
    "MPNet",
]
NAMES += ["MobileBert", "ModernBert", "NomicBert", "RemBert", "RoFormer", "Roberta", "XLM", "XLMRobertaXL"]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small_and_every_linear_can_be_sparse(name: str) -> None:
    config = getattr(transformers, f"{name}Config")()
    before = config.to_dict()
    made = tiny_copy(config)
    assert config.to_dict() == before, "the configuration stays as it is"
    with torch.device("meta"):
        model = transformers.AutoModelForSequenceClassification.from_config(made)
    assert sum(parameter.numel() for parameter in model.parameters()) < 200_000
    linears = families.encoder_linears(model)
    wide = {at for at, linear in linears.items() if "conv_kernel_layer" not in at}
    assert wide <= families.prunable(model).keys()
    assert two_to_four.OUT_MULTIPLE <= families.width(made) <= 64
    assert (families.longest_input(model) or LENGTH) >= LENGTH


def test_each_kind_of_layer_appears_and_windows_are_shorter_than_texts() -> None:
    made = tiny_copy(transformers.ModernBertConfig(layer_types=["full_attention"] * 3 + ["sliding_attention"] * 19))
    assert set(families.layer_kinds(made)) == {"full_attention", "sliding_attention"} and families.depth(made) == 4
    assert made.local_attention == WINDOW < LENGTH
    made = tiny_copy(transformers.DebertaV2Config(position_buckets=256, relative_attention=True))
    assert made.position_buckets == WINDOW


def test_special_tokens_keep_apart() -> None:
    config = transformers.ModernBertConfig()
    made = tiny_copy(config)
    assert made.vocab_size == WORDS
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
    own, tiny = ([getattr(one, name) for name in names] for one in (config, made))
    assert max(tiny) < WORDS
    assert [own.index(token) for token in own] == [tiny.index(token) for token in tiny], "equal where they were equal"


def test_several_queries_share_a_key_as_before() -> None:
    made = tiny_copy(transformers.EuroBertConfig(num_attention_heads=12, num_key_value_heads=3))
    assert (families.heads(made), families.key_heads(made)) == (4, 1)


def test_a_tiny_model_stays_as_it_is() -> None:
    config = transformers.BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
    assert (tiny_copy(config).hidden_size, tiny_copy(config).intermediate_size) == (32, 48)
