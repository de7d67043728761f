"""Tries out on the card which way to multiply by a 2:4 weight is the fastest that gives what the dense product gives.

A way that a card cannot run ends in an illegal instruction, after which its process can use the card no more. So each
product is tried in a process of its own, which writes a line as soon as it knows a way, those first that have always run.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.benchmark import Timer

from optkit.engines.torch.host_values import TYPES
from optkit.engines.torch.operators import OPERATORS
from optkit.engines.torch.sparse_products import Product, Way

_LONGEST_S = 180.0
_APART = 0.02
"""Largest difference from the dense product, in shares of its norm."""
_GELU = {"gelu": 1, "high": 10.0, "step": 0.05}
log = logging.getLogger(__name__)


def fastest(product: Product, rows: int) -> Way | None:
    """Return the fastest way of cuSPARSELt to compute a product on this machine's GPU; None where the dense one is faster.

    Args:
        product: to compute.
        rows: tokens of a typical batch.
    """
    asked = json.dumps({**vars(product), "rows": rows})
    with tempfile.TemporaryFile("w+") as written:
        try:
            done = subprocess.run(
                [sys.executable, "-m", __name__],
                input=asked,
                stdout=written,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_LONGEST_S,
                check=False,
                env=os.environ | {"TORCHINDUCTOR_VEC_ISA_OK": "1"},  # as in compiling.to_package
            )
            end = f"exit status {done.returncode}"
        except subprocess.TimeoutExpired:
            end = f"no end after {_LONGEST_S:g} s"
        written.seek(0)
        found = written.read()
    lines = [json.loads(line) for line in found.splitlines() if line.startswith("{")]
    log.info("2:4 product %s: %s %s", asked, lines, end)
    return best(lines)


def best(lines: Sequence[Mapping[str, Any]]) -> Way | None:
    """Return the fastest way of those that a trial timed before its end; None where that is the dense one or none."""
    timed = [line for line in lines if "us" in line]
    found = min(timed, key=lambda line: line["us"], default={"way": None})["way"]
    return None if found is None else Way(*found)


def main() -> None:
    """Read a product; write a line for the dense way and for each of cuSPARSELt's, its microseconds or why it is refused."""
    asked = json.load(sys.stdin)
    rows, product = asked.pop("rows"), Product(**asked)
    attributes = {"to": product.to, **(_GELU if product.gelu else {})}
    value, weight, rest = _tensors(product, rows, "cuda" if torch.cuda.is_available() else "cpu")
    dense = _call(product.operator, attributes, value, weight if rest else weight.t().contiguous(), *rest)
    expected = dense()
    _say(way=None, us=_microseconds(dense))
    packed = torch._cslt_compress(weight).reshape(len(weight), -1)
    for way in _ways(product, value, packed, rest):
        sparse = _call(product.sparse_operator, attributes | way._asdict(), value, packed, *rest)
        _say(way=way, **_judged(sparse, expected))


def _tensors(product: Product, rows: int, device: str) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Random inputs of a product: what is multiplied, a 2:4 weight [out, in], and for INT8 scales and a bias."""
    torch.manual_seed(0)
    kind, shape = TYPES[product.kind], (product.columns, product.depth)
    places = torch.rand(product.columns, product.depth // 4, 4).argsort(-1).reshape(shape)
    if kind == torch.int8:
        value, weight = (torch.randint(-127, 128, one, dtype=kind) for one in ((rows, product.depth), shape))
        rest = [torch.rand(product.columns) * 1e-4, torch.randn(product.columns)]
    else:
        value, weight, rest = torch.randn(rows, product.depth).to(kind), torch.randn(shape).to(kind), []
    return value.to(device), torch.where(places < 2, weight, 0).to(device), [one.to(device) for one in rest]


def _ways(product: Product, value: torch.Tensor, packed: torch.Tensor, rest: list[torch.Tensor]) -> Iterator[Way]:
    """Ways of cuSPARSELt, those first that have always run; a search among its algorithms for 16 bits and a transposed
    result has ended a process."""
    yield Way(1, 0)
    yield Way(0, 0)
    scale, kind = (rest[0], TYPES[product.to]) if rest else (None, None)
    turned = bool(rest)
    found = torch._cslt_sparse_mm_search(packed, value.t(), None, scale, kind, transpose_result=turned)
    yield Way(int(turned), int(found))


def _call(operator: str, attributes: dict[str, Any], *inputs: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A compiled call, whose result lies in memory row by row, as the next product wants it."""
    return torch.compile(lambda: OPERATORS[operator](attributes, *inputs).contiguous(), dynamic=False)


def _judged(call: Callable[[], torch.Tensor], expected: torch.Tensor) -> dict[str, Any]:
    """The time of a call, or why it is refused."""
    try:
        apart = _apart(call(), expected)
        return {"us": _microseconds(call)} if apart <= _APART else {"refused": f"{apart:.3g} from the dense product"}
    except RuntimeError as error:
        return {"refused": str(error).strip().partition("\n")[0]}


def _say(**row: Any) -> None:
    print(json.dumps(row), flush=True)


def _apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    difference = (found.double() - expected.double()).norm() / expected.double().norm()
    return float(difference.nan_to_num(torch.inf))


def _microseconds(call: Callable[[], torch.Tensor]) -> float:
    """Median time of a call; on a GPU of a recorded one, as engines record theirs."""
    timer = Timer("call()", globals={"call": _recorded(call) if torch.cuda.is_available() else call})
    return round(timer.blocked_autorange(min_run_time=0.2).median * 1e6, 2)


def _recorded(call: Callable[[], torch.Tensor]) -> Callable[[], None]:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        call()
    return graph.replay


if __name__ == "__main__":
    main()
