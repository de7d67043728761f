"""NVIDIA's Model Optimizer, imported quietly and without PyTorch's compiler."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Leave Model Optimizer's own functions as they are where its import would have them compiled: that alone imports
    TorchInductor, which takes longer than all the rest. The one that it does so with gathers logits of several GPUs."""
    compile_ = torch.compile

    def compiled(*functions: Callable[..., Any], **options: Any) -> Any:
        if not sys._getframe(1).f_globals.get("__name__", "").startswith("modelopt."):
            return compile_(*functions, **options)  # of another library, or of another thread meanwhile
        return functions[0] if functions else lambda function: function

    torch.compile = compiled  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = compile_


with warnings.catch_warnings(), _without_compiler():
    warnings.simplefilter("ignore")  # it warns of each transformers release it has not been tested with
    import modelopt.torch.quantization as mtq
    from modelopt.torch.quantization.calib.calibrator import _Calibrator as Calibrator
    from modelopt.torch.quantization.nn import TensorQuantizer
    from modelopt.torch.quantization.plugins.custom import CUSTOM_MODEL_PLUGINS

__all__ = ["CUSTOM_MODEL_PLUGINS", "Calibrator", "TensorQuantizer", "mtq"]
