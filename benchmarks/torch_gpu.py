"""The engine `torch` on a GPU: FP16, bf16, INT8, FP8 and 2:4 beside each other, whole batches and batches of mixed lengths.

    python benchmarks/torch_gpu.py hollow graphs/                               # anywhere: graphs without weights
    python benchmarks/torch_gpu.py run graphs/ --models large --kinds fp16 int8 # on a card, without Model Optimizer

The first writes the structure of a graph for each model, a few megabytes, to be carried to a card; there weights are drawn
anew, as speed does not depend on them. One process compiles each engine, all at a time; then they take turns. Lines of JSON.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from arguments import MODELS
from onnx import TensorProto

from optkit.core.gpu import gpus
from optkit.engines.candidate import EIGHT_BIT
from optkit.engines.torch.aot_engine import RUNTIME
from optkit.graph import onnx_file

KINDS = {
    "fp16": ("fp16", "fp16"),
    "bf16": ("bf16", "bf16"),
    "int8": ("int8", "fp16"),
    "fp8": ("fp8", "bf16"),
    "fp16-2to4": ("fp16", "fp16"),
    "int8-2to4": ("int8", "fp16"),
}
"""Precision and variant."""
SPARSE = "-2to4"
"""End of the kinds whose weights are 2:4: where cuSPARSELt is slower, their products are dense; how many is said."""
SHAPES = ((32, 384, 1.0), (32, 384, 0.5), (32, 128, 1.0), (8, 128, 1.0), (1, 128, 1.0))
"""Batch, tokens, and the share of them that exist."""
HOLLOW, LARGEST = "hollow", 8192
ROUNDS, REPLAYS = 15, 5


def main() -> None:
    """Do what the first argument says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("hollow", "run", "build"))
    parser.add_argument("graphs", type=Path)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["base", "large"])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument(
        "--seconds", type=float, default=170, help="after which a compilation is given up; default %(default)s"
    )
    given = parser.parse_args()
    if problem := mistake(given):
        parser.error(problem)
    if given.what == "hollow":
        for model in given.models:
            write_hollow(model, given.graphs)
    elif given.what == "build":
        build(given.models[0], given.kinds[0], given.graphs)
    elif not run(given):
        sys.exit(1)


def mistake(given: argparse.Namespace) -> str | None:
    """What of the arguments cannot be done, if so, before anything is begun."""
    if given.what == "hollow":
        return None
    ends = {"int8" if KINDS[kind][0] in EIGHT_BIT else "float" for kind in given.kinds}
    names = [f"{model}-{end}.onnx" for model in given.models for end in sorted(ends)]
    if missing := [name for name in names if not (given.graphs / name).is_file()]:
        return f"{given.graphs} holds no {', '.join(missing)}; write them: {Path(__file__).name} hollow {given.graphs}"
    return None if gpus() else "this machine has no NVIDIA GPU; `hollow` alone is for any machine"


def write_hollow(model: str, folder: Path) -> None:
    """Export a model's float and quantised graph, and write both without the values of their large constants."""
    import gpu  # the benchmark of TensorRT, which exports with Model Optimizer's quantisers

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        graphs = gpu.Graphs(model, argparse.Namespace(layers=None, shapes=[(32, 384)]), Path(scratch))
        for name, weights in (("float", None), ("int8", "per_channel")):
            graph = onnx_file.load(graphs.get(weights, sparse=False))
            for tensor in graph.graph.initializer:
                if np.prod(tensor.dims) > LARGEST:
                    for values in ("raw_data", "float_data", "int32_data"):
                        tensor.ClearField(values)
                    tensor.doc_string = HOLLOW
            (folder / f"{model}-{name}.onnx").write_bytes(graph.SerializeToString())


def filled(source: Path, target: Path, sparse: bool) -> Path:
    """Write a hollow graph with weights that are drawn anew, 2:4 ones if asked for."""
    model, random = onnx.load(source, load_external_data=False), np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if tensor.doc_string == HOLLOW:
            values = random.standard_normal(tuple(tensor.dims), np.float32)
            if sparse and len(tensor.dims) == 2 and tensor.dims[0] % 4 == 0:
                values.reshape(-1, 4, tensor.dims[1])[:, :2] = 0  # [in, out]
            whole = tensor.data_type == TensorProto.INT8
            tensor.raw_data = (
                np.clip(np.round(values * 28), -127, 127).astype(np.int8) if whole else values * 0.02
            ).tobytes()
            tensor.doc_string = ""
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx_file.save(model, target)
    return target


