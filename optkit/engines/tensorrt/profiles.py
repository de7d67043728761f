"""How a plan is built: frozen settings, checked when they are made and again against the graph and the card."""

import dataclasses
from pathlib import Path
from typing import Any

from optkit.core.errors import InputError, MachineError
from optkit.core.gpu import Gpu
from optkit.engines.build_options import BuildOptions

SHAPES = "three numbers, such as 1,8,64"
HARDWARE = ("none", "ampere_plus", "same_compute_capability")
GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Profile:
    """One optimisation profile: the shapes that an execution context may take, and the one kernels are chosen for.

    Raises:
        InputError: naming everything that contradicts itself.
    """

    batch: tuple[int, int, int] = (1, 8, 64)
    """Smallest, best and largest batch."""
    sequence: tuple[int, int, int] | None = None
    """Smallest, best and largest length in tokens; None for 1, min(128, longest) and the longest that the graph takes."""

    def __post_init__(self) -> None:
        lines = []
        for name in ("batch", "sequence"):
            given = getattr(self, name)
            if given is None:
                continue
            if len(given) != 3 or not 1 <= given[0] <= given[1] <= given[2]:
                lines.append(f"{name} {', '.join(map(str, given))}: expected 1 <= smallest <= best <= largest")
        if lines:
            raise InputError("optimisation profile: " + "; ".join(lines))

    def for_graph(self, longest: int) -> "Profile":
        """Return the profile with its sequence lengths filled in.

        Args:
            longest: tokens that the graph has positions for.

        Raises:
            InputError: the profile goes beyond that.
        """
        if self.sequence is None:
            return dataclasses.replace(self, sequence=(1, min(128, longest), longest))
        if self.sequence[2] > longest:
            raise InputError(
                f"optimisation profile: sequences of up to {self.sequence[2]} tokens, but the graph has positions for "
                f"{longest}. Give a profile of at most {longest} tokens, or export the graph for longer inputs"
            )
        return self

    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Return the smallest, best and largest shape, [batch, sequence] each."""
        if self.sequence is None:
            raise InputError("optimisation profile: without a sequence; ask `for_graph` first")
        return tuple(zip(self.batch, self.sequence, strict=True))


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything a plan depends on beside the graph.

    Raises:
        InputError: naming every setting that is wrong.
    """

    profiles: tuple[Profile, ...] = (Profile(),)
    workspace_bytes: int = GIB
    """Scratch memory that a kernel may use on the card."""
    sparse: bool | None = None
    """Let TensorRT time 2:4 kernels; None where the graph's weights are 2:4 sparse."""
    tf32: bool = False
    """Let float32 products run with 10 bits of mantissa on tensor cores. TensorRT does so by itself; a baseline that is
    said to be FP32 should not."""
    refit: bool = False
    """Weights can be exchanged in the finished plan; may cost speed."""
    version_compatible: bool = False
    """The plan also runs on newer TensorRT versions; may cost speed, and Triton must be told."""
    hardware: str = "none"
    """Cards that the plan runs on beside this one; may cost speed."""
    optimization_level: int = 3
    """Optimisation level, 0 to 5: how long TensorRT searches for faster kernels."""
    timing_cache: Path | None = None
    """File of measured kernel times, read and written; None for optkit's cache folder."""

    def __post_init__(self) -> None:
        lines = []
        if not self.profiles:
            lines.append("profiles: none, expected at least one")
        if self.workspace_bytes < 1:
            lines.append(f"workspace_bytes: found {self.workspace_bytes}, expected at least 1")
        if self.hardware not in HARDWARE:
            lines.append(f"hardware: found {self.hardware!r}, expected one of {', '.join(HARDWARE)}")
        if not 0 <= self.optimization_level <= 5:
            lines.append(f"optimization_level: found {self.optimization_level}, expected 0 to 5")
        if lines:
            raise InputError("TensorRT settings: " + "; ".join(lines))

    def as_dict(self) -> dict[str, Any]:
        """Return the settings in JSON types, for keys and records, without the cache, which does not affect the result."""
        found = dataclasses.asdict(self)
        del found["timing_cache"]
        return found

    def check_memory(self, gpu: Gpu) -> None:
        """Raise `MachineError` where the card has less free memory than the workspace may take."""
        if self.workspace_bytes > gpu.free_bytes:
            raise MachineError(
                f"{gpu.name} has {gpu.free_bytes / GIB:.1f} GiB free of {gpu.memory_bytes / GIB:.1f}, the workspace may "
                f"take {self.workspace_bytes / GIB:.1f} GiB. Give a smaller --workspace-mb, or end what uses the card"
            )


@dataclasses.dataclass(frozen=True)
class Options(BuildOptions):
    """`Settings` in the words of a command line; those that are None take the default there.

    Raises:
        InputError: naming the option that is wrong.
    """

    batch: str | None = None
    """Batches "smallest,best,largest" of each profile, profiles separated by "/"."""
    sequence: str | None = None
    """Lengths "smallest,best,largest" in tokens of each profile, or one triple for all."""
    workspace_mb: int | None = None
    """Scratch memory in MiB."""
    variant: str | None = None
    """Placement of the INT8 quantisers, where none can be timed."""
    sparse: bool | None = None
    """Sparse kernels; this and the fields that follow are as in `Settings`."""
    tf32: bool | None = None
    refit: bool | None = None
    version_compatible: bool | None = None
    hardware: str | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        self.settings()

    def settings(self) -> Settings:
        """Return the settings of the builder."""
        batches, sequences = _triples("--batch", self.batch), _triples("--sequence", self.sequence)
        count = max(len(batches), len(sequences))
        if not {len(batches), len(sequences)} <= {1, count}:
            raise InputError(f"--batch has {len(batches)} profiles, --sequence {len(sequences)}: expected as many, or one")
        pairs = zip(batches * (count // len(batches)), sequences * (count // len(sequences)), strict=True)
        same = {field.name for field in dataclasses.fields(Settings)} & set(self.names())
        given = {name: value for name in same if (value := getattr(self, name)) is not None}
        if self.workspace_mb is not None:
            given["workspace_bytes"] = self.workspace_mb << 20
        return Settings(profiles=tuple(Profile(one or Profile.batch, other) for one, other in pairs), **given)

    def as_dict(self) -> dict[str, Any]:
        """The settings, and the variant that was asked for."""
        return self.settings().as_dict() | {"variant": self.variant}


def _triples(option: str, text: str | None) -> list[tuple[int, int, int] | None]:
    if text is None:
        return [None]
    try:
        found = [tuple(int(part) for part in profile.split(",")) for profile in text.split("/")]
    except ValueError:
        found = [()]
    if any(len(numbers) != 3 for numbers in found):
        raise InputError(f"{option} {text}: expected {SHAPES}; several profiles apart by /")
    return [(numbers[0], numbers[1], numbers[2]) for numbers in found]
