"""What a plan is made of, layer by layer, and summed up: INT8, 2:4 sparse, attention fused, or not.

Two sources say the same: the engine inspector, where the plan can be loaded, and the table of layers that the builder
without a GPU writes into its log. Which products of the graph a layer computes stands in its metadata, the names of
ONNX nodes. A tactic is what was chosen; `SPARSE_WEIGHTS` or "eligible" alone proves nothing. What an entry leaves out, as
TensorRT shortens long ones, is unknown and counts as nothing.
"""

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from optkit.engines.base import TOKENS

if TYPE_CHECKING:
    from optkit.graph.products import Product  # brings onnx along, which running a plan does not need

_ONNX = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_TABLE_LINE = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w*), Inputs: \[(?P<inputs>.*?)\], Constants: \[(?P<constants>.*?)\], "
    r"Outputs: \[(?P<outputs>.*?)\], TacticName: (?P<tactic>.*?), StreamId: .*?Metadata: (?P<metadata>.*)"
)
_TABLE_TENSOR = re.compile(r"Dimensions: \[([^\]]*)\].*?Datatype: (\w+)")
_TYPES = {"INT8": "int8", "HALF": "fp16", "FP16": "fp16", "BFLOAT16": "bf16", "BF16": "bf16"}
_TYPES |= {"FLOAT": "fp32", "FP32": "fp32", "INT64": "int64", "INT32": "int32"}
_SPARSE = ("spars", "spmma")
_UNDECIDED = "CASK_STUB"
"""End of a tactic's name where the kernel is chosen on the card, when the plan is loaded."""
_ELIGIBLE = re.compile(r"\(Sparsity\) Found (\d+) layer|Layers eligible for sparse math:(.*)")
_CHOSEN = re.compile(r"\(Sparsity\) Chose (\d+) layer|picked sparse implementation[^:]*:(.*)")
_PROFILE = re.compile(r" \[profile (\d+)\]$")
"""End of a layer's name in a plan of several profiles, each of which has all layers."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of a plan."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    """Types of what it reads, such as "int8"."""
    outputs: tuple[str, ...]
    tactic: str
    onnx: tuple[str, ...]
    """Nodes of the graph that it computes, or helps to compute."""
    constants: tuple[tuple[int, str], ...] = ()
    """(number of elements, type) of each stored tensor that it reads."""

    @property
    def is_sparse(self) -> bool:
        """Whether its kernel skips the zeros of 2:4 weights."""
        return any(word in self.tactic.lower() for word in _SPARSE)


def from_log(lines: Iterable[str]) -> list[Layer]:
    """Layers of the table in the builder's log, of the last one where profiles have one each; empty without a table."""
    table = next((line for line in reversed(list(lines)) if line.startswith("Layers:\n")), "")
    return [_from_line(found) for line in table.splitlines() if (found := _TABLE_LINE.match(line))]


def _from_line(found: re.Match[str]) -> Layer:
    tensors = {key: _TABLE_TENSOR.findall(found[key]) for key in ("inputs", "constants", "outputs")}
    types = {key: tuple(_type(kind) for _, kind in values) for key, values in tensors.items()}
    sizes = [math.prod(int(size) for size in dims.split(",") if size) for dims, _ in tensors["constants"]]
    return Layer(
        name=found["name"],
        kind=found["kind"],
        inputs=types["inputs"],
        outputs=types["outputs"],
        tactic=found["tactic"],
        onnx=tuple(_ONNX.findall(found["metadata"])),
        constants=tuple(zip(sizes, types["constants"], strict=True)),
    )


def from_inspector(text: str) -> list[Layer]:
    """Layers in the JSON of `IEngineInspector.get_engine_information`, of a plan built with detailed profiling; of the first
    profile where there are several."""
    found = [_from_entry(entry) for entry in json.loads(text)["Layers"] if isinstance(entry, dict)]
    return [layer for layer in found if (named := _PROFILE.search(layer.name)) is None or named[1] == "0"]


def _from_entry(entry: dict[str, Any]) -> Layer:
    tensors = {key: entry.get(key) or [] for key in ("Inputs", "Outputs", "Constants")}
    return Layer(
        name=entry.get("Name", ""),
        kind=entry.get("LayerType", ""),
        inputs=tuple(_tensor_type(tensor) for tensor in tensors["Inputs"]),
        outputs=tuple(_tensor_type(tensor) for tensor in tensors["Outputs"]),
        tactic=str(entry.get("TacticName", "")),
        onnx=tuple(_ONNX.findall(entry.get("Metadata", ""))),
        constants=tuple((math.prod(tensor.get("Dimensions", [])), _tensor_type(tensor)) for tensor in tensors["Constants"]),
    )


def _tensor_type(tensor: dict[str, Any]) -> str:
    """10 writes the type into the format ("Row major linear FP16 format"), 11 apart."""
    return _type(str(tensor.get("Datatype") or tensor.get("Format/Datatype") or tensor.get("Format", "")))


def _type(text: str) -> str:
    words = re.findall(r"\w+", text.upper())
    return next((_TYPES[word] for word in words if word in _TYPES), text.lower())


