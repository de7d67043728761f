"""What validation leaves in a recipe's folder `served/`, under names that reports read too, without what wrote it."""

from pathlib import Path

SCORES, EVIDENCE, EXAMPLES = "scores.npz", "validation.json", "examples.json"
BESIDE = "baseline."
"""Prefix of the baseline's engines among the served models of another recipe."""


def engine_folders(engines: Path) -> dict[str, Path]:
    """The engines of a recipe by precision."""
    return {path.parent.name: path.parent for path in sorted(engines.glob("*/engine.json"))}
