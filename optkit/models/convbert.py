"""ConvBERT's convolutions over tokens, kept from reading padding.

transformers hides padding from attention, not from the convolutions beside it (Jiang et al. 2020, arXiv 2008.02496): a text
would be answered otherwise beside a longer one. Here they read zeros in its place, as beyond the ends of a text.
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.convbert.modeling_convbert import ConvBertSelfAttention


class PaddingBlindAttention(ConvBertSelfAttention):
    """ConvBERT's attention and convolution, whose results for tokens do not depend on padding."""

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: Any = None, encoder_hidden_states: Any = None, **more: Any
    ) -> Any:
        """Return what the base class does, of hidden states [batch, sequence, hidden] with zeros for padding.

        Args:
            hidden_states: input.
            attention_mask: numbers [batch, 1, 1, sequence] added to scores, 0 for tokens; None without padding.
            encoder_hidden_states: of another encoder, which an encoder alone has none of.
            more: further arguments of the base class.
        """
        if attention_mask is None:
            return super().forward(hidden_states, attention_mask, encoder_hidden_states, **more)
        real: torch.Tensor = (attention_mask[:, 0, 0, :, None] > -1.0).to(hidden_states.dtype)

        def hide(module: nn.Module, given: Any, output: torch.Tensor) -> torch.Tensor:
            return output * real  # the bias is there for padding too

        handle = self.conv_out_layer.register_forward_hook(hide)
        try:
            return super().forward(hidden_states * real, attention_mask, encoder_hidden_states, **more)
        finally:
            handle.remove()


def hide_padding(model: PreTrainedModel) -> None:
    """Keep the convolutions of a model from reading padding, in place."""
    for module in model.modules():
        if type(module) is ConvBertSelfAttention:
            module.__class__ = PaddingBlindAttention
