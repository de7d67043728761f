"""Model cards: a README written from a version's provenance, and from nothing else (after Mitchell et al. 2019)."""

from collections.abc import Iterator, Mapping
from typing import Any

_NAMES = {"pytorch": "PyTorch", "graph": "ONNX graph", "engine": "engine", "server": "Triton"}


def text(provenance: Mapping[str, Any]) -> str:
    """The card of one version, in Markdown."""
    parts = (_head, _how, _accuracy, _speed, _limits, _use)
    return "\n\n".join("\n".join(part(provenance)) for part in parts) + "\n"


def _head(origin: Mapping[str, Any]) -> Iterator[str]:
    row, engine = origin["row"], origin["engine"]
    yield f"# {origin['model']}, version {origin['version']}"
    yield ""
    yield (
        f"A BERT-type model of {row['layers']} layers for the task `{origin['task']}`, as a {row['precision']} engine of "
        f"{engine['kind']} ({row['size_bytes'] / 1e6:.1f} MB). Published {origin['published']['at']} by "
        f"{origin['published']['by']}."
    )
    if origin["forced"]:
        yield ""
        yield (
            f"**It did not pass its gate** ({row['verdict']}: {'; '.join(row['reasons'])}). {origin['forced']['by']} "
            f"published it nevertheless: {origin['forced']['why']}"
        )


def _how(origin: Mapping[str, Any]) -> Iterator[str]:
    recipe, git = origin["recipe"], origin["git"]
    yield "## How it was made"
    yield ""
    yield f"Recipe `{recipe['name']}`, seed {origin['seed']}:"
    yield ""
    for number, stage in enumerate(recipe["stages"], 1):
        settings = ", ".join(f"{name} {value}" for name, value in stage.items() if name != "technique")
        yield f"{number}. {stage['technique']}: {settings}"
    if not recipe["stages"]:
        yield "1. fine-tuning alone: this is the FP32 baseline"
    yield ""
    state = "unknown" if git is None else f"`{git['commit'][:12]}`{', with changes on top' if git['changed'] else ''}"
    yield f"Data `{origin['data'][:12]}`, git commit {state}. `{origin['version']}/provenance.json` has the whole of it."


def _accuracy(origin: Mapping[str, Any]) -> Iterator[str]:
    row = origin["row"]
    low, high = row["delta_ci95"]
    yield "## Accuracy"
    yield ""
    yield (
        f"{row['metric']} {row['value']:.2f} on the dev split, through Triton; the FP32 baseline has "
        f"{row['baseline']:.2f}. The difference is {row['delta']:+.2f} points, 95 % interval [{low:+.2f}, {high:+.2f}] "
        f"(paired bootstrap over the examples). Gate: at most -{row['max_drop']:g} points; verdict: {row['verdict']}."
    )
    yield ""
    yield f"| where | {row['metric']} |"
    yield "| --- | ---: |"
    for rung, value in row["rungs"].items():
        yield f"| {_NAMES.get(rung, rung)} | {value:.2f} |"
    others = [other for other in origin["rows"] if _is_same(other, row)]
    if len(others) > 1:
        yield ""
        deltas = ", ".join(f"{other['delta']:+.2f} (seed {other['seed']})" for other in others)
        yield f"The recipe's difference by training seed: {deltas}."


def _is_same(other: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return other["seed"] is not None and all(other[name] == row[name] for name in ("recipe", "precision"))


def _speed(origin: Mapping[str, Any]) -> Iterator[str]:
    row, sixteen_bit = origin["row"], origin["row"]["speedup_vs_16bit"]
    yield "## Speed"
    yield ""
    yield f"Through {row['served_by']} on {origin['machine']['processor']}, {origin['machine']['threads']} threads:"
    yield ""
    yield "| batch | p50 ms | p95 ms | p99 ms | inferences/s | over FP32 | over 16-bit |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for size, times in row["latency_ms"].items():
        shown = " | ".join(f"{times[p]:.1f}" for p in ("p50", "p95", "p99"))
        beside = "" if sixteen_bit is None else f"{sixteen_bit[size]:.2f}"
        yield f"| {size} | {shown} | {row['throughput'][size]:.1f} | {row['speedup'][size]:.2f} | {beside} |"


def _limits(origin: Mapping[str, Any]) -> Iterator[str]:
    config, engine = origin["config"], origin["engine"]
    yield "## Limits"
    yield ""
    yield f"* Up to {config['max_sequence']} tokens in a text and {config['max_batch_size']} texts in a request."
    yield f"* Scored on the dev split of `{origin['task']}` alone; nothing is known of other texts."
    features = ", ".join(engine["cpu_features"]) or "no special instructions"
    yield f"* Built for a CPU with {features}, by {engine['kind']} {engine.get('runtime_version', '')}."
    yield "* The speed is that of the machine named above, while it was measured."


def _use(origin: Mapping[str, Any]) -> Iterator[str]:
    inputs = ", ".join(f"`{name}`" for name in origin["config"]["inputs"])
    yield "## Use"
    yield ""
    yield f"Triton model `{origin['model']}`: {inputs} as INT64 [batch, sequence] in, `logits` as FP32 out."
    yield "Go back with `optkit rollback`, check with `optkit verify`."
