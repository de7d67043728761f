"""How a model may be served on this machine's cores: what `optkit tune` tries."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self, TypedDict

from optkit.serving.config import ModelConfig

_DELAYS_US = (0, 500, 2000)


class Stored(TypedDict, total=False):
    """Settings in a file."""

    instances: int
    threads: int | None
    queue_delay_us: int | None
    preferred_batch_sizes: list[int]


@dataclass(frozen=True)
class Settings:
    """What `config.pbtxt` says of speed; the fields are those of `ModelConfig`."""

    instances: int = 1
    threads: int | None = None
    queue_delay_us: int | None = None
    preferred_batch_sizes: tuple[int, ...] = ()

    def __str__(self) -> str:
        split = f"{self.instances} x {self.threads or 'all'} threads"
        if self.queue_delay_us is None:
            return f"{split}, no batching"
        sizes = "/".join(map(str, self.preferred_batch_sizes))
        return f"{split}, batches within {self.queue_delay_us} us{f', at once at {sizes}' if sizes else ''}"

    def apply(self, config: ModelConfig, name: str) -> ModelConfig:
        """A model's configuration with these settings, under another name."""
        return replace(config, name=name, **vars(self))

    def as_dict(self) -> dict[str, Any]:
        """Return the fields in JSON types."""
        return asdict(self) | {"preferred_batch_sizes": list(self.preferred_batch_sizes)}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Read the settings from a dictionary with possibly more or, if an older version stored it, fewer keys."""
        known = {field.name: content[field.name] for field in fields(cls) if field.name in content}
        return cls(**known | {"preferred_batch_sizes": tuple(known.get("preferred_batch_sizes", ()))})


def splits(default: Settings, cores: int, clients: int) -> list[Settings]:
    """Ways to divide the cores: one instance with fewer threads, more instances that share the cores, and two that do not.

    Args:
        default: comes first.
        cores: of this machine.
        clients: instances beyond them would wait for ever.
    """
    powers = [2**power for power in range(cores.bit_length()) if 2**power <= cores]
    found = [default, *(Settings(1, threads) for threads in powers if threads < cores)]
    found += [Settings(instances, cores // instances) for instances in powers if 1 < instances <= clients]
    if cores > 1 and clients > 1:
        found.append(Settings(2))
    return list(dict.fromkeys(found))


def batchings(split: Settings, clients: int, largest: int) -> list[Settings]:
    """A split with requests that wait for each other; nothing for one client, who would wait for nobody.

    Args:
        split: instances and threads.
        clients: who ask at the same time.
        largest: batch that the model takes.
    """
    if clients == 1 or largest == 1:
        return []
    found = [replace(split, queue_delay_us=delay, preferred_batch_sizes=()) for delay in _DELAYS_US]
    for share in (2, 1):  # half of the requests that an instance can have, or all of them
        size = max(2, min(largest, clients // (share * split.instances)))
        found.append(replace(split, queue_delay_us=_DELAYS_US[-1], preferred_batch_sizes=(size,)))
    return list(dict.fromkeys(found))
