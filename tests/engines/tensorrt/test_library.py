"""TensorRT's module is found, too old a one is refused, and every name the code uses exists in 10.13 and in 11.4."""

import ast
import ctypes
import json
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

from optkit.core.errors import MachineError
from optkit.engines.tensorrt import library
from optkit.engines.tensorrt.empty_libraries import shared_library

PACKAGE = Path(library.__file__).parent
OLD = Path(sys.prefix, "tensorrt-10.13")
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "problem": "ParserError",
    "config": "IBuilderConfig",
    "trt_profile": "IOptimizationProfile",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "runtime": "Runtime",
}
"""What objects of these names are in the modules that talk to TensorRT."""
CALLERS = ("builder.py", "logger.py", "runner.py")


def names_used():
    """Dotted names of TensorRT's that the code uses: `BuilderFlag.REFIT`, `IBuilderConfig.set_flag`."""
    found = set()
    for file in CALLERS:
        for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
            if isinstance(node, ast.Attribute):
                root, *rest = ast.unparse(node).removeprefix("self.").split(".")
                plain = list(takewhile(str.isidentifier, rest))
                if root == "trt" and plain and not plain[-1].startswith("__"):
                    found.add(".".join(plain))
                elif root in CLASSES and plain:
                    found.add(f"{CLASSES[root]}.{plain[0]}")
    return sorted(found)


CHECK = """
import json, sys
sys.path[:0] = {path!r}
from optkit.engines.tensorrt import library
if {old}:
    trt = library.bindings("10", {{"nvinfer": {nvinfer!r}, "nvonnxparser": {parser!r}, "nvinfer_plugin": {plugin!r}}})
else:
    trt = library.load()
def exists(name):
    at = trt
    for part in name.split("."):
        at = getattr(at, part, None)
    return at is not None
print(json.dumps([trt.__version__, [name for name in {names!r} if not exists(name)]]))
"""
ENTRIES = {
    "nvinfer": [
        "createInferBuilder_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL",
        "getBuilderPluginRegistry",
        "getPluginRegistry",
    ],
    "parser": ["createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion"],
    "plugin": ["initLibNvInferPlugins"],
}


@pytest.mark.parametrize("old", [True, False], ids=["10.13", "11.4"])
def test_every_name_that_is_used_exists(old):
    if old and not OLD.is_dir():
        pytest.skip(f"pip install --no-deps --target {OLD} tensorrt-cu12-bindings==10.13.3.9")
    used = names_used()
    assert {"BuilderFlag.SPARSE_WEIGHTS", "IBuilderConfig.set_flag", "IExecutionContext.execute_async_v3"} <= set(used)
    path = [str(OLD)] if old else []
    code = CHECK.format(path=path, old=old, names=used, **ENTRIES)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    version, missing = json.loads(done.stdout)
    assert version.startswith("10.13." if old else "11.")
    assert missing == []


def test_a_name_that_was_removed_would_be_found():
    code = CHECK.format(path=[], old=False, names=["BuilderFlag.FP16", "IInt8EntropyCalibrator2", "Builder"], **ENTRIES)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)[1] == ["BuilderFlag.FP16", "IInt8EntropyCalibrator2"]


def test_an_empty_library_can_be_loaded_and_its_functions_called(tmp_path):
    path = tmp_path / "any.so"
    path.write_bytes(shared_library("liboptkit_test.so.7", ["first", "second"]))
    loaded = ctypes.CDLL(str(path))
    assert (loaded.first(), loaded.second()) == (1, 1)
    assert not hasattr(loaded, "third")


def test_an_old_tensorrt_is_refused():
    with pytest.raises(MachineError, match=r"TensorRT 10\.3\.0 is installed, expected 10\.13 or newer.*pip install"):
        library._check_version("10.3.0")
    library._check_version("10.13.3.9")


@pytest.mark.parametrize(
    ("packages", "required", "container", "major"),
    [
        (["tensorrt-cu12"], [], "", 12),
        (["tensorrt-cu12", "tensorrt-cu13-libs"], [], "", 13),
        (["tensorrt"], ["tensorrt_cu12_libs==10.13.0"], "13.0.1", 12),
        (["tensorrt"], ["tensorrt_cu13==11.1.0"], "", 13),
        (["tensorrt"], None, "12.9.1.010", 12),
        ([], None, "", 13),
    ],
)
def test_the_cuda_of_a_tensorrt(monkeypatch, packages, required, container, major):
    monkeypatch.setattr(library, "_is_installed", lambda name: name in packages)
    monkeypatch.setattr(library, "requires", lambda name: required)
    monkeypatch.setenv("CUDA_VERSION", container)
    assert library.cuda() == major


def test_without_tensorrt_both_ways_to_it_are_named(monkeypatch):
    library.load.cache_clear()
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: None)
    try:
        with pytest.raises(MachineError, match=r"not installed in .*pip install 'tensorrt-cu13.*tensorrt-builder"):
            library.load()
        assert not library.is_offline()
    finally:
        library.load.cache_clear()
