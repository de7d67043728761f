"""`config.pbtxt`: what Triton has to know about a model, as a checked dataclass with one writer and one reader.

The schema is Triton's own (`model_config.proto`), so that a file that could not be loaded is never written.
"""

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from optkit.core.errors import InputError, MachineError

OUTPUT = "logits"
FILE = "config.pbtxt"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
PARAMETERS = ("max_sequence", "pad_id", "vocab_size", "token_types", "threads")
WARMUP = "warmup"
"""Parameter with shapes, `1x16,8x128`; the others are numbers."""
SHAPES = re.compile(r"[0-9]{1,9}x[0-9]{1,9}(,[0-9]{1,9}x[0-9]{1,9})*")

Shapes = tuple[tuple[int, int], ...]
"""(batch, tokens) each."""


@dataclass(frozen=True)
class ModelConfig:
    """One model of a repository.

    Raises:
        InputError: a field cannot be served; the message lists all that are wrong.
    """

    name: str
    """Letters, digits, `_`, `-`, `.`."""
    inputs: tuple[str, ...]
    """Token inputs, int64 [batch, sequence]."""
    logits: tuple[int, ...]
    """Shape of the logits without the batch: (size,), or (-1, size) with an entry for each token."""
    max_batch_size: int = 64
    max_sequence: int = 512
    """Longest request in tokens."""
    pad_id: int = 0
    """What fills up `input_ids` where requests of different lengths share a batch."""
    vocab_size: int | None = None
    """Ids from here on are refused; not checked if None."""
    token_types: int | None = None
    """Types of tokens from here on are refused; two are taken if None."""
    threads: int | None = None
    """Threads of the engine; the engine's own choice if None."""
    instances: int = 1
    """Copies of the engine that work at the same time, each in a process of its own."""
    queue_delay_us: int | None = None
    """Requests may wait this long to share a batch; None: each request is a batch of its own."""
    preferred_batch_sizes: tuple[int, ...] = ()
    """Batches that are run as soon as they are complete, before the delay is over."""
    live: int | None = None
    """The one version that is served; the newest if None."""
    cache: bool = False
    """A request that was answered before is answered by the server's response cache, where the server has one."""
    warmup: Shapes = ()
    """What each instance answers before the server calls the model ready."""

    def __post_init__(self) -> None:
        check_name(self.name)
        mistakes = [*_wrong_tensors(self), *_wrong_numbers(self), *_wrong_batching(self), *_wrong_warmup(self)]
        if mistakes:
            raise InputError(f"configuration of model {self.name!r}: " + "; ".join(mistakes))


def check_name(name: str) -> None:
    """Refuse a name that is no plain folder name.

    Raises:
        InputError: the name is empty, or has a slash, a `..` or other characters than those allowed.
    """
    if not NAME.fullmatch(name) or ".." in name:
        raise InputError(
            f"model name {name!r}: expected letters, digits, '_', '-' and '.', starting with a letter, a digit or '_' "
            "and without '..'. Choose another name"
        )


def per_token(logits: Sequence[int]) -> bool:
    """Whether logits of such a shape, without the batch, have an entry for each token."""
    return list(logits[:1]) == [-1]


def write(config: ModelConfig, name: str | None = None) -> str:
    """The text of `config.pbtxt`, for a folder of another name if one is given."""
    written = message(name=name or config.name, backend="python", max_batch_size=config.max_batch_size)
    for name in config.inputs:
        # Ragged: requests of different lengths may share a batch; the backend pads them.
        written.input.add(name=name, data_type="TYPE_INT64", dims=[-1], allow_ragged_batch=True)
    written.output.add(name=OUTPUT, data_type="TYPE_FP32", dims=config.logits)
    written.instance_group.add(count=config.instances, kind="KIND_CPU")
    if config.live is not None:
        written.version_policy.specific.versions.append(config.live)
    if config.queue_delay_us is not None:
        written.dynamic_batching.max_queue_delay_microseconds = config.queue_delay_us
        written.dynamic_batching.preferred_batch_size.extend(config.preferred_batch_sizes)
    if config.cache:
        written.response_cache.enable = True
    for name in PARAMETERS:
        value = getattr(config, name)
        if value is not None:
            written.parameters[name].string_value = str(value)
    if config.warmup:
        written.parameters[WARMUP].string_value = ",".join(f"{batch}x{tokens}" for batch, tokens in config.warmup)
    return dumps(written)


