"""What the ladder costs: all of its rungs with everything around them, over the bare inference of the same batches.

    python benchmarks/ladder.py FOLDER --task TASK [--data DIR] [--examples N] [--rounds N]

`FOLDER` is that of a finished recipe, `checkpoints/<task>/<recipe>/seed-<n>`. The ladder pads, runs, scores, compares and
finds the worst examples, the loading of graph and engine included. Bare inference runs batches that are padded before
through models that are loaded before. Both take turns. Processor time is this process's, so without that of the server:
where other work shares the machine, its ratio is the one to trust.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from datasets import Dataset

from optkit.compression import checkpoint
from optkit.engines import registry as engines
from optkit.evaluation import parity
from optkit.evaluation.through_server import model_config
from optkit.graph import reference
from optkit.models.loading import LoadedModel, inference, max_length
from optkit.serving import repository
from optkit.serving.client import Client
from optkit.serving.server import Server
from optkit.tasks.base import Feed, Task
from optkit.tasks.collate import BATCH_SIZE, Collator, bucketed, run
from optkit.tasks.registry import load

Clocks = tuple[float, float]
"""Wall clock and processor time in seconds."""
Infer = Callable[[Feed], np.ndarray]
MODEL = "bench"


def main() -> None:
    """Measure, and print one line for each rung and one for the whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--task", required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--examples", type=int, default=1000, help="of the dev split, of a task with classes")
    parser.add_argument("--rounds", type=int, default=3)
    measure(parser.parse_args())


def measure(given: argparse.Namespace) -> None:
    """The ladder and its rungs' bare inference in turn."""
    task = load(given.task, given.data)
    rows = task.examples("dev")
    task._examples["dev"] = rows.select(range(min(given.examples, len(rows))))  # type: ignore[attr-defined]
    loaded = checkpoint.load(given.folder, task)
    features = task.encode("dev", loaded.tokenizer)
    engine = min(given.folder.glob("engines/*/engine.json")).parent
    config = model_config(MODEL, engine, loaded.tokenizer, task, max_length(loaded, task))
    with tempfile.TemporaryDirectory() as scratch:
        repository.place(Path(scratch, "models"), engine, config, link=True)
        with Server(Path(scratch, "models"), Path(scratch, "logs"), [MODEL]) as server, Client(server.url, MODEL) as client:
            rungs = bare_rungs(task, loaded, given.folder / "graph" / "model.onnx", engine, client.infer)
            feeds = batches(features, Collator.of(task, loaded.tokenizer))
            times = []
            for _ in range(given.rounds):
                whole = clocks_of(partial(climb, task, loaded, given.folder, engine, client.infer, features))
                times.append([whole, *bare(loaded, rungs, feeds)])
    report(len(features), [*rungs], np.array(times))


def climb(task: Task, loaded: LoadedModel, folder: Path, engine: Path, ask: Infer, features: Dataset) -> None:
    """All that validation does for the ladder of one engine."""
    collator = Collator.of(task, loaded.tokenizer)
    logits = parity.before_engines(task, loaded, folder / "graph" / "model.onnx", features, collator)
    logits["engine"] = parity.at_engine(engine, features, collator)
    logits["server"] = run(ask, features, BATCH_SIZE, collator)
    rungs = parity.rungs(task, features, logits)
    parity.climb(task, rungs)
    parity.worst(task, features, rungs)


def bare_rungs(task: Task, loaded: LoadedModel, graph: Path, engine: Path, ask: Infer) -> dict[str, Infer]:
    """What answers at each rung, loaded."""
    found: dict[str, Infer] = {"float": inference(loaded.model, task)} if parity._quantisers(loaded.model) else {}
    found["pytorch"] = inference(loaded.model, task)
    found["graph"] = partial(reference.infer, reference.load(graph))
    found["engine"] = engines.load(engine).infer
    return found | {"server": ask}


def bare(loaded: LoadedModel, rungs: Mapping[str, Infer], feeds: Sequence[Feed]) -> list[Clocks]:
    """What each rung takes for the batches, its first one run before to warm it up."""
    times = []
    for name, infer in rungs.items():
        infer(feeds[0])
        if name == "float":
            with parity.quantisers_off(loaded.model):
                times.append(clocks_of(partial(run_all, infer, feeds)))
        else:
            times.append(clocks_of(partial(run_all, infer, feeds)))
    return times


def run_all(infer: Infer, feeds: Sequence[Feed]) -> None:
    """Every batch once."""
    for feed in feeds:
        infer(feed)


def batches(features: Dataset, collator: Collator) -> list[Feed]:
    """What `tasks.collate.run` sends, padded."""
    inputs = features.select_columns(list(collator.names))
    return [collator.feed(inputs[batch]) for batch in bucketed(features["length"][:], BATCH_SIZE)]


def clocks_of(call: Callable[[], object]) -> Clocks:
    """Wall and processor time of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def report(examples: int, names: Sequence[str], times: np.ndarray) -> None:
    """Medians over the rounds; `times` is [rounds, 1 + rungs, 2] in seconds, the ladder first."""
    for name, (wall, processor) in zip(names, np.median(times[:, 1:], axis=0), strict=True):
        print(f"{name:>8} {wall:7.2f} s   {processor:7.2f} s of processor time")
    for place, clock in enumerate(("wall clock", "processor time")):
        whole, rungs = times[:, 0, place], times[:, 1:, place].sum(axis=1)
        ratios = ", ".join(f"{ratio:.3f}" for ratio in whole / rungs)
        print(
            f"{clock}: ladder of {examples} examples {np.median(whole):.2f} s   bare {np.median(rungs):.2f} s   "
            f"ratio {np.median(whole / rungs):.3f} (rounds: {ratios})"
        )


if __name__ == "__main__":
    main()
