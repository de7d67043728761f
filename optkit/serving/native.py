"""Models for the server of NVIDIA's containers: its native backends, each with its own file names and configuration.

Names, types and shapes come from the engine's own file, and for a plan the limits from its profiles, as `engine.json` has
them from TensorRT: limits written down a second time by hand are a standing source of refused models.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optkit import engines
from optkit.core.atomic import flush_tree
from optkit.core.errors import InputError
from optkit.engines.record import FILE as RECORD
from optkit.engines.record import read_record
from optkit.engines.tensorrt.compatibility import PLAN
from optkit.serving import repository as repositories
from optkit.serving.config import check_name, parse

FILE = "config.pbtxt"
TYPES = {"int64": "TYPE_INT64", "int32": "TYPE_INT32", "float32": "TYPE_FP32", "float16": "TYPE_FP16"}
ARTEFACTS = {"tensorrt": (PLAN,), "onnxruntime": ("model.onnx",), "openvino": ("model.xml", "model.bin")}
"""What an engine's folder holds for its backend. The backends look for these names."""
MAX_BATCH_SIZE = 64
_NO_OPTIMISATION = 2
"""ONNX Runtime's backend: the stored graph is optimised already, and runs as it is."""

Profiles = Sequence[Mapping[str, Sequence[Sequence[int]]]]


def place(repository: Path, name: str, engine_folder: Path) -> Path:
    """Put an engine into a repository as version 1 of a model of a native backend.

    Args:
        repository: the repository's folder; made if it does not exist.
        name: the model's.
        engine_folder: a folder with `engine.json`; its files are copied.

    Returns:
        The model's folder.

    Raises:
        InputError: the name is none, the model is there already, or the engine has a tensor that Triton is not told of.
        MachineError: the repository cannot be written; nothing is left behind.
    """
    check_name(name)
    model = repository / name
    if model.exists():
        raise InputError(f"model {name!r} is already in {repository}. Remove {model}, or choose another folder")
    text = config(engine_folder)
    with repositories.staging(repository, name) as staged:
        version = staged / "1"
        version.mkdir(parents=True)
        for artefact in ARTEFACTS[read_record(engine_folder)["kind"]]:
            shutil.copy2(engine_folder / artefact, version)
        (staged / FILE).write_text(text, encoding="utf-8")
        shutil.copy2(engine_folder / RECORD, staged)
        flush_tree(staged)
        staged.rename(model)
    return model


def config(engine_folder: Path) -> str:
    """The text of `config.pbtxt` for an engine of any kind. It names no model, so that the folder may have any name.

    Raises:
        InputError: the engine has a tensor that Triton is not told of.
    """
    record = read_record(engine_folder)
    if record["kind"] == "tensorrt":
        return plan_config(record)
    return _cpu_config(record, engines.module(record["kind"]).tensors(engine_folder))


def plan_config(record: Mapping[str, Any], instances: int = 1, queue_delay_us: int | None = 100) -> str:
    """The text of `config.pbtxt` for a TensorRT plan.

    Args:
        record: the plan's `engine.json`.
        instances: copies on each GPU that work at the same time.
        queue_delay_us: requests of one length may wait this long to share a batch; None: each is a batch of its own.

    Raises:
        InputError: a number below 1, or a tensor that is not [batch, …].
    """
    if instances < 1 or (queue_delay_us is not None and queue_delay_us < 0):
        raise InputError(f"found {instances} instances and a delay of {queue_delay_us} us, expected at least 1 and 0")
    profiles = record["profiles"]
    message = parse(f'platform: "tensorrt_plan" max_batch_size: {largest_batch(profiles)}')
    for tensor in record["tensors"]["inputs"]:
        message.input.add(name=tensor["name"], data_type=_type(tensor), dims=_input_dims(tensor["name"], profiles))
    for tensor in record["tensors"]["outputs"]:
        message.output.add(name=tensor["name"], data_type=_type(tensor), dims=tensor["shape"][1:])
    group = message.instance_group.add(count=instances, kind="KIND_GPU")
    group.profile.extend(str(number) for number in range(len(profiles)))
    message.optimization.cuda.graphs = True
    if queue_delay_us is not None:
        message.dynamic_batching.preferred_batch_size.extend(_best_batches(profiles))
        message.dynamic_batching.max_queue_delay_microseconds = queue_delay_us
    return _text(message)


def _cpu_config(record: Mapping[str, Any], tensors: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """OpenVINO's goes without batching by Triton: with it, the backend demands full batches (openvino_backend#71)."""
    batched = record["kind"] == "onnxruntime"
    message = parse(f'backend: "{record["kind"]}" max_batch_size: {MAX_BATCH_SIZE if batched else 0}')
    for field, found in ((message.input, tensors["inputs"]), (message.output, tensors["outputs"])):
        for tensor in found:
            field.add(name=tensor["name"], data_type=_type(tensor), dims=tensor["shape"][1 if batched else 0 :])
    message.instance_group.add(count=1, kind="KIND_CPU")
    if batched:
        message.optimization.graph.level = _NO_OPTIMISATION
    else:
        message.parameters["PERFORMANCE_HINT"].string_value = "LATENCY"
        if record["variant"] == "bf16":
            message.parameters["HINT_BF16"].string_value = "YES"
    return _text(message)


def _text(message: Any) -> str:
    from google.protobuf import text_format

    return text_format.MessageToString(message)


def write_configs(folder: Path) -> None:
    """Write `config.pbtxt` into each `<precision>/` that holds a TensorRT plan: it is a model of a repository then."""
    for path in sorted(folder.glob("*/engine.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["kind"] == "tensorrt":
            (path.parent / FILE).write_text(plan_config(record), encoding="utf-8")


def largest_batch(profiles: Profiles) -> int:
    """The largest batch that some profile takes."""
    return max(shapes[2][0] for profile in profiles for shapes in profile.values())


def _best_batches(profiles: Profiles) -> list[int]:
    """The batches that kernels were chosen for."""
    return sorted({shapes[1][0] for profile in profiles for shapes in profile.values()})


def _input_dims(name: str, profiles: Profiles) -> list[int]:
    """Without the batch: a length that all profiles fix, or -1."""
    lengths = {shape[1] for profile in profiles for shape in profile[name]}
    return list(lengths) if len(lengths) == 1 else [-1]


def _type(tensor: Mapping[str, Any]) -> str:
    if tensor["dtype"] not in TYPES or not tensor["shape"]:
        raise InputError(
            f"{tensor['name']} is {tensor['dtype']} {tensor['shape']}; Triton is told of {', '.join(TYPES)} [batch, …] only"
        )
    return TYPES[tensor["dtype"]]
