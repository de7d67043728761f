"""The quota of a container, read from the files that the kernel shows of control groups of both versions."""

from pathlib import Path

import pytest

from optkit.core import cpu
from optkit.core.cpu_quota import cpu_quota

V2 = "31 23 0:28 {root} {mount} rw,relatime shared:9 - cgroup2 cgroup rw\n"
V1 = (
    "30 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "31 23 0:28 {root} {mount} rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
)


def proc(folder: Path, groups: str, mounts: str, limits: dict[str, str], root: str = "/") -> Path:
    """A folder like `/proc/self`, and the mounted control groups with their limits."""
    mount = folder / "sys fs cgroup"
    for name, content in limits.items():
        (mount / name).parent.mkdir(parents=True, exist_ok=True)
        (mount / name).write_text(content)
    own = folder / "proc"
    own.mkdir()
    (own / "cgroup").write_text(groups)
    (own / "mountinfo").write_text(mounts.format(root=root, mount=str(mount).replace(" ", "\\040")))
    return own


def v1(quota: int, period: int, group: str = "") -> dict[str, str]:
    return {f"{group}cpu.cfs_quota_us": f"{quota}\n", f"{group}cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(
    ("groups", "mounts", "limits", "root", "quota"),
    [
        # a container of version 2 sees its own group as the top
        ("0::/\n", V2, {"cpu.max": "150000 100000\n"}, "/", 1.5),
        ("0::/\n", V2, {"cpu.max": "max 100000\n"}, "/", None),
        ("0::/\n", V2, {}, "/", None),
        # the smallest of the group and of those above it
        ("0::/a/b\n", V2, {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, "/", 0.5),
        ("0::/a/b\n", V2, {"cpu.max": "300000 100000", "a/b/cpu.max": "400000 50000"}, "/", 3.0),
        # a group of another container is not its own
        ("0::/a\n", V2, {"b/cpu.max": "50000 100000"}, "/", None),
        # the mount's top is the container's group, by its name on the host
        ("0::/docker/c1\n", V2, {"cpu.max": "250000 100000"}, "/docker/c1", 2.5),
        ("0::/docker/c1/own\n", V2, {"own/cpu.max": "250000 100000"}, "/docker/c1", 2.5),
        ("0::/docker/c11\n", V2, {"cpu.max": "250000 100000", "1/cpu.max": "1 1"}, "/docker/c1", 2.5),
        # a process that was moved out of what its mount shows
        ("0::/../other\n", V2, {"cpu.max": "250000 100000"}, "/", 2.5),
        ("4:memory:/m\n3:cpu,cpuacct:/docker/c1\n", V1, v1(200000, 100000), "/docker/c1", 2.0),
        ("3:cpu,cpuacct:/kubepods/p\n", V1, v1(-1, 100000) | v1(75000, 50000, "kubepods/p/"), "/", 1.5),
        ("3:cpu:/\n", V1, v1(-1, 100000), "/", None),
        ("4:cpuset:/\n", V1, v1(200000, 100000), "/", None),
        # both versions at once: the controller is version 1's
        ("3:cpu,cpuacct:/c\n0::/c\n", V1, v1(200000, 100000, "c/"), "/", 2.0),
        ("0::/\n", V2, {"cpu.max": "something else"}, "/", None),
        ("\nnothing\n0::/\n", "\nnothing\n- - cgroup2\n" + V2, {"cpu.max": "50000 100000"}, "/", 0.5),
    ],
)
def test_the_smallest_quota_counts(
    groups: str, mounts: str, limits: dict[str, str], root: str, quota: float | None, tmp_path: Path
) -> None:
    assert cpu_quota(proc(tmp_path, groups, mounts, limits, root)) == quota


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("limit", "threads"),
    [
        ("10000 100000", 1),
        ("100000 100000", 1),
        ("150000 100000", 1),
        ("390000 100000", 3),
        ("1600000 100000", 8),
        ("max 9", 8),
    ],
)
def test_threads_fit_into_the_quota_and_the_affinity_mask(
    limit: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "allowed_cores", lambda: 8)
    assert cpu.available_threads(proc(tmp_path, "0::/\n", V2, {"cpu.max": limit})) == threads


def test_torch_and_numpy_are_told_of_the_quota_unless_somebody_told_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "allowed_cores", lambda: 8)
    limited = proc(tmp_path, "0::/\n", V2, {"cpu.max": "200000 100000"})
    for own, expected in (({}, {"OMP_NUM_THREADS": "2"}), ({"OMP_NUM_THREADS": "5"}, {"OMP_NUM_THREADS": "5"})):
        environment = dict(own)
        cpu.bound_openmp(environment, limited)
        assert environment == expected
    unlimited: dict[str, str] = {}
    cpu.bound_openmp(unlimited, tmp_path / "none")
    assert not unlimited
