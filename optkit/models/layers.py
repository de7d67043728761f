"""Place of an encoder's layers in the names of modules, parameters and graph nodes."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from optkit.models.family import ends_with


@dataclass(frozen=True)
class Layers:
    """Place of an encoder's layers: names of the module lists that hold them, such as `bert.encoder.layer`."""

    lists: frozenset[str]

    @classmethod
    def among(cls, products: Iterable[str], told: str = "") -> "Layers":
        """Detect the layers: the module lists that hold most of a model's matrix products.

        In a name with several numbers the first counts, as layers may contain lists. Lists side by side count together, such
        as XLM's attentions and feed-forward blocks. Heads and embeddings may have lists too, with fewer products.

        Args:
            products: names of the modules with matrix products.
            told: name of the list in the family's record; empty to detect it.
        """
        numbers: dict[str, list[str]] = {}
        for place in filter(None, map(_place, [f"{told}.0"] if told else products)):
            numbers.setdefault(place[1], []).append(place[2])
        beside = {name: (name.rpartition(".")[0], frozenset(own)) for name, own in numbers.items()}
        counts = Counter(beside[name] for name, own in numbers.items() for _ in own)
        most = [group for group, _ in counts.most_common(1)]
        return cls(frozenset(name for name, group in beside.items() if group in most))

    def number(self, name: str) -> int | None:
        """Return the index of the layer that a module, parameter or buffer belongs to; None outside of the layers."""
        place = _place(name)
        return int(place[2]) if place and ends_with(place[1], self.lists) else None


def plain(name: str) -> str:
    """Normalise a module's name: the ONNX exporter writes `mlp.mlp.0` for `mlp.0` in a `Sequential`."""
    return re.sub(r"(^|\.)([^.]+)\.\2\.(?=\d)", r"\1\2.", name)


def _place(name: str) -> re.Match[str] | None:
    """Match the outermost module list and index in a name."""
    return re.match(r"(.+?)\.(\d+)(?=\.|$)", plain(name))
