"""What a cluster costs per step, and what it saves: recipes in one process, and on nodes of one core each on this machine.

    python benchmarks/cluster.py                                     # the sample task's ten recipes
    python benchmarks/cluster.py --recipes baseline_fp32 ptq_int8    # fewer
    python benchmarks/cluster.py --parts train                       # without engines and scores
    python benchmarks/cluster.py --limit-train 5000                  # shorter trainings

Every way begins with an empty folder of checkpoints and a process of its own. Then each takes the same steps once more, all
finished: what that takes per step is reading, comparing with SHA-256 and, on a cluster, sending. On a machine whose cores
measure too, scores wait for trainings: `--parts train` shows what nodes of their own would save.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from optkit.pipeline.cluster import connected
from optkit.pipeline.cluster_nodes import MEASURE
from optkit.pipeline.cluster_settings import ClusterSettings
from optkit.pipeline.run import Execute, in_order
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.step_graph import graph_of
from optkit.recipe import finder
from optkit.recipe.recipe import modules_of
from optkit.tasks.registry import load

WAYS = {"one process, one core": (1, 0), "one process, two cores": (2, 0), "two nodes of one core": (1, 2)}
PARTS = {"train": ("train", "teach", "export"), "all": ("train", "teach", "export", "engines", "score", "judge")}


def main() -> None:
    """Measure each way in a process of its own, and print a table."""
    arguments = parse()
    if arguments.way:
        print(json.dumps(measured(arguments)))
        return
    print(f"{'':24}{'steps':>6}{'wall s':>9}{'again, s':>10}{'per step, s':>13}")
    for way, (threads, _) in WAYS.items():
        own = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        asked = [sys.executable, __file__, *sys.argv[1:], "--way", way]
        done = subprocess.run(asked, env=own, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        steps, first, again = found["steps"], found["first"], found["again"]
        print(f"{way:24}{steps:>6}{first:>9.1f}{again:>10.1f}{again / steps:>13.2f}", flush=True)


def parse() -> argparse.Namespace:
    """What to run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="sample", help="default %(default)s")
    parser.add_argument("--recipes", nargs="*", default=sorted(finder.modules(finder.SHIPPED)), help="default: all")
    parser.add_argument("--limit-train", type=int, help="training rows; default: all")
    parser.add_argument("--parts", choices=PARTS, default="all", help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=1.0, help="to measure each served model; default %(default)s")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """The seconds that all steps take, and that they take when they are finished."""
    asked, known = finder.find(arguments.recipes)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        task = load(arguments.task, limit_train=arguments.limit_train)
        spec = RunSpec(task, None, 0, Path(folder), known, seconds=arguments.seconds)
        execute = way_to(arguments.way, asked, spec, stack)
        graph = {title: step for title, step in graph_of(asked, [spec]).items() if step.kind in PARTS[arguments.parts]}
        times = []
        for _ in range(2):
            begun = time.monotonic()
            execute(graph)
            times.append(time.monotonic() - begun)
    return {"steps": len(graph), "first": times[0], "again": times[1]}


def way_to(way: str, recipes: list[Any], spec: RunSpec, stack: ExitStack) -> Execute:
    """What takes the steps: this process, on as many cores as it has threads, or a cluster with so many nodes."""
    threads, nodes = WAYS[way]
    if not nodes:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        return in_order
    os.environ["RAY_AUTH_MODE"] = "disabled"  # whatever token this user has to other clusters
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    stack.callback(cluster.shutdown)
    for number in range(nodes):
        cluster.add_node(num_cpus=1, resources={} if number else {MEASURE: 1})
    cluster.wait_for_nodes()
    os.environ["RAY_ADDRESS"] = cluster.address
    return stack.enter_context(stack.enter_context(connected(ClusterSettings("auto"))).on(modules_of(recipes), spec))


if __name__ == "__main__":
    main()
