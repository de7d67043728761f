"""A plan in NVIDIA's containers: what Triton's TensorRT backend has to know of it, and which TensorRT they have.

Limits come from the plan's profiles, as `engine.json` has them from TensorRT: written down a second time by hand they are a
standing source of refused models.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from optkit.core.errors import InputError, MachineError
from optkit.engines.base import Record, Tensors

CONTAINERS = {"26.05": "10.16", "26.06": "11.0.0", "26.07": "11.1.0", "26.08": "11.2.1"}
"""TensorRT's version by the tag of the container `nvcr.io/nvidia/tritonserver:<tag>-py3`; all of them are for CUDA 13."""
CONTAINERS_CUDA = 13

Profiles = Sequence[Mapping[str, Sequence[Sequence[int]]]]
"""Shapes of each profile, `{input: [smallest, best, largest shape]}`."""


def native_config(record: Record, instances: int = 1, queue_delay_us: int | None = 100) -> dict[str, Any]:
    """Fields of `config.pbtxt` for a plan, beside its tensors and its largest batch.

    Args:
        record: the plan's `engine.json`.
        instances: copies on each GPU that work at the same time.
        queue_delay_us: requests of one length may wait this long to share a batch; None: each is a batch of its own.

    Raises:
        InputError: no instance, or a delay below 0.
    """
    if instances < 1 or (queue_delay_us is not None and queue_delay_us < 0):
        raise InputError(f"found {instances} instances and a delay of {queue_delay_us} us, expected at least 1 and 0")
    profiles: Profiles = record["profiles"]
    group = {"count": instances, "kind": "KIND_GPU", "profile": [str(number) for number in range(len(profiles))]}
    graphs = [
        {"batch_size": batch, "input": {name: {"dim": [length]} for name in record["inputs"]}}
        for batch, length in graph_shapes(profiles)
    ]
    cuda = {"graphs": True, "graph_spec": graphs}
    fields = {"platform": "tensorrt_plan", "instance_group": [group], "optimization": {"cuda": cuda}}
    if queue_delay_us is not None:
        # the batches that kernels were chosen for; the backend collects no more than the largest of them
        best = {shapes[1][0] for profile in profiles for shapes in profile.values()}
        preferred = sorted({*best, largest(profiles)[0]})
        fields["dynamic_batching"] = {"preferred_batch_size": preferred, "max_queue_delay_microseconds": queue_delay_us}
    return fields


def graph_shapes(profiles: Profiles) -> list[tuple[int, int]]:
    """Shapes [batch, length] that the backend records a CUDA graph of: each profile's smallest, best and largest batch at
    its best and at its largest length. Requests of other shapes run without one: a graph of a larger shape would compute
    with what is left in its inputs."""
    found = set()
    for profile in profiles:
        for shapes in profile.values():
            found |= {(batch, length) for batch, _ in shapes for _, length in shapes[1:]}
    return sorted(found)


def tensors(record: Record) -> Tensors:
    """Inputs and outputs as TensorRT named them; a length that all profiles fix is part of the inputs' shapes."""
    inputs = []
    for tensor in record["tensors"]["inputs"]:
        lengths = {shape[1] for profile in record["profiles"] for shape in profile[tensor["name"]]}
        inputs.append({**tensor, "shape": [-1, lengths.pop() if len(lengths) == 1 else -1]})
    return {"inputs": inputs, "outputs": record["tensors"]["outputs"]}


def largest(profiles: Profiles) -> tuple[int, int]:
    """The largest batch and the longest input that some profile takes."""
    shapes = [shapes[2] for profile in profiles for shapes in profile.values()]
    return max(batch for batch, _ in shapes), max(length for _, length in shapes)


def containers(record: Record) -> Mapping[str, str]:
    """The table of containers.

    Raises:
        MachineError: the plan was built without a GPU.
    """
    if record.get("offline"):
        raise MachineError(
            "the plan was built without a GPU, by TensorRT for RTX, and no container runs it. Build it on a machine with a "
            "GPU, by the same command"
        )
    if record.get("cuda", CONTAINERS_CUDA) < CONTAINERS_CUDA:
        tag, version = list(CONTAINERS.items())[-1]
        raise MachineError(
            f"the plan was built by TensorRT for CUDA {record['cuda']}, and the containers are for CUDA {CONTAINERS_CUDA}; "
            "those for CUDA 12, up to 25.07, have a TensorRT that is too old for these plans. Build it again for "
            f"{tag}: {package(version)}; older drivers of data-centre cards know CUDA 13 by cuda-compat, which it brings"
        )
    return CONTAINERS


def node_labels(record: Record) -> dict[str, str]:
    """Labels of nodes with a card of the architecture that a plan was built for; none where it was built for several."""
    if record["settings"]["hardware"] != "none":
        return {}
    return {
        f"nvidia.com/gpu.compute.{name}": str(number)
        for name, number in zip(("major", "minor"), record["capability"], strict=True)
    }


def package(version: str) -> str:
    """The command that installs the TensorRT of a container."""
    return f"pip install 'tensorrt-cu{CONTAINERS_CUDA}=={version}.*'"
