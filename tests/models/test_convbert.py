"""ConvBERT answers a text alone and beside a longer one alike, in PyTorch and as a graph."""

from pathlib import Path

import numpy as np
import torch
from transformers import ConvBertConfig, ConvBertForSequenceClassification

from optkit.graph import reference
from optkit.graph.export import export
from optkit.models import families
from optkit.tasks.classification import Classification

IDS = torch.arange(5, 15)[None]


def model() -> ConvBertForSequenceClassification:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = ConvBertConfig(vocab_size=50, embedding_size=32, max_position_embeddings=32, initializer_range=0.5, **sizes)
    return ConvBertForSequenceClassification(config).eval()


def answers(made: ConvBertForSequenceClassification) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a text without padding, and with six tokens of it."""
    padded = torch.cat([IDS, torch.zeros(1, 6, dtype=torch.long)], 1)
    with torch.no_grad():
        alone = made(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
        return alone, made(input_ids=padded, attention_mask=(padded > 0).long()).logits


def test_padding_moves_nothing_any_more_and_the_text_alone_stays_what_it_was() -> None:
    made = model()
    before, moved = answers(made)
    assert (before - moved).abs().max() > 1e-3, "transformers' own convolutions read padding"
    families.prepare(made)
    alone, beside = answers(made)
    assert torch.equal(alone, before)
    assert torch.allclose(alone, beside, atol=1e-5)


def test_the_graph_is_blind_to_padding_too(tmp_path: Path) -> None:
    made = model()
    families.prepare(made)
    graph = reference.load(export(made, tmp_path, 32, Classification))
    padded = torch.cat([IDS, torch.zeros(1, 6, dtype=torch.long)], 1)
    feeds = [{"input_ids": ids.numpy(), "attention_mask": (ids > 0).long().numpy()} for ids in (IDS, padded)]
    names = {given.name for given in graph.get_inputs()}
    for feed in feeds:
        feed.update({name: np.zeros_like(feed["input_ids"]) for name in names - feed.keys()})
    assert np.allclose(*(reference.infer(graph, feed) for feed in feeds), atol=1e-5)