def summary(layers: Sequence[Layer], products: "Sequence[Product]", log: Iterable[str] = ()) -> dict[str, Any]:
    """What a result row says of a plan.

    Args:
        layers: of the plan.
        products: of the graph that it was built from.
        log: the builder's lines.

    Returns:
        `int8_gemm_share`: share of the multiply-adds of products with a stored weight that are done in INT8; None where the
        type of one is unknown. `gemm_precisions`: number of those products by the type of their weight, `gemm_outputs` by
        the type of what they put out. `unplaced_gemms`: those of unknown type. `fused_attention`: "6 of 6" layers whose two
        products are one kernel. `int8_attention` likewise: both products read INT8. `sparse_layers_chosen`,
        `sparse_layers_eligible`: None where neither the layers nor the log say.
    """
    found = gemms(layers, products)
    attention = _attention(layers, [product for product in products if product.is_attention])
    lines = list(dict.fromkeys(log))  # every profile says the same
    return {
        "int8_gemm_share": _share({product: kinds[0] for product, kinds in found.items()}),
        "gemm_precisions": _counts(weight for weight, _ in found.values()) if layers else {},
        "gemm_outputs": _counts(output for _, output in found.values()) if layers else {},
        "unplaced_gemms": sorted(product.name for product, kinds in found.items() if not kinds[0]) if layers else None,
        **attention,
        "sparse_layers_eligible": _count(_ELIGIBLE, lines),
        "sparse_layers_chosen": _sparse(layers, products, lines),
    }


def gemms(layers: Sequence[Layer], products: "Sequence[Product]") -> "dict[Product, tuple[str | None, str | None]]":
    """Types of the weight and of the output of every product with a stored weight; None where no layer tells."""
    made_by = {product: _layer_of(product, layers) for product in products if product.weight}
    return {
        product: (_weight_type(product, layer), next(iter(layer.outputs), None)) if layer else (None, None)
        for product, layer in made_by.items()
    }


def _counts(kinds: Iterable[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(kind or "unknown" for kind in kinds).items()))


def _sparse(layers: Sequence[Layer], products: "Sequence[Product]", lines: Sequence[str]) -> int | None:
    """How many layers run a sparse kernel, by their tactics' names or by the log, of which either may keep silent; None
    where no kernel was chosen yet, as in the builder without a GPU. A layer counts once, however many profiles have it."""
    named = len({layer.onnx or layer.name for layer in layers if layer.is_sparse})
    logged = _count(_CHOSEN, lines)
    if named or logged is not None:
        return max(named, logged or 0)
    computing = [_layer_of(product, layers) for product in products if product.weight and product.layer is not None]
    known = [layer is not None and layer.tactic and not layer.tactic.endswith(_UNDECIDED) for layer in computing]
    return 0 if known and all(known) else None


def _share(types: "dict[Product, str | None]") -> float | None:
    if not types or None in types.values():
        return None
    work = {product: math.prod(product.weight or ()) * (1 if product.layer is None else TOKENS) for product in types}
    return sum(work[product] for product, kind in types.items() if kind == "int8") / sum(work.values())


def _layer_of(product: "Product", layers: Sequence[Layer]) -> Layer | None:
    """The layer that computes a product; None where none is known to.

    Neighbours that scale or quantise for the product name it as well, but do not read a tensor as large as its weight.
    """
    size = math.prod(product.weight or ())
    naming = [layer for layer in layers if product.name in layer.onnx]
    holding = [layer for layer in naming if any(elements >= size for elements, _ in layer.constants)]
    # an inspector that lists no constants: the layer called after the product
    called = [layer for layer in naming if product.name in layer.name and layer.inputs and not layer.constants]
    return next(iter([*holding, *called]), None)


def _weight_type(product: "Product", layer: Layer) -> str:
    size = math.prod(product.weight or ())
    stored = next((kind for elements, kind in layer.constants if elements >= size), None)
    return stored or ("int8" if all(kind == "int8" for kind in layer.inputs[:2]) else layer.inputs[0])


def _attention(layers: Sequence[Layer], products: "Sequence[Product]") -> dict[str, str | None]:
    blocks: dict[int | None, set[str]] = {}
    for product in products:
        blocks.setdefault(product.layer, set()).add(product.name)
    if not layers:
        return {"fused_attention": None, "int8_attention": None}
    fused = {block: next((one for one in layers if names <= set(one.onnx)), None) for block, names in blocks.items()}
    int8 = [layer for layer in fused.values() if layer and layer.inputs.count("int8") >= 2]
    return {
        "fused_attention": f"{sum(layer is not None for layer in fused.values())} of {len(blocks)}",
        "int8_attention": f"{len(int8)} of {len(blocks)}",
    }


def _count(pattern: re.Pattern[str], lines: Sequence[str]) -> int | None:
    """A number that the log tells, or how many layers it lists; None where it says nothing."""
    found = [match for line in lines if (match := pattern.search(line))]
    if not found:
        return None
    return sum(int(match[1]) if match[1] else sum(bool(name.strip()) for name in match[2].split(",")) for match in found)
