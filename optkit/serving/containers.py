"""NVIDIA's containers: the one that serves an engine, and the command that starts it."""

import logging
import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from optkit.core.errors import InputError, MachineError
from optkit.engines import registry as engines
from optkit.engines.base import Runtime
from optkit.engines.tensorrt import deployment

IMAGE = "nvcr.io/nvidia/tritonserver"
NEWEST = list(deployment.CONTAINERS)[-1]
"""Tag of the newest container that is known."""
_TAG = re.compile(r"\d\d\.\d\d", re.ASCII)
log = logging.getLogger(__name__)
OPTIONS = ("--model-repository=/models", "--disable-auto-complete-config")


def container(record: Mapping[str, Any], tag: str | None = None) -> str:
    """The tag of the container that runs an engine.

    It needs the runtime of the version that built it, or a newer one where that reads what older ones wrote. An older one is
    taken with a warning where such have been seen to run an engine.

    Args:
        record: the engine's `engine.json`.
        tag: container to check instead of looking for one, such as "26.07"; "26.09=11.3.0" for one that is not in the
            table, with the version of the engine's runtime in it.

    Raises:
        MachineError: no container is known for the engine, or the one that was named would refuse it.
        InputError: the tag or the version is none, or what is in the named container is not known.
    """
    kind, built = record["kind"], built_version(record)
    runtime = engines.runtime(kind)
    table = runtime.containers(record)
    if tag is None:
        found = [name for name, version in table.items() if _runs(record, version)]
        if not found and table and runtime.runs_on_older(record):
            found = list(table)
            _say_older(found[-1], kind, table[found[-1]], built)
        if not found:
            raise MachineError(
                f"no Triton container with {kind} {built} is known, {f'only {table}' if table else 'nor any with another'}. "
                "Look one up in NVIDIA's support matrix or release notes, and name it with its version: --container "
                f"TAG=VERSION{_newest(runtime, table)}"
            )
        return found[-1]
    name, _, version = tag.partition("=")
    check_tag(name, tag)
    version, known = version or table.get(name, ""), table.get(name, "")
    if not all(part.isdecimal() for part in version.split(".")):
        raise InputError(
            f"--container {tag}: its version of {kind} is not known, only that of {', '.join(table) or 'no container'}. "
            f"Say it: --container {name}=VERSION, as NVIDIA's release notes have it"
        )
    if known and not _agree(version, known):
        _say_overridden(name, kind, version, known)
    if not _runs(record, version) and runtime.runs_on_older(record) and _is_seen(version, table):
        _say_older(name, kind, version, built)
    elif not _runs(record, version):
        raise MachineError(
            f"container {name} has {kind} {version}, the engine was built by {built} and would be refused. Build it with "
            f"{kind} {version}, or choose another container"
        )
    return name


def check_tag(name: str, given: str | None = None) -> None:
    """Raise `InputError` unless a name is a tag of NVIDIA's containers.

    Args:
        name: the tag alone.
        given: what was given, perhaps with a version.
    """
    if not _TAG.fullmatch(name):
        raise InputError(
            f"--container {given or name!r}: expected the year and month of one of NVIDIA's containers, as {NEWEST} or "
            f"{NEWEST}=VERSION, without -py3"
        )


def _agree(version: str, other: str) -> bool:
    """Whether two versions are one as far as both say."""
    return all(own == its for own, its in zip(_numbers(version), _numbers(other), strict=False))


@cache  # a command asks for the container of each of its engines
def _say_overridden(name: str, kind: str, version: str, known: str) -> None:
    log.warning(
        "--container %s=%s: this container is known, and has %s %s; what was given goes before it",
        name,
        version,
        kind,
        known,
    )


@cache
def _say_older(name: str, kind: str, version: str, built: str) -> None:
    log.warning(
        "container %s has %s %s, and the engine was built by %s. Older versions have been seen to run newer ones' engines, "
        "but none promises it: check it there with optkit validate --url, or build it again after %s",
        *(name, kind, version, built, engines.runtime(kind).install(version)),
    )


def _is_seen(version: str, table: Mapping[str, str]) -> bool:
    """Whether a version is one of those that were tried, the oldest of them being the least of the table."""
    return _numbers(version) >= min(map(_numbers, table.values()))


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _newest(runtime: Runtime, table: Mapping[str, str]) -> str:
    """How to install the runtime of the newest container instead; nothing where none is known."""
    if not table:
        return ""
    tag, version = list(table.items())[-1]
    return f"; or build with the {runtime.kind} of one that is known; for {tag}: {runtime.install(version)}"


def image(tag: str) -> str:
    """The image of a container."""
    return f"{IMAGE}:{tag}-py3"


def docker_command(
    repository: Path, record: Mapping[str, Any], tag: str | None = None, with_optkit: str | None = None
) -> str:
    """The command that serves a repository of native models from NVIDIA's container, on loopback.

    Args:
        repository: of the models.
        record: an engine's `engine.json`.
        tag: as of `container`.
        with_optkit: image that was made of the container and has optkit's backends; NVIDIA's own if None.

    Raises:
        MachineError: no container fits the engine.
        InputError: the named container is not known.
    """
    runtime = engines.runtime(record["kind"])
    started = with_optkit or image(container(record, tag))
    ports = " ".join(f"-p 127.0.0.1:{port}:{port}" for port in (8000, 8001, 8002))
    mount = f"-v {shlex.quote(f'{repository.resolve()}:/models:ro')}"
    options = (*OPTIONS, *runtime.server_options(record))
    gpus = "--gpus all " if runtime.on_gpu else ""
    return f"docker run --rm {gpus}{ports} {mount} {started} tritonserver {' '.join(options)}"


def _runs(record: Mapping[str, Any], version: str) -> bool:
    """Whether a runtime of some version runs the engine; numbers that the table leaves out do not count."""
    offered = _numbers(version)
    built = _numbers(built_version(record))[: len(offered)]
    return offered == built or (offered > built and engines.runtime(record["kind"]).runs_on_newer(record))


def built_version(record: Mapping[str, Any]) -> str:
    """The numbers of the version that built an engine, without a build's own name, as in "2026.4.1-123" and "2.13.0+cpu"."""
    return str(record["runtime_version"]).partition("-")[0].partition("+")[0]
