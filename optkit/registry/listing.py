"""What is in a repository, for people as a table and for scripts as JSON."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from optkit.core.errors import InputError
from optkit.core.plain_text import plain, rendered, table
from optkit.registry import layout, signing
from optkit.registry.disk import reading


@dataclass(frozen=True)
class Version:
    """One published version."""

    model: str
    version: int
    live: bool
    published: str
    """Time of publication, ISO 8601 in UTC."""
    by: str
    recipe: str
    seed: int
    precision: str
    engine: str
    metric: str
    value: float
    delta: float
    delta_ci95: tuple[float, float]
    """Delta and its interval, in the metric's points."""
    size_bytes: int
    """Size of the whole version's folder."""
    verdict: str
    forced: str | None
    """Why it was published although its gate said no."""
    signature: str
    """`unsigned`, or the key that the signature names."""


def versions(root: Path) -> list[Version]:
    """Every version of every model, the newest of each first.

    Raises:
        InputError: there is no such repository, or something in it was not published.
    """
    if not root.is_dir():
        raise InputError(f"model repository {root}: no such folder. Publish a model first, or name another one")
    found = []
    with reading(root):
        for name, numbers in layout.models(root).items():
            layout.check(root / name)
            live = layout.live(root / name)
            found += [_version(root / name / str(number), number == live) for number in reversed(numbers)]
    return found


def render(found: list[Version], form: str) -> str:
    """Render versions as a table or as JSON.

    Raises:
        InputError: no such format.
    """
    return rendered(found, form, partial(_table, found))


def _version(folder: Path, live: bool) -> Version:
    origin = layout.provenance(folder)
    row = origin["row"]
    same = ("precision", "engine", "metric", "value", "delta", "verdict", "recipe", "seed")
    return Version(
        model=origin["model"],
        version=origin["version"],
        live=live,
        published=origin["published"]["at"],
        by=origin["published"]["by"],
        delta_ci95=tuple(row["delta_ci95"]),
        size_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        forced=origin["forced"] and origin["forced"]["why"],
        signature=signing.shown(folder),
        **{name: row[name] for name in same},
    )


def _table(found: list[Version]) -> str:
    columns = ("model", "version", "live", "published", "engine", "metric", "delta [95 %]", "MB", "gate", "signature")
    made = table(columns, left=("model", "live", "published", "engine", "gate", "signature"))
    for each in found:
        made.add_row(*_cells(each))
    return plain(made)


def _cells(each: Version) -> list[str]:
    low, high = each.delta_ci95
    return [
        each.model,
        str(each.version),
        "live" if each.live else "",
        each.published,
        f"{each.precision} {each.engine}",
        f"{each.metric} {each.value:.2f}",
        f"{each.delta:+.2f} [{low:+.2f}, {high:+.2f}]",
        f"{each.size_bytes / 1e6:.1f}",
        each.verdict if each.forced is None else f"{each.verdict}, forced: {each.forced}",
        each.signature,
    ]
