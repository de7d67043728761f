"""Models for the server of NVIDIA's containers: its native backends, each with its own file names and configuration.

What a backend has to know, the engine's runtime says (`optkit.engines.base.Runtime`); names, types and shapes come from the
engine's own file.
"""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, Unpack

from optkit.core.atomic import flush_tree, write_json
from optkit.core.errors import InputError
from optkit.engines import packed_weights
from optkit.engines import registry as engines
from optkit.engines.base import Tensors
from optkit.engines.record import FILE as RECORD
from optkit.engines.record import read_record
from optkit.graph import onnx_file
from optkit.serving import repository as repositories
from optkit.serving.config import check_name, dumps, message

FILE = "config.pbtxt"
log = logging.getLogger(__name__)
TYPES = {"int64": "TYPE_INT64", "int32": "TYPE_INT32", "float32": "TYPE_FP32", "float16": "TYPE_FP16"}


class Settings(TypedDict, total=False):
    """How a model is served, as in `optkit.serving.config.ModelConfig`."""

    instances: int
    threads: int | None
    """Threads of each instance, on a CPU; the backend's choice if None: the machine's cores, whatever a container has."""
    queue_delay_us: int | None
    """Where Triton batches, requests may wait this long to share one; None: no longer than the batch before takes."""
    preferred_batch_sizes: tuple[int, ...]
    """Where Triton batches, batches that do not wait; none by default, of a plan those of its profiles."""


def place(repository: Path, name: str, engine_folder: Path, **settings: Unpack[Settings]) -> Path:
    """Put an engine into a repository as version 1 of a model of a native backend.

    Args:
        repository: the repository's folder; made if it does not exist.
        name: the model's.
        engine_folder: a folder with `engine.json`; its files are copied.
        settings: how it is served.

    Returns:
        The model's folder.

    Raises:
        InputError: the name is none, the model is there already, no native backend runs the engine, or it has a tensor that
            Triton is not told of, or a precision that the backend does not compute in.
        MachineError: the repository cannot be written; nothing is left behind.
    """
    check_name(name)
    model = repository / name
    if model.exists():
        raise InputError(f"model {name!r} is already in {repository}. Remove {model}, or choose another folder")
    written = config(engine_folder, **settings)
    with repositories.staging(repository, name) as staged:
        version = staged / "1"
        version.mkdir(parents=True)
        record = read_record(engine_folder)
        runtime = engines.runtime(record["kind"])
        for artefact in runtime.artefacts:
            _copy(engine_folder / artefact, version)
        (staged / FILE).write_text(written, encoding="utf-8")
        write_json(staged / RECORD, dict(runtime.native_record(record)))
        flush_tree(staged)
        staged.rename(model)
    return model


def config(engine_folder: Path, **settings: Unpack[Settings]) -> str:
    """The text of `config.pbtxt` for an engine of any kind. It names no model, so that the folder may have any name.

    Args:
        engine_folder: a folder with `engine.json`.
        settings: how it is served.

    Raises:
        InputError: no native backend runs the engine, it has a tensor that Triton is not told of, or a precision that the
            backend does not compute in.
    """
    stored = read_record(engine_folder)
    runtime = engines.runtime(stored["kind"])
    record = runtime.native_record(stored)
    if record["variant"] != stored["variant"]:
        said = (
            "%s: Triton's %s backend computes in %s what this engine keeps in %s; check it there with optkit validate --url"
        )
        log.warning(said, engine_folder, record["kind"], record["variant"], stored["variant"])
    fields = runtime.native_config(record)
    instances, threads, delay = settings.get("instances", 1), settings.get("threads"), settings.get("queue_delay_us")
    fields["instance_group"] = [group | {"count": group["count"] * instances} for group in fields["instance_group"]]
    if own := runtime.native_parallelism(instances, threads):
        fields["parameters"] = fields.get("parameters", {}) | {name: {"string_value": own[name]} for name in own}
    if "dynamic_batching" in fields:
        told: dict[str, Any] = {} if delay is None else {"max_queue_delay_microseconds": delay}
        if preferred := settings.get("preferred_batch_sizes"):
            told["preferred_batch_size"] = list(preferred)
        fields["dynamic_batching"] = fields["dynamic_batching"] | told
    return text(runtime.tensors(engine_folder), runtime.largest_batch(record), fields)


def on_gpu(record: Mapping[str, Any]) -> bool:
    """Whether an engine runs on a GPU, as its native configuration says."""
    (group,) = engines.runtime(record["kind"]).native_config(record)["instance_group"]
    return bool(group["kind"] == "KIND_GPU")


def text(tensors: Tensors, largest_batch: int, fields: Mapping[str, Any]) -> str:
    """The text of `config.pbtxt`.

    Args:
        tensors: inputs and outputs, as `optkit.engines.base.Runtime.tensors` has them.
        largest_batch: rows that Triton may hand over at once; 0 where it does not batch.
        fields: the other fields of `model_config.proto`.

    Raises:
        InputError: a tensor that Triton is not told of.
    """
    first = 1 if largest_batch else 0  # the batch is Triton's own then
    put = {
        field: [{"name": one["name"], "data_type": _type(one), "dims": one["shape"][first:]} for one in found]
        for field, found in (("input", tensors["inputs"]), ("output", tensors["outputs"]))
    }
    return dumps(message(max_batch_size=largest_batch, **put, **fields))


def write_configs(folder: Path) -> None:
    """Write `config.pbtxt` into each `<precision>/` whose artefacts lie as in a model of a repository: it is one then."""
    for path in sorted(folder.glob(f"*/{RECORD}")):
        runtime = engines.runtime(read_record(path.parent)["kind"])
        if any(artefact.startswith("1/") for artefact in runtime.artefacts):
            (path.parent / FILE).write_text(config(path.parent), encoding="utf-8")


def _copy(artefact: Path, version: Path) -> None:
    """Copy an artefact; that of a graph may be several files, and one that is stored packed is expanded."""
    if packed_weights.is_packed(artefact):
        packed_weights.copy(artefact, version / artefact.name)
    elif artefact.suffix == ".onnx":
        onnx_file.copy(artefact, version / artefact.name)
    else:
        shutil.copy2(artefact, version)


def _type(tensor: Mapping[str, Any]) -> str:
    if tensor["dtype"] not in TYPES or not tensor["shape"]:
        raise InputError(
            f"{tensor['name']} is {tensor['dtype']} {tensor['shape']}; Triton is told of {', '.join(TYPES)} [batch, …] only"
        )
    return TYPES[tensor["dtype"]]
