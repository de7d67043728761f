"""The kernels for a GPU in Triton's interpreter, against exact integers and plain attention, at odd shapes; and compiled
for Hopper."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="kernels of a GPU run in Triton's interpreter: pip install triton")
pytestmark = pytest.mark.slow

PRODUCT = """
import torch, triton
from optkit.engines.torch import int8_linear as kernels
kernels._kernel.configs[:] = [triton.Config({"ROWS": 16, "COLUMNS": 32, "DEPTH": 32})]
torch.manual_seed(0)
for rows, columns, depth in ((70, 96, 256), (33, 65, 48), (5, 16, 130)):
    left, right = (torch.randint(-128, 128, (size, depth), dtype=torch.int8) for size in (rows, columns))
    scale, bias = torch.rand(columns) * 1e-4, torch.randn(columns)
    exact = (left.double() @ right.double().t()).float() * scale + bias
    assert torch.equal(kernels.int8_linear(left, right, scale, bias, torch.float32), exact), (rows, columns, depth)
    step = 3 / 127
    found = kernels.int8_linear(left, right, scale, bias, torch.float16, 3.0, step)
    gelu = torch.nn.functional.gelu(exact, approximate="tanh").clamp(max=3.0)
    apart = (found.int() - (gelu / step).round().clamp(-128, 127).int()).abs()
    assert found.dtype == torch.int8 and apart.max() <= 1 and (apart > 0).float().mean() < 2e-3, (rows, columns, depth)
"""
ATTENTION = """
import numpy as np, torch, triton
from torch.nn.functional import scaled_dot_product_attention
from optkit.engines.torch import packed_attention as kernels
kernels._kernel.configs[:] = [triton.Config({"QUERIES": 16, "KEYS": 16})]
torch.manual_seed(0)
for size, heads, lengths in ((32, 2, (7, 40, 1, 0, 16)), (24, 3, (5, 33)), (64, 1, (17,))):
    both = torch.randn(sum(lengths), 3 * size * heads, dtype=torch.float16)
    query, key, value = both.split(size * heads, 1)
    ends = torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32)
    parts = []
    for part in both.float().split(lengths):
        split = [one.reshape(len(part), heads, size).transpose(0, 1) for one in part.split(size * heads, 1)]
        parts.append(scaled_dot_product_attention(*split, scale=0.2).transpose(0, 1).reshape(len(part), heads * size))
    expected = torch.cat(parts)
    found = kernels.packed_attention(query, key, value, ends, max(lengths), size, 0.2)
    assert found.dtype == torch.float16 and (found.float() - expected).abs().max() < 2e-3, size
    quantised = kernels.packed_attention(query, key, value, ends, max(lengths), size, 0.2, 0.02)
    assert (quantised.float() - (expected / 0.02).round().clamp(-128, 127)).abs().max() <= 1, size
"""
COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from optkit.engines.torch import int8_linear, packed_attention
TYPES = {
    "*i8": ("left", "right"),
    "*fp16": ("query", "key", "value"),
    "*fp32": ("scale", "bias"),
    "*i32": ("ends",),
    "fp32": ("high", "inverse"),
    "i32": ("rows", "columns", "depth", "stride", "longest"),
}
for module, told in ((int8_linear, {"GELU": True, "WHOLE": True}), (packed_attention, {"SIZE": 64, "WIDTH": 64})):
    for tile in module.TILES:
        for quantised in (True, False):
            constants = {**told, "QUANTISED": quantised, **tile.kwargs}
            if "GELU" in constants:
                constants["GELU"] = quantised
            function = module._kernel.fn
            known = {name: kind for kind, names in TYPES.items() for name in names}
            known["out"] = "*i8" if quantised else "*fp16"
            if module is packed_attention:
                known["scale"] = "fp32"
            types = {name: "constexpr" if name in constants else known[name] for name in function.arg_names}
            options = {"num_warps": tile.num_warps, "num_stages": tile.num_stages}
            made = triton.compile(ASTSource(function, types, constants), GPUTarget("cuda", 90, 32), options)
            # the matrix unit of this generation, and memory for one program of it
            assert "wgmma" in made.asm["ptx"] or "mma.sync" in made.asm["ptx"], tile
            assert made.metadata.shared <= 232448, (tile, made.metadata.shared)
            print(module.__name__, tile, quantised)
"""


@pytest.mark.parametrize("script", [PRODUCT, ATTENTION], ids=["product", "attention"])
def test_a_kernel_computes_what_it_says(script):
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_every_tile_compiles_for_hopper_without_a_card(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, "-c", COMPILED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 18, done.stdout
