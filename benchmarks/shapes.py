"""Memory of an engine as more and more shapes are asked for, and what it costs to come back to one.

    python benchmarks/shapes.py ENGINE_FOLDER
    python benchmarks/shapes.py ENGINE_FOLDER --kernels 5000    # OpenVINO's own limit

Every shape of up to 8 rows and 128 tokens, in random order, to one thread of an engine in this process.
"""

import argparse
import random
import time
from pathlib import Path

import numpy as np
import psutil

from optkit.engines import openvino, registry
from optkit.engines.record import read_record

ROWS, TOKENS, VOCABULARY = 8, 128, 100
EVERY = 100


def main() -> None:
    """Ask, and print a line per hundred shapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--kernels", type=int, default=openvino._KERNELS, help="that OpenVINO keeps; default %(default)s")
    parser.add_argument("--shapes", type=int, default=ROWS * TOKENS)
    given = parser.parse_args()
    openvino._KERNELS = given.kernels
    engine = registry.load(given.engine, threads=1)

    def ask(rows: int, tokens: int) -> float:
        """Milliseconds of one request."""
        feed = {name: np.ones((rows, tokens), np.int64) for name in read_record(given.engine)["inputs"]}
        started = time.perf_counter()
        engine.infer(feed)
        return (time.perf_counter() - started) * 1e3

    shapes = [(rows, tokens) for rows in range(1, ROWS + 1) for tokens in range(1, TOKENS + 1)]
    random.Random(0).shuffle(shapes)
    process = psutil.Process()
    start = process.memory_full_info().uss
    print(f"loaded: {start / 1e6:.0f} MB")
    for number, shape in enumerate(shapes[: given.shapes], 1):
        ask(*shape)
        if number % EVERY == 0:
            print(f"{number} shapes: {(process.memory_full_info().uss - start) / 1e6:+.0f} MB", flush=True)
    for rows in (1, 4):
        again = [(each, tokens) for each in range(1, rows + 1) for tokens in range(1, TOKENS + 1)]
        times_ms = [ask(*shape) for _ in range(3) for shape in again][len(again) :]
        print(f"{len(again)} shapes in turn: median {np.median(times_ms):.2f} ms, mean {np.mean(times_ms):.2f} ms")


if __name__ == "__main__":
    main()
