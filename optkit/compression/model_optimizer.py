"""NVIDIA's Model Optimizer, imported quietly and without PyTorch's compiler."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLE = "TORCHDYNAMO_DISABLE"


@contextmanager
def _nothing_compiled() -> Iterator[None]:
    """Leave functions as they are where an import would have them compiled: that alone imports TorchInductor, which takes
    longer than Model Optimizer itself. The one function that it does so with gathers logits of several GPUs."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "1"
    try:
        yield
    finally:
        del os.environ[_VARIABLE]
        if before is not None:
            os.environ[_VARIABLE] = before


with warnings.catch_warnings(), _nothing_compiled():
    warnings.simplefilter("ignore")  # it warns of each transformers release it has not been tested with
    import modelopt.torch.quantization as mtq
    from modelopt.torch.quantization.calib.calibrator import _Calibrator as Calibrator
    from modelopt.torch.quantization.nn import TensorQuantizer
    from modelopt.torch.quantization.plugins.custom import CUSTOM_MODEL_PLUGINS

__all__ = ["CUSTOM_MODEL_PLUGINS", "Calibrator", "TensorQuantizer", "mtq"]
