"""A toy engine with the functions of `optkit.engines.registry`: quick to load, and a padded token that counts changes it.

A version's `model.py` in these tests puts this module in the place of `optkit.engines.registry` inside the server.
"""

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from optkit.serving import repository
from optkit.serving.config import ModelConfig

CLASSES = 3
SLEEPING = 77
"""A request with this token takes half a minute."""
FAILING = 88
DYING = 99


def folder(path, head="classification", **settings):
    """An engine folder on disk."""
    path.mkdir(parents=True)
    (path / "engine.json").write_text(json.dumps({"kind": "toy", "head": head, **settings}))
    (path / "weights.bin").write_bytes(bytes(range(256)))
    return path


def place(root, engine, name, logits=(CLASSES,), **settings):
    """Put a toy engine into a repository; returns the version's folder."""
    inputs = ("input_ids", "attention_mask")
    config = ModelConfig(name, inputs, logits, **{"max_sequence": 64, "max_batch_size": 32} | settings)
    version = repository.place(root, engine, config)
    (version / "model.py").write_text(model_py())
    return version


def model_py():
    """The text of a `model.py` that serves a toy engine."""
    here = str(Path(__file__).parent)
    return (
        f"import sys\nsys.path.insert(0, {here!r})\nimport optkit.engines, toy\n"
        f"sys.modules['optkit.engines.registry'] = optkit.engines.registry = toy\n{repository.model_py()}"
    )


class Engine(dict):
    """A loaded toy: its settings."""

    runtime = SimpleNamespace(on_gpu=False)

    def infer(self, feed):
        return infer(self, feed)


def load(path, threads=None):
    settings = json.loads((Path(path) / "engine.json").read_text())
    if settings.get("broken"):
        raise ValueError("weights.bin: found 3 bytes, expected 256")
    if "aborts" in settings:
        abort(Path(path), settings["aborts"])
    return Engine(settings)


def abort(path, times):
    """End the server by a signal so many times, as its own code does now and then."""
    done = path / "aborted"
    if (count := len(done.read_text()) if done.exists() else 0) < times:
        done.write_text("." * (count + 1))
        os.kill(int(os.environ["OPTKIT_SERVER"]), signal.SIGABRT)
        time.sleep(30)


def infer(handle, feed):
    """Masked sums of sines: [batch, 3], or [batch, sequence, 2] with the row's sum in each position.

    An engine with `calls`, a path, writes each feed there.
    """
    ids, mask = feed["input_ids"], feed["attention_mask"]
    if "calls" in handle:
        with Path(handle["calls"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps({name: array.tolist() for name, array in feed.items()}) + "\n")
    time.sleep(handle.get("sleep_s", 0.0))
    if SLEEPING in ids:
        time.sleep(30)
    if FAILING in ids:
        raise RuntimeError("the engine failed on token 88")
    if DYING in ids:
        os._exit(7)
    frequencies = np.arange(1, CLASSES + 1, dtype=np.float32)
    waves = np.sin(ids[:, :, None] * frequencies) * mask[:, :, None]  # [batch, sequence, classes]
    sums = waves.sum(axis=1)
    if handle["head"] == "classification":
        return sums.astype(np.float32)
    return (waves + sums[:, None])[:, :, :2].astype(np.float32)


def feed(batch, sequence, seed=0):
    """Random tokens, the last of each row masked."""
    ids = np.random.default_rng(seed).integers(100, 30000, (batch, sequence))
    mask = np.ones_like(ids)
    mask[:, -1] = 0 if sequence > 1 else 1
    return {"input_ids": ids, "attention_mask": mask}
