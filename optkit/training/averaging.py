"""Averages of weights while they train: the end is taken from where training has been, not from where its last step led
(Polyak & Juditsky 1992; Izmailov et al. 2018, arXiv 1803.05407)."""

from typing import Any

import torch
from torch import nn


class RunningAverage:
    """Exponential moving average of a model's trainable parameters. Zeros that are held stay zeros."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Begin at the weights as they are.

        Args:
            model: trains; on the device that it trains on.
            decay: share of the average that each step keeps. The first steps keep less, so that the start is soon left
                behind; 0 keeps nothing, the average is the model itself.
        """
        self.decay, self.steps = decay, 0
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad] if decay else []
        self.parameters = [parameter.detach() for parameter in trained]
        self.averages = [parameter.clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        if self.averages:
            kept = min(self.decay, (1 + self.steps) / (10 + self.steps))
            torch._foreach_lerp_(self.averages, self.parameters, 1 - kept)

    @torch.no_grad()
    def finish(self) -> None:
        """Give the model its averages."""
        for parameter, average in zip(self.parameters, self.averages, strict=True):
            parameter.copy_(average)

    def state_dict(self) -> dict[str, Any]:
        """Return what a snapshot keeps."""
        return {"steps": self.steps, "averages": self.averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.steps = state["steps"]
        for average, kept in zip(self.averages, state["averages"], strict=True):
            average.copy_(kept)
