"""What `peers.py` found: lines of JSON, a table, and a picture of two panels, how fast and how much of the metric stays."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

Row = Mapping[str, Any]
SHAPES = ("1x32", "8x128", "32x128")
COLOURS = {"optkit": "#0b66c3", "peer": "#6b7480"}
"""Those of the project's other pictures: INT8's and FP32's."""


def write(folder: Path, machine: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write `peers.jsonl` (the machine, then a line for each peer), `peers.md` and `peers.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(line) for line in (machine, *rows)]
    (folder / "peers.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "peers.md").write_text(table(machine, rows), encoding="utf-8")
    if shown := measured(rows):
        picture(machine, shown).savefig(folder / "peers.png", dpi=150)


def measured(rows: Sequence[Row]) -> list[Row]:
    """Rows with everything, the slowest first."""
    found = [row for row in rows if "speedup" in row and "failed" not in row]
    return sorted(found, key=lambda row: row["speedup"]["texts"][1])


def table(machine: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """One table, and the peers that failed with their reasons."""
    columns = ["", "MB", "texts/s", *(f"ms at {shape}" for shape in SHAPES), "speed-up texts", *SHAPES]
    columns += [machine["metric"], "delta [95 %]", "cosine", "note"]
    lines = [columns, ["---", *["---:"] * (len(columns) - 2), "---"], *map(cells, measured(rows))]
    said = [
        f"{machine['scored']}, {machine['texts']} texts of {machine['tokens_median']:.0f} tokens in the median and "
        f"{machine['tokens_most']} at most; {machine['threads']} threads; {', '.join(machine['cpu'])}; load average "
        f"{machine['load']}. Speed-ups: the median over {machine['rounds']} rounds of the ratio to PyTorch FP32.",
        "\n".join(f"| {' | '.join(line)} |" for line in lines),
        "\n".join(f"* {row['peer']}: failed: {row['failed']}" for row in rows if "failed" in row),
    ]
    return "\n\n".join(part for part in said if part) + "\n"


def cells(row: Row) -> list[str]:
    """One peer's."""
    low, high = row["delta_ci95"]
    return [
        row["peer"],
        f"{row['size_mb']:.1f}",
        f"{row['texts_per_s']:.0f}",
        *(f"{row['ms'][shape]:.1f}" for shape in SHAPES),
        *(f"{row['speedup'][shape][1]:.2f}" for shape in ("texts", *SHAPES)),
        f"{row['value']:.2f}",
        f"{row['delta']:+.2f} [{low:+.2f}, {high:+.2f}]",
        f"{row['cosine_mean']:.4f}",
        row["note"],
    ]


def picture(machine: Mapping[str, Any], rows: Sequence[Row]) -> Figure:
    """Two panels with a bar for each peer."""
    figure = Figure(figsize=(10, 1 + 0.32 * len(rows)), layout="constrained")
    speed, kept = figure.subplots(1, 2, sharey=True)
    names = [row["peer"] for row in rows]
    colours = [COLOURS["optkit" if name.startswith("optkit") else "peer"] for name in names]
    ratios = [row["speedup"]["texts"] for row in rows]
    speed.barh(names, [median for _, median, _ in ratios], color=colours)
    spread = [[median - low for low, median, _ in ratios], [high - median for _, median, high in ratios]]
    speed.errorbar([median for _, median, _ in ratios], names, xerr=spread, fmt="none", color="#1b1f24", linewidth=1)
    for name, (_, median, high) in zip(names, ratios, strict=True):
        speed.annotate(f"{median:.2f}×", (high, name), (4, 0), textcoords="offset points", va="center", fontsize=8)
    speed.set(xlabel="texts/s over PyTorch FP32 (median, quartiles)", xlim=(0, 1.15 * max(high for *_, high in ratios)))
    ends = [[abs(row["delta_ci95"][side] - row["delta"]) * row["kept"] / row["value"] for row in rows] for side in (0, 1)]
    kept.errorbar([row["kept"] for row in rows], names, xerr=ends, fmt="o", color="#1b1f24", markersize=4, linewidth=1)
    kept.axvline(100, color=COLOURS["peer"], linewidth=1, linestyle="--")
    kept.set(xlabel=f"{machine['metric']} kept, % (95 % interval of the delta)")
    for panel in (speed, kept):
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    return figure
