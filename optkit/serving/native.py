"""TensorRT plans for the server of NVIDIA's containers: their configuration, and which container takes which plan.

The configuration follows the plan's own profiles and types, as `engine.json` has them from TensorRT: batch and sequence
limits written down a second time by hand are a standing source of refused models.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optkit.errors import InputError, MachineError
from optkit.serving.config import parse

FILE = "config.pbtxt"
TYPES = {"int64": "TYPE_INT64", "int32": "TYPE_INT32", "float32": "TYPE_FP32", "float16": "TYPE_FP16"}
TENSORRT_OF = {"26.05": "10.16", "26.06": "11.0.0", "26.07": "11.1.0", "26.08": "11.2.1"}
"""TensorRT's version by the tag of NVIDIA's container `nvcr.io/nvidia/tritonserver:<tag>-py3`."""


def config(record: Mapping[str, Any], instances: int = 1, queue_delay_us: int | None = 100) -> str:
    """The text of `config.pbtxt` for a plan. It names no model, so that the folder may have any name.

    Args:
        record: the plan's `engine.json`.
        instances: copies on each GPU that work at the same time.
        queue_delay_us: requests of one length may wait this long to share a batch; None: each is a batch of its own.

    Raises:
        InputError: a number below 1, or a tensor that is not [batch, …].
    """
    from google.protobuf import text_format

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
    return text_format.MessageToString(message)


def write_configs(folder: Path) -> None:
    """Write `config.pbtxt` into each `<precision>/` that holds a TensorRT plan: it is a model of a repository then."""
    for path in sorted(folder.glob("*/engine.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["kind"] == "tensorrt":
            (path.parent / FILE).write_text(config(record), encoding="utf-8")


def largest_batch(profiles: Sequence[Mapping[str, Sequence[Sequence[int]]]]) -> int:
    """The largest batch that some profile takes."""
    return max(shapes[2][0] for profile in profiles for shapes in profile.values())


def _best_batches(profiles: Sequence[Mapping[str, Sequence[Sequence[int]]]]) -> list[int]:
    """The batches that kernels were chosen for."""
    return sorted({shapes[1][0] for profile in profiles for shapes in profile.values()})


def _input_dims(name: str, profiles: Sequence[Mapping[str, Sequence[Sequence[int]]]]) -> list[int]:
    """Without the batch: a length that all profiles fix, or -1."""
    lengths = {shape[1] for profile in profiles for shape in profile[name]}
    return list(lengths) if len(lengths) == 1 else [-1]


def _type(tensor: Mapping[str, Any]) -> str:
    if tensor["dtype"] not in TYPES or not tensor["shape"]:
        raise InputError(
            f"{tensor['name']} is {tensor['dtype']} {tensor['shape']}; Triton is told of {', '.join(TYPES)} [batch, …] only"
        )
    return TYPES[tensor["dtype"]]


def container(record: Mapping[str, Any], tag: str | None = None) -> str:
    """The tag of the container whose TensorRT runs a plan.

    Args:
        record: the plan's `engine.json`.
        tag: container to check instead of looking for one, such as "26.07".

    Raises:
        MachineError: no container is known for the plan's TensorRT, or the one that was named has another version.
        InputError: the named container is not in the table.
    """
    built = record["runtime_version"]
    if tag is None:
        found = [name for name, version in TENSORRT_OF.items() if _same(built, version)]
        if not found:
            raise MachineError(
                f"no Triton container with TensorRT {built} is known, only {TENSORRT_OF}. Build the plan with a TensorRT "
                "of one of these, or look its container up in NVIDIA's support matrix"
            )
        return found[-1]
    if tag not in TENSORRT_OF:
        raise InputError(f"container {tag!r}: its TensorRT is not known; the table has {', '.join(TENSORRT_OF)}")
    if not _same(built, TENSORRT_OF[tag]) and not record["settings"]["version_compatible"]:
        raise MachineError(
            f"container {tag} has TensorRT {TENSORRT_OF[tag]}, the plan was built by {built} and would be refused. Build it "
            "inside that container, or choose another one"
        )
    return tag


def _same(built: str, version: str) -> bool:
    return built.split(".")[: version.count(".") + 1] == version.split(".")


def docker_command(repository: Path, record: Mapping[str, Any], tag: str | None = None) -> str:
    """The command that serves a repository of plans from NVIDIA's container, on loopback.

    Raises:
        MachineError: no container fits the plan.
        InputError: the named container is not known.
    """
    image = f"nvcr.io/nvidia/tritonserver:{container(record, tag)}-py3"
    ports = " ".join(f"-p 127.0.0.1:{port}:{port}" for port in (8000, 8001, 8002))
    compatible = " --backend-config=tensorrt,version-compatible=true" if record["settings"]["version_compatible"] else ""
    mount = f"-v {repository.resolve()}:/models:ro"
    return f"docker run --rm --gpus all {ports} {mount} {image} tritonserver --model-repository=/models{compatible}"
