"""Engines whose matrices share their blocks are stored small, and run from the same bytes as they would have."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from optkit.core.errors import InputError
from optkit.engines import openvino_model, packed_weights
from optkit.engines import registry as engines
from optkit.engines.packed_weights import Place
from optkit.graph.export import export
from optkit.models import shared_blocks
from optkit.serving import native
from optkit.tasks.classification import Classification
from tests.engines.conftest import CPU_KINDS
from tests.graph.models import LENGTH, bert, feed, per_tensor
from tests.models.test_shared_blocks import share_

HEAD, FILES = 100, {"openvino": openvino_model.WEIGHTS, "onnxruntime": "model.onnx"}


def matrix(kind: str, transposed: bool) -> np.ndarray:
    generator = np.random.default_rng(0)
    blocks = generator.integers(0, 256, (200, 4 * np.dtype(kind).itemsize), np.uint8)
    shared = blocks[generator.integers(0, 200, 128 * 32)].view(kind).reshape(128, 128)
    return np.ascontiguousarray(shared.T) if transposed else shared


def written(path: Path, *parts: bytes) -> list[int]:
    """Write parts one after the other; where each begins."""
    path.write_bytes(b"".join(parts))
    return np.cumsum([0, *map(len, parts)]).tolist()


@pytest.mark.parametrize("kind", ["i1", "u1", "u2", "f4"])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_file_comes_back_byte_for_byte(kind: str, transposed: bool, tmp_path: Path) -> None:
    path, random = tmp_path / "weights", np.random.default_rng(1).bytes(3001)
    one, other = matrix(kind, transposed), matrix(kind, not transposed)
    _, first, between, second, _, _ = written(path, b"head\n" * 13, one.tobytes(), random, other.tobytes(), b"end")
    before = path.read_bytes()
    dense = Place(between, (30, 100), 3000)
    packed_weights.pack(path, [Place(second, other.shape, other.nbytes), dense, Place(first, one.shape, one.nbytes)])
    assert packed_weights.is_packed(path) and [file.name for file in tmp_path.iterdir()] == ["weights.npz"]
    assert packed_weights.expanded(path).tobytes() == before
    size = one.itemsize
    assert (tmp_path / "weights.npz").stat().st_size < 2 * (128 * 32 + 200 * 4 * size) + 3001 + 3000
    assert packed_weights.evidence(path) == {"expanded_bytes": len(before)}
    packed_weights.copy(path, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == before


def test_what_saves_less_than_a_quarter_stays(tmp_path: Path) -> None:
    path, shared = tmp_path / "weights", matrix("f4", False)
    for others, packed in ((170_000, False), (160_000, True)):  # codes and blocks are 7,296 bytes of 65,536
        (start, *_) = written(path, shared.tobytes(), np.random.default_rng(1).bytes(others))
        before = path.read_bytes()
        packed_weights.pack(path, [Place(start, shared.shape, shared.nbytes)])
        assert packed_weights.is_packed(path) is packed
        assert packed or path.read_bytes() == before
    assert packed_weights.evidence(tmp_path / "none") == {}


def test_places_that_cannot_be_packed_are_passed_over(tmp_path: Path) -> None:
    path, shared = tmp_path / "weights", matrix("f4", False)
    written(path, shared.tobytes())
    whole = Place(0, shared.shape, shared.nbytes)
    overlapping, odd, flat = (
        Place(4, shared.shape, shared.nbytes),
        Place(0, (3, 5), 77),
        Place(0, (128 * 128,), shared.nbytes),
    )
    packed_weights.pack(path, [overlapping, odd, flat, Place(0, (0, 4), 0), whole, whole])
    assert packed_weights.expanded(path).tobytes() == shared.tobytes()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path, shared = tmp_path / "weights", matrix("f4", False)
    written(path, shared.tobytes())
    packed_weights.pack(path, [Place(0, shared.shape, shared.nbytes)])
    packed = tmp_path / "weights.npz"
    content = bytearray(packed.read_bytes())
    content[len(content) // 2] ^= 1
    packed.write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.npz: cannot be expanded .* build the engine again"):
        packed_weights.expanded(path)
    packed.write_bytes(content[:1000])
    with pytest.raises(InputError, match=r"weights\.npz: cannot be expanded"):
        packed_weights.expanded(path)


@pytest.mark.parametrize(
    "arrays",
    [
        {"places": np.array([[-16, 0]])},
        {"places": np.array([[1 << 40, 0]])},
        {"places": np.array([[0.5, 0.0]])},
        {"places": np.array([0])},
        {"places": np.array(0)},
        {"codes0": np.zeros((3, 16), np.uint8)},
        {"blocks0": np.zeros(4, np.float32)},
        {"rest": np.zeros(3, np.uint8)},
        {"length": np.array(7)},
    ],
)
def test_what_is_no_packed_file_is_named(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    path, shared = tmp_path / "weights", matrix("f4", False)
    written(path, shared.tobytes())
    packed_weights.pack(path, [Place(0, shared.shape, shared.nbytes)])
    packed = tmp_path / "weights.npz"
    with np.load(packed) as whole:
        given = {**whole, **arrays}
    np.savez(packed, **given)
    with pytest.raises(InputError, match=r"weights\.npz: cannot be expanded"):
        packed_weights.expanded(path)
    np.save(packed.open("wb"), np.zeros(3))
    with pytest.raises(InputError, match=r"weights\.npz: cannot be expanded"):
        packed_weights.expanded(path)


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Graphs of a model whose large weights share 16 blocks of four each, in FP32 and in INT8 with a scale per weight."""
    found = {}
    for precision, make in (("fp32", bert), ("int8", per_tensor)):
        model = make()
        for name, part in shared_blocks.matrices(model).items():
            if shared_blocks.fits(part.weight, 4, 16):
                share_(part.weight, 4, 16, len(name))
        found[precision] = export(model, tmp_path_factory.mktemp("graph"), LENGTH, Classification)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", CPU_KINDS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_engine_is_packed_and_runs_as_the_same_bytes(
    kind: str, precision: str, graphs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, (packed, plain) = engines.runtime(kind), (tmp_path / name for name in ("packed", "plain"))
    if precision not in runtime.precisions(precision == "int8"):
        pytest.skip(f"{kind} builds no {precision} on this CPU")
    for folder in (packed, plain):
        folder.mkdir()
        runtime.build(graphs[precision], precision, folder, runtime.variants(precision)[-1])
        monkeypatch.setattr(packed_weights, "pack", lambda *_: None)
    weights = {folder: folder / FILES[kind] for folder in (packed, plain)}
    assert packed_weights.is_packed(weights[packed]) and not packed_weights.is_packed(weights[plain])
    assert packed_weights.expanded(weights[packed]).tobytes() == weights[plain].read_bytes()
    one, other = (engines.load(folder, threads=1) for folder in (packed, plain))
    for shape in ((1, 5), (4, 32)):
        np.testing.assert_array_equal(one.infer(feed(*shape)), other.infer(feed(*shape)))
    bytes_of = {"expanded_bytes": weights[plain].stat().st_size}
    assert one.evidence() == other.evidence() | bytes_of
    assert runtime.tensors(packed) == runtime.tensors(plain)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CPU_KINDS)
