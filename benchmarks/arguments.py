"""What benchmarks on a GPU are told on the command line."""

import argparse

MODELS = {"minilm": (6, 384, 12, 1536), "base": (12, 768, 12, 3072), "large": (24, 1024, 16, 4096)}
"""Layers, width, heads, width of the feed-forward block."""


def shape_of(text: str) -> tuple[int, int]:
    """(batch, tokens) of "8x128"."""
    batch, _, tokens = text.partition("x")
    if not (_is_positive(batch) and _is_positive(tokens)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected BATCHxTOKENS, such as 8x128")
    return int(batch), int(tokens)


def at_least_one(text: str) -> int:
    """A whole number from 1 on."""
    if not _is_positive(text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1 on")
    return int(text)


def _is_positive(text: str) -> bool:
    return text.isdecimal() and int(text) > 0
