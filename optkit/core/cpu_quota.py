"""The share of the CPUs that a container's limit leaves to this process: the quota of the kernel's CFS scheduler."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

PROC = Path("/proc/self")


class _Mount(NamedTuple):
    """One mounted hierarchy of control groups."""

    root: str
    """Group that the mount shows as its top."""
    folder: Path


def cpu_quota(proc: Path = PROC) -> float | None:
    """Return how many cores' time this process may use: the smallest quota of its control group and the groups above.

    `docker run --cpus`, Kubernetes' `limits.cpu` and systemd's `CPUQuota` set it. The affinity mask does not show it.

    Args:
        proc: the process's folder, which says its groups (`cgroup`) and where they are mounted (`mountinfo`).

    Returns:
        Cores, such as 1.5; None without a limit, and where the kernel says nothing.
    """
    quotas = [quota for folder in _groups(proc) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def _groups(proc: Path) -> Iterator[Path]:
    """Yield the folders of the process's group and of those above it, of version 2 and of version 1's `cpu` controller."""
    groups = {}
    for line in _text(proc / "cgroup").splitlines():
        number, controllers, group = (*line.split(":", 2), "", "")[:3]
        if number == "0" or "cpu" in controllers.split(","):
            groups["cgroup2" if number == "0" else "cgroup"] = group
    for kind, mount in _mounts(proc):
        if kind in groups:
            yield from _from_top(mount, groups[kind])


def _mounts(proc: Path) -> Iterator[tuple[str, _Mount]]:
    """Yield the hierarchies that may limit the CPU, with the kind of their file system."""
    for line in _text(proc / "mountinfo").splitlines():
        place, _, source = line.partition(" - ")
        kind, options, names = source.split(" ")[0], source.split(" ")[-1], place.split(" ")[3:5]
        if len(names) == 2 and (kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(","))):
            root, folder = map(_unescaped, names)
            yield kind, _Mount(root, Path(folder))


def _from_top(mount: _Mount, group: str) -> Iterator[Path]:
    """Yield the folders from the mount's top down to a group; the top alone where the group lies outside of the mount."""
    yield (folder := mount.folder)
    inside = PurePosixPath(group).is_relative_to(mount.root) and ".." not in group.split("/")
    for part in PurePosixPath(group).relative_to(mount.root).parts if inside else ():
        yield (folder := folder / part)


def _quota(folder: Path) -> float | None:
    """Return a group's quota in cores, from `cpu.max` (version 2) or `cpu.cfs_*_us` (version 1)."""
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    content = _text(folder / "cpu.max") or " ".join(_text(folder / name) for name in names)
    try:
        quota, period = map(int, content.split())
    except ValueError:  # "max" or no such file: no limit
        return None
    return quota / period if quota > 0 and period > 0 else None


def _text(path: Path) -> str:
    """Return a file's text; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _unescaped(name: str) -> str:
    """Return a name of `mountinfo`, which writes blanks in octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), name)