def test_a_native_backend_gets_the_file_expanded(kind: str, graphs: dict[str, Path], tmp_path: Path) -> None:
    runtime, folder = engines.runtime(kind), tmp_path / "engine"
    if not runtime.precisions(True):
        pytest.skip(f"{kind} builds no INT8 on this CPU")
    folder.mkdir()
    runtime.build(graphs["int8"], "int8", folder)
    placed = native.place(tmp_path / "repository", "model", folder) / "1"
    assert {file.name for file in placed.iterdir()} == set(runtime.artefacts)
    assert (placed / FILES[kind]).read_bytes() == packed_weights.expanded(folder / FILES[kind]).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", CPU_KINDS)
def test_a_packed_engine_runs_without_what_built_it(kind: str, graphs: dict[str, Path], tmp_path: Path) -> None:
    """A server's process has neither torch nor onnx."""
    engines.runtime(kind).build(graphs["fp32"], "fp32", tmp_path)
    code = (
        "import sys, numpy as np; from optkit.engines import registry; "
        "ids = np.ones((1, 4), np.int64); engine = registry.load(sys.argv[1], 1); "
        "engine.infer({name: ids for name in ('input_ids', 'attention_mask', 'token_type_ids')}); "
        "print(*{'torch', 'onnx', 'transformers', 'sklearn'}.intersection(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
