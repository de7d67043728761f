"""Vectors of texts as they are served: float32, int8 or binary; and how far two sets of them are apart. NumPy alone."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from optkit.tasks.served import ServedForm, Tensors, TextSettings

KINDS = ("float32", "int8", "binary")
"""Kinds of served vectors."""
OUTPUT, SCALE = "embedding", "scale"
"""Names of the server's outputs: the vector, and what an int8 vector is multiplied by to be the float one."""
_LEAST_COSINE = {"float32": 0.99, "int8": 0.99, "binary": 0.9}
"""Below this, served vectors of the same text are others: batches of another size round differently."""
_KEPT = 20_000
"""Most vectors that are kept to be compared with the FP32 baseline's, evenly spaced where there are more."""
_SHOWN = 6
"""Numbers of a vector that people are shown."""
Floats = NDArray[np.float32]


class Vector(NamedTuple):
    """The served answer to a text."""

    values: NDArray[Any]
    """The vector as it is served: float32 or int8 [dimensions], or uint8 [dimensions / 8] with a bit for each sign."""
    kind: str

    def __str__(self) -> str:
        return f"{self.kind} {' '.join(f'{value:.4g}' for value in self.values)}"

    @classmethod
    def parse(cls, text: str) -> "Vector":
        """Read what `str` gives."""
        kind, *values = text.split()
        return cls(np.array(values, dtype=float), kind)

    def floats(self) -> Floats:
        """Return the numbers [dimensions] that are compared: 1 and -1 for bits."""
        if self.kind != "binary":
            return self.values.astype(np.float32)
        return np.unpackbits(self.values.astype(np.uint8)).astype(np.float32) * 2 - 1

    def shown(self) -> str:
        """The number of dimensions, the length, and the first numbers."""
        floats = self.floats()
        first = ", ".join(f"{value:.4g}" for value in self.values[:_SHOWN])
        length = "" if self.kind == "binary" else f", length {float(np.linalg.norm(floats)):.3f}"
        return f"a vector of {len(floats)} dimensions ({self.kind}{length}): {first}, …"


class ServedVectors(ServedForm):
    """A batch of texts, and the vector of each; beside the text the name of the prompt, where the model has prompts."""

    defaults: ClassVar[Mapping[str, str]] = {"prompt": ""}

    def logits_shape(self, settings: TextSettings) -> tuple[int, ...]:
        return tuple(settings.logits)

    def outputs(self, settings: TextSettings) -> Tensors:
        (size,), kind = settings.logits, kind_of(settings)
        if kind == "int8":
            return {OUTPUT: ("INT8", (size,)), SCALE: ("FP32", (1,))}
        return {OUTPUT: ("UINT8", (size // 8,)) if kind == "binary" else ("FP32", (size,))}

    def read(self, texts: tuple[str, ...], settings: TextSettings) -> tuple[str, ...]:
        """The text after its prompt."""
        if len(texts) == 1:
            return texts
        text, name = texts
        prompts = settings.more["prompts"]
        if name not in prompts:
            known = ", ".join(repr(one) for one in prompts)
            raise ValueError(f"prompt: found {name!r}, expected one of {known}")
        return (prompts[name] + text,)

    def answer(self, logits: Floats, beside: Mapping[str, NDArray[Any]], settings: TextSettings) -> dict[str, NDArray[Any]]:
        kind = kind_of(settings)
        if kind == "float32":
            return {OUTPUT: logits.astype(np.float32)}
        if kind == "binary":
            return {OUTPUT: np.packbits(logits > 0, axis=-1)}
        scale = scales(logits)
        return {OUTPUT: np.rint(logits / scale).astype(np.int8), SCALE: scale}

    def decode(self, outputs: Mapping[str, NDArray[Any]], labels: Sequence[str]) -> list[Vector]:
        rows = outputs[OUTPUT]
        kind = {np.dtype(np.int8): "int8", np.dtype(np.uint8): "binary"}.get(rows.dtype, "float32")
        return [Vector(row, kind) for row in rows]

    def differing(self, found: Sequence[str], expected: Sequence[str]) -> list[int]:
        """Places where vectors point elsewhere, by more than other sums of the same numbers make them."""
        pairs = [(Vector.parse(ours), Vector.parse(theirs)) for ours, theirs in zip(found, expected, strict=True)]
        return [place for place, pair in enumerate(pairs) if not _alike(*pair)]


def kind_of(settings: TextSettings) -> str:
    """Return the kind of vectors that a model serves."""
    return str(settings.more.get("vectors", KINDS[0]))


def scales(vectors: Floats) -> Floats:
    """Return what each vector's whole numbers from -127 to 127 are multiplied by, [vectors, 1]; cosines stay."""
    return np.maximum(np.abs(vectors).max(axis=-1, keepdims=True), 1e-12).astype(np.float32) / 127


def as_served(vectors: Floats, kind: str) -> Floats:
    """Return vectors [texts, dimensions] with what their kind loses: the numbers that a client compares."""
    if kind == "binary":
        return np.where(vectors > 0, 1.0, -1.0).astype(np.float32)
    return np.rint(vectors / scales(vectors)) * scales(vectors) if kind == "int8" else vectors


def cosines(ours: Floats, theirs: Floats) -> NDArray[np.float64]:
    """Return the cosine of each vector with that in the same place, [texts]."""
    one, other = ours.astype(np.float64), theirs.astype(np.float64)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return np.asarray((one * other).sum(-1) / np.maximum(lengths, 1e-12))


def similarities(queries: Floats, documents: Floats, by_dot: bool) -> Floats:
    """Return the similarity of each query with each document, [queries, documents]: cosines, or dot products."""
    if not by_dot:
        queries, documents = (
            one / np.maximum(np.linalg.norm(one, axis=-1, keepdims=True), 1e-12) for one in (queries, documents)
        )
    return np.asarray(queries @ documents.T)


def spaced(vectors: Floats) -> Floats:
    """Return as many vectors as are kept, evenly spaced."""
    if len(vectors) <= _KEPT:
        return vectors
    return vectors[np.linspace(0, len(vectors) - 1, _KEPT).astype(int)]


def _alike(ours: Vector, theirs: Vector) -> bool:
    if ours.kind != theirs.kind or ours.values.shape != theirs.values.shape:
        return False
    return bool(cosines(ours.floats()[None], theirs.floats()[None])[0] >= _LEAST_COSINE[ours.kind])