def values(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Parameters of `config.pbtxt` as the fields that they are.

    Raises:
        InputError: the shapes are none.
    """
    numbers = {name: int(value) for name, value in parameters.items() if name != WARMUP}
    return numbers | ({WARMUP: shapes(parameters[WARMUP])} if WARMUP in parameters else {})


def shapes(text: str) -> Shapes:
    """Shapes as they are written down: `1x16,8x128` is ((1, 16), (8, 128)).

    Raises:
        InputError: it is something else.
    """
    if not SHAPES.fullmatch(text):
        raise InputError(f"{WARMUP}: found {text!r}, expected batch and tokens of each shape, such as 1x16,8x128")
    return tuple((int(batch), int(tokens)) for batch, _, tokens in (one.partition("x") for one in text.split(",")))


def from_json(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a configuration that were kept as JSON, which has lists for tuples."""
    return {name: _tuples(value) for name, value in stored.items()}


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def message(**fields: Any) -> Any:
    """Triton's own `ModelConfig`, for what is no tensor model."""
    return _schema().ModelConfig(**fields)


def dumps(message: Any) -> str:
    """The text of `config.pbtxt` of such a message."""
    from google.protobuf import text_format  # here, so that the server's backends start without it

    return text_format.MessageToString(message)


def read(text: str, source: str = "config.pbtxt") -> ModelConfig:
    """The dataclass behind a text that `write` made.

    Raises:
        InputError: the text is not Triton's format, or has other parameters than ours.
    """
    message = parse(text, source)
    unknown = sorted(set(message.parameters) - {*PARAMETERS, WARMUP})
    if message.backend != "python" or [output.name for output in message.output] != [OUTPUT] or unknown:
        raise InputError(
            f"{source}: found backend {message.backend!r}, outputs {[output.name for output in message.output]} and "
            f"unknown parameters {unknown}, expected the python backend and the output {OUTPUT!r}. Publish the model "
            "again instead of editing the file"
        )
    parameters = values({name: value.string_value for name, value in message.parameters.items()})
    if message.HasField("dynamic_batching"):
        parameters["queue_delay_us"] = message.dynamic_batching.max_queue_delay_microseconds
        parameters["preferred_batch_sizes"] = tuple(message.dynamic_batching.preferred_batch_size)
    if message.HasField("version_policy"):
        parameters["live"] = _live(message, source)
    return ModelConfig(
        name=message.name,
        inputs=tuple(tensor.name for tensor in message.input),
        logits=tuple(message.output[0].dims),
        max_batch_size=message.max_batch_size,
        instances=message.instance_group[0].count,
        cache=message.response_cache.enable,
        **parameters,
    )


def _live(message: Any, source: str) -> int:
    versions = list(message.version_policy.specific.versions)
    if len(versions) != 1:
        raise InputError(
            f"{source}: found a version policy with the versions {versions}, expected one specific version. Set it "
            "with: optkit rollback MODEL --to N"
        )
    return int(versions[0])


def parse(text: str, source: str = "config.pbtxt") -> Any:
    """The text as Triton's own `ModelConfig` message; any server's configuration is accepted.

    Raises:
        InputError: the text is not in Triton's format; the message names line and column.
    """
    from google.protobuf import text_format

    try:
        return text_format.Parse(text, _schema().ModelConfig())
    except text_format.ParseError as error:
        raise InputError(f"{source}: not a Triton model configuration: {error}") from error


@cache
def _schema() -> ModuleType:
    """Triton's `model_config.proto`, loaded by its path: importing its package would demand gRPC."""
    package = importlib.util.find_spec("tritonclient")
    if package is None or not package.submodule_search_locations:
        raise MachineError("Triton client: tritonclient is not installed. Install it: pip install 'tritonclient[http]'")
    path = Path(package.submodule_search_locations[0], "grpc/model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("optkit_model_config_pb2", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _wrong_tensors(config: ModelConfig) -> list[str]:
    mistakes = []
    if "input_ids" not in config.inputs or len(set(config.inputs)) != len(config.inputs):
        mistakes.append(f"inputs: found {list(config.inputs)}, expected 'input_ids' and others, each once")
    row = config.logits[1:] if per_token(config.logits) else config.logits
    if len(row) != 1 or row[0] < 1:
        mistakes.append(f"logits: found shape {config.logits}, expected (size,), or (-1, size) with an entry for each token")
    return mistakes


def _wrong_numbers(config: ModelConfig) -> list[str]:
    least = {"max_batch_size": 1, "max_sequence": 1, "instances": 1, "threads": 1, "vocab_size": 1, "live": 1}
    least |= {"token_types": 1, "pad_id": 0, "queue_delay_us": 0}
    found = {name: getattr(config, name) for name in least}
    return [
        f"{name}: found {value}, expected at least {least[name]}"
        for name, value in found.items()
        if value is not None and value < least[name]
    ]


def _wrong_batching(config: ModelConfig) -> list[str]:
    sizes = config.preferred_batch_sizes
    if sizes and config.queue_delay_us is None:
        return [f"preferred_batch_sizes: found {list(sizes)} without queue_delay_us, expected both or none"]
    if any(not 1 <= size <= config.max_batch_size for size in sizes):
        return [f"preferred_batch_sizes: found {list(sizes)}, expected 1 to {config.max_batch_size}"]
    return []


def _wrong_warmup(config: ModelConfig) -> list[str]:
    limits = config.max_batch_size, config.max_sequence
    return [
        f"warmup: found {batch}x{tokens}, expected batches of 1 to {limits[0]} with 1 to {limits[1]} tokens"
        for batch, tokens in config.warmup
        if not (1 <= batch <= limits[0] and 1 <= tokens <= limits[1])
    ]
