"""What a published version is for: its task, its classes and the data it was made from; and whether another differs."""

from collections.abc import Iterator, Mapping
from typing import Any

Origin = Mapping[str, Any]
"""Provenance of a version, or what is known of one before it is placed."""


def differences(origin: Origin, live: Origin) -> list[str]:
    """Say in what a version is for something else than another one; what either does not state is no difference.

    Args:
        origin: of the version.
        live: of the version that it takes the place of.
    """
    return [
        f"{what} {_shown(live[name])}, and this is for {_shown(origin[name])}"
        for name, what in {"task": "task", "labels": "labels", "data": "data"}.items()
        if live.get(name) is not None and origin.get(name) is not None and live[name] != origin[name]
    ]


def _shown(value: Any) -> str:
    """A task's name, a list of labels, or the beginning of a fingerprint."""
    if isinstance(value, str):
        return repr(value[:12] if len(value) == 64 else value)
    return ", ".join(_some(value))


def _some(labels: list[str]) -> Iterator[str]:
    yield from labels[:5]
    if len(labels) > 5:
        yield f"… ({len(labels)} in all)"
