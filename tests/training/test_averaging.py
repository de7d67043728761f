"""The running average of weights: its numbers by hand, its zeros, and its state."""

import pytest
import torch
from torch import nn

from optkit.training.averaging import RunningAverage


def moved(average: RunningAverage, linear: nn.Linear, *values: float) -> None:
    for value in values:
        with torch.no_grad():
            linear.weight.fill_(value)
        average.update()


@pytest.fixture
def linear() -> nn.Linear:
    made = nn.Linear(1, 1)
    with torch.no_grad():
        made.weight.fill_(0.0)
    return made


def test_the_average_by_hand(linear: nn.Linear) -> None:
    """The first steps keep 2/11, then 3/12, of what was; no step keeps more than the decay."""
    average = RunningAverage(linear, 0.2)
    moved(average, linear, 1.0, 3.0)
    average.finish()
    assert linear.weight.item() == pytest.approx((9 / 11) * 0.2 + 3 * 0.8)


def test_no_decay_leaves_the_last_weights(linear: nn.Linear) -> None:
    average = RunningAverage(linear, 0.0)
    moved(average, linear, 1.0, 3.0)
    average.finish()
    assert linear.weight.item() == 3.0 and not average.averages


def test_what_is_not_trained_is_not_averaged(linear: nn.Linear) -> None:
    linear.bias.requires_grad_(False)
    assert len(RunningAverage(linear, 0.9).averages) == 1


def test_zeros_stay_zeros(linear: nn.Linear) -> None:
    average = RunningAverage(linear, 0.9)
    moved(average, linear, 0.0, 0.0)
    average.finish()
    assert torch.equal(linear.weight, torch.zeros(1, 1))


def test_it_goes_on_from_its_state(linear: nn.Linear) -> None:
    straight = RunningAverage(linear, 0.9)
    moved(straight, linear, 1.0)
    again = RunningAverage(linear, 0.9)
    again.load_state_dict(straight.state_dict())
    moved(straight, linear, 5.0)
    again.update()
    assert torch.equal(straight.averages[0], again.averages[0])
