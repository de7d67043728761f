"""Graphs for TensorRT, and plans built from them once per session with its real builder and parser, without a GPU."""

import pytest

from optkit.engines.tensorrt import builder, library
from optkit.engines.tensorrt.profiles import Settings
from optkit.graph.tensorrt import ranges
from optkit.graph.tensorrt.variants import FLOAT, INT8, write
from tests.graph.conftest import exported  # noqa: F401
from tests.graph.models import feed


@pytest.fixture(scope="session", autouse=True)
def trt():
    """TensorRT's module, whichever is here."""
    if library.installed_version() is None:
        pytest.skip(f"no TensorRT builder: {library.INSTALL_BUILDER}")
    return library.load()


@pytest.fixture(scope="session")
def written(exported, tmp_path_factory):  # noqa: F811
    """`(precision, variant) -> Written`: the tiny classifier's graph rewritten."""
    folder = tmp_path_factory.mktemp("prepared")
    made = {}

    def get(precision, variant=None):
        variant = variant or ("fp16" if precision == "int8" else precision)
        if (precision, variant) not in made:
            weights = "per_tensor" if variant.startswith("int8-out") else "per_channel"
            source, place = exported(is_quantised=precision == "int8", weights=weights)[1], folder / weights
            if precision == "int8" and not place.exists():
                place.mkdir()
                ranges.prepare(source, [feed(8, 32, seed) for seed in range(2)], place)
            choices = INT8 if precision == "int8" else FLOAT
            at = (place / "model.onnx") if precision == "int8" else source
            made[precision, variant] = write(at, choices[variant], tmp_path_factory.mktemp("variant") / "model.onnx")
        return made[precision, variant]

    return get


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("timing") / "kernels.timing"


@pytest.fixture(scope="session")
def planned(written, cache):
    """`(precision, variant) -> (Written, Plan)`."""
    made = {}

    def get(precision, variant=None):
        if (precision, variant) not in made:
            graph = written(precision, variant)
            plan = builder.build(graph.path, Settings(timing_cache=cache), graph.longest, False)
            made[precision, variant] = graph, plan
        return made[precision, variant]

    return get
