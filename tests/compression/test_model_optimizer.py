"""Model Optimizer is imported without PyTorch's compiler, which stays what it is for everybody else."""

import pytest
import torch

from optkit.compression.model_optimizer import _without_compiler


def double(value):
    return value * 2


def test_functions_of_model_optimizer_stay_as_they_are():
    inside = {"__name__": "modelopt.torch.somewhere", "torch": torch, "double": double}
    before = torch.compile
    with _without_compiler():
        exec("found = torch.compile(double), torch.compile(dynamic=True)(double)", inside)
    assert inside["found"] == (double, double)
    assert torch.compile is before


@pytest.mark.slow
def test_functions_of_others_are_compiled_meanwhile():
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    with _without_compiler():
        compiled = torch.compile(double, backend=counter)
    assert compiled(torch.ones(2)).tolist() == [2.0, 2.0] and counter.frame_count == 1
