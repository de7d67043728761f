"""Tiny BERTs with and without quantisers, and feeds for them; two layers of width 64, built in milliseconds."""

import warnings

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertForQuestionAnswering, BertForSequenceClassification

from optkit.models.families import encoder_linears

VOCABULARY, LENGTH = 120, 32


class ClippedGelu(nn.Module):
    """GELU cut off at 10."""

    def forward(self, hidden):
        return torch.clamp(nn.functional.gelu(hidden), max=10.0)


def bert(cls=BertForSequenceClassification, layers=2):
    """A model with weights large enough for every quantiser, softmax and GELU to matter; the same at every call."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=LENGTH,
        num_labels=2 if cls is BertForQuestionAnswering else 3,
        initializer_range=0.15,
    )
    return cls(config).eval()


def quantised(cls=BertForSequenceClassification, extra=()):
    """The same with INT8 quantisers on the encoder's Linear modules, calibrated by their maxima.

    Args:
        cls: the model's class.
        extra: entries added to ModelOpt's list of quantisers.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import modelopt.torch.quantization as mtq
    model = bert(cls)
    for layer in model.bert.encoder.layer:
        layer.intermediate.intermediate_act_fn = ClippedGelu()
    entries = [
        {"quantizer_name": "*", "enable": False},
        {"quantizer_name": "*encoder.layer.*weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}},
        {"quantizer_name": "*encoder.layer.*input_quantizer", "cfg": {"num_bits": 8, "axis": None}},
        {"quantizer_name": "*LayerNorm*", "enable": False},
        *extra,
    ]
    feeds = [as_tensors(feed(8, LENGTH, seed)) for seed in range(3)]

    def forward(calibrated):
        with torch.no_grad():
            for tensors in feeds:
                calibrated(**tensors)

    return mtq.quantize(model, {"quant_cfg": entries, "algorithm": "max"}, forward).eval()


def with_biases(model):
    """The model with biases that matter in its Linear modules, where they begin as zeros."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.3)
    return model


def per_tensor(cls=BertForSequenceClassification):
    """A model with biases that matter, whose quantised weights have one scale each, that of query, key and value shared."""
    from optkit import Quantize
    from optkit.compression import quantizers

    model = with_biases(bert(cls))
    quantizers.insert(model, Quantize(gelu_clip=10.0, weights="per_tensor"))
    quantizers.calibrate(model, lambda made: [made(**as_tensors(feed(8, LENGTH, seed))) for seed in range(3)])
    return model.eval()


def sparse(model):
    """The model with the first two of every four input channels of its encoder's weights at zero."""
    for linear in encoder_linears(model).values():
        linear.weight.data.unflatten(1, (-1, 4))[..., :2] = 0
    return model


def feed(batch, sequence, seed=0):
    """Random tokens, int64 [batch, sequence]; every row but the first ends in some padding."""
    ids = np.random.default_rng(seed).integers(1, VOCABULARY, (batch, sequence))
    mask = np.ones_like(ids)
    for row in range(1, batch):
        mask[row, sequence - row % max(1, sequence // 2) :] = 0
    types = (np.arange(sequence) >= sequence // 2) * mask
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": types.astype(np.int64)}


def as_tensors(arrays):
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def torch_logits(model, arrays):
    """What PyTorch answers: [batch, classes], or [batch, sequence, 2]."""
    with torch.no_grad():
        output = model(**as_tensors(arrays))
    if isinstance(model, BertForQuestionAnswering):
        return torch.stack([output.start_logits, output.end_logits], dim=-1).numpy()
    return output.logits.numpy()