def build(model: str, kind: str, graphs: Path) -> None:
    """Compile one engine into `<graphs>/<model>-<kind>/engine`."""
    place = graphs / f"{model}-{kind}"
    shutil.rmtree(place, ignore_errors=True)  # of an earlier run, perhaps by other code
    precision, variant = KINDS[kind]
    source = graphs / f"{model}-{'int8' if precision in EIGHT_BIT else 'float'}.onnx"
    graph = filled(source, place / "graph" / "model.onnx", kind.endswith(SPARSE))
    (place / "engine").mkdir()
    start = time.perf_counter()
    RUNTIME.build(graph, precision, place / "engine", variant)
    evidence = RUNTIME.stored_evidence(place / "engine")
    sparse = {name: evidence[name] for name in ("sparse_layers_eligible", "sparse_layers_chosen")}
    say(what="build", model=model, kind=kind, seconds=round(time.perf_counter() - start, 1), **sparse)


def run(given: argparse.Namespace) -> bool:
    """Compile what is asked for, all at a time, and time it by turns; return whether every engine was compiled."""
    import torch

    say(what="machine", card=torch.cuda.get_device_name(), torch=torch.__version__)
    command = [sys.executable, __file__, "build", str(given.graphs)]
    builds = [
        subprocess.Popen([*command, "--models", model, "--kinds", kind]) for model in given.models for kind in given.kinds
    ]
    ends = time.monotonic() + given.seconds
    for process in builds:
        try:
            process.wait(max(1.0, ends - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
    for model in given.models:
        compare(model, given)
    return not any(process.wait() for process in builds)


def compare(model: str, given: argparse.Namespace) -> None:
    """Say how long each engine of a model takes, on the card and from array to array."""
    places = {kind: given.graphs / f"{model}-{kind}" / "engine" for kind in given.kinds}
    loaded = {kind: RUNTIME.load(place) for kind, place in places.items() if (place / "engine.json").exists()}
    say(what="loaded", model=model, kinds=list(loaded), failed=[kind for kind in given.kinds if kind not in loaded])
    if not loaded:
        return
    for batch, length, share in SHAPES:
        feed = mixed(batch, length, share)
        for _ in range(4):
            for handle in loaded.values():
                RUNTIME.infer(handle, feed)
        wall: dict[str, list[float]] = {kind: [] for kind in loaded}
        card: dict[str, list[float]] = {kind: [] for kind in loaded}
        for _ in range(ROUNDS):
            for kind, handle in loaded.items():
                start = time.perf_counter()
                RUNTIME.infer(handle, feed)
                wall[kind].append((time.perf_counter() - start) * 1e3)
                card[kind].append(on_card_ms(handle.replay))
        times = {kind: {"card_ms": middle(card[kind]), "wall_ms": middle(wall[kind])} for kind in loaded}
        say(what="time", model=model, batch=batch, length=length, tokens=int(feed["attention_mask"].sum()), **times)


def mixed(batch: int, length: int, share: float) -> dict[str, np.ndarray]:
    """A batch of which about a share of the tokens exist."""
    random = np.random.default_rng(0)
    ids = random.integers(1000, 1990, (batch, length))
    lengths = np.full(batch, length) if share == 1 else random.uniform(0.1, 2 * share - 0.1, batch) * length
    mask = (np.arange(length) < np.maximum(4, lengths)[:, None]).astype(np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def on_card_ms(replay: Any) -> float:
    """Milliseconds of one run of the last shape on the card, out of several one after the other."""
    import torch

    shape = next(reversed(replay.shapes.values()))
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    with torch.cuda.stream(replay.stream):
        start.record()
        for _ in range(REPLAYS):
            replay.launch(shape)
        end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / REPLAYS


def middle(values: list[float]) -> float:
    """The median, to a microsecond."""
    return round(statistics.median(values), 3)


def say(**row: Any) -> None:
    """Print a line of JSON."""
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
