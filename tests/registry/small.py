"""Results as `optkit run` leaves them, with engines of a few kilobytes that take milliseconds to build and to load."""

import itertools
import json

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from tokenizers import BertWordPieceTokenizer

from optkit.core import atomic, step_cache
from optkit.engines import registry as engines
from optkit.evaluation.results import Row
from optkit.graph import onnx_file
from optkit.pipeline import result_file
from optkit.registry import history, smoke_test
from optkit.registry.release import Release
from optkit.registry.smoke_test import Probe
from optkit.registry.text_pipeline import Words
from optkit.serving.config import ModelConfig
from optkit.tasks.served import TextSettings

VOCABULARY, WIDTH, CLASSES = 50, 8, 3
INPUTS = ("input_ids", "attention_mask")
MODEL = "classification_tiny"
LABELS = ("bad", "good", "neither")
LIMITS = {"max_sequence": 16, "max_batch_size": 8, "threads": 1, "vocab_size": VOCABULARY}
BASELINE = "baseline_fp32"
_numbers = itertools.count()


def engine(folder, seed=0):
    """An ONNX Runtime engine with random weights: masked sums of embeddings, [batch, sequence] to [batch, 3]."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    constants = {
        "embedding": random.normal(size=(VOCABULARY, WIDTH)).astype(np.float32),
        "weight": random.normal(size=(WIDTH, CLASSES)).astype(np.float32),
        "last": np.array([2]),
        "first": np.array([1]),
    }
    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["tokens"]),  # [batch, sequence, width]
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["tokens", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "first"], ["sum"], keepdims=0),
        helper.make_node("MatMul", ["sum", "weight"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"]) for name in INPUTS],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    path = folder.parent / f"{folder.name}-{next(_numbers)}.onnx"
    onnx_file.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    engines.runtime("onnxruntime").build(path, "fp32", folder)
    path.unlink()
    return folder


def config(name=MODEL, **settings):
    return ModelConfig(name, INPUTS, (CLASSES,), **LIMITS | settings)


def sample(folder):
    """Four rows of tokens, and what the engine answers."""
    ids = np.random.default_rng(9).integers(1, VOCABULARY, (4, 12))
    feed = {"input_ids": ids, "attention_mask": (np.arange(12) < [[12], [9], [7], [5]]).astype(np.int64)}
    return Probe(feed, engines.load(folder, 1).infer(feed))


def row(recipe="tiny", **changes):
    """A result row that passes its gate."""
    values = {
        "recipe": recipe, "task": "classification", "seed": 0, "metric": "accuracy", "value": 90.0, "baseline": 90.5,
        "delta": -0.5, "delta_ci95": [-0.8, -0.2], "layers": 2, "sparsity": None, "precision": "fp32",
        "engine": "onnxruntime", "size_bytes": 4000, "rungs": {"pytorch": 90.0, "server": 90.0},
        "latency_ms": {"1": {"p50": 1.0, "p95": 2.0, "p99": 3.0}}, "throughput": {"1": 900.0}, "speedup": {"1": 1.5},
        "speedup_vs_16bit": None, "evidence": {}, "served_by": "tritonserver 2.51.0", "max_drop": 1.0,
    }  # fmt: skip
    return Row(**values | changes)


def tokenizer():
    """One token per word of a made-up language."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(5, VOCABULARY))]
    made = BertWordPieceTokenizer(vocab={word: index for index, word in enumerate(words)})
    made.enable_padding()
    return made


def words(built, folder, labels=LABELS):
    """Tokenizer, settings and probe of an engine that is asked in text."""
    folder.mkdir(parents=True)
    made = tokenizer()
    made.save(str(folder / "tokenizer.json"))
    TextSettings("classification", ("text",), dict.fromkeys(INPUTS, 0), 16, labels=labels).write(folder)
    random = np.random.default_rng(5)
    texts = [" ".join(f"w{word}" for word in random.integers(5, VOCABULARY, length)) for length in range(1, 9)]
    encoded = made.encode_batch(texts)
    feed = dict(zip(INPUTS, np.array([[one.ids, one.attention_mask] for one in encoded]).swapaxes(0, 1), strict=True))
    chosen = engines.load(built, 1).infer(feed).argmax(axis=1)
    return Words(folder, [[one] for one in texts], [labels[one] for one in chosen])


def release(folder, seed=0, name=MODEL, labels=()):
    """What `place` takes, of a new engine; with labels it can be asked in text."""
    built = engine(folder, seed)
    asked = words(built, folder.parent / f"{folder.name}-words", labels) if labels else None
    provenance = {
        "task": "classification", "recipe": {"name": "tiny", "stages": []}, "seed": 0, "data": "d" * 64, "git": None,
        "engine": json.loads((built / "engine.json").read_text()), "machine": {"processor": "test", "threads": 1},
        "row": row().as_dict(), "rows": [row().as_dict()], "verdict": "pass", "reasons": [],
    }  # fmt: skip
    return Release(built, config(name), smoke_test.make(built, config(name), sample(built)), provenance, words=asked)


def result(root, recipe="tiny", seed=0, weights=0, project="", data="d", labels=LABELS, **changes):
    """A recipe's folder under `root`, as it is after a run; `changes` are fields of its row."""
    home = root / "classification" / project
    folder = home / recipe / f"seed-{seed}"
    settings = {"recipe": {"name": recipe, "stages": []}, "training": {}, "from": {}, "model": "none", "data": data * 64}
    step_cache.step(folder, {**settings, "seed": seed, "code": "c", "weights": weights}, _checkpoint)

    def served(unfinished):
        own = sample(folder / "engines" / "fp32")
        arrays = {f"feed/{name}": array for name, array in own.feed.items()}
        np.savez(unfinished / "sample.npz", **arrays, **{"logits/fp32": own.logits})
        np.savez(unfinished / "scores.npz", fp32=np.full(8, 90.0))
        asked = words(folder / "engines" / "fp32", unfinished / "text", labels)
        columns = {"texts": {"text": [one[0] for one in asked.texts]}, "answers": {"fp32": asked.answers}}
        atomic.write_json(unfinished / "text-sample.json", columns)
        atomic.write_json(unfinished / "validation.json", {"configs": {"fp32": _as_dict(config("fp32"))}})

    step_cache.step(folder / "engines", {"weights": weights}, lambda unfinished: engine(unfinished / "fp32", weights))
    baseline = home / BASELINE / f"seed-{seed}" / "engines"
    depends_on = {"engines": step_cache.key_at(folder / "engines"), "baseline": step_cache.key_at(baseline)}
    step_cache.step(folder / "served", depends_on, served)
    result_file.write([row(recipe, seed=seed, **changes)], folder)
    return folder


def as_of_0_1(model, *unstated):
    """Have a published model be as 0.1 left it: no chain, no entry named, no configuration in its versions.

    Args:
        model: its folder.
        unstated: fields that the provenance does not have.
    """
    events = history.read(model)
    for event in events:
        del event["previous"], event["sha256"]
    for version in {event["version"] for event in events if (model / str(event["version"])).exists()}:
        folder = model / str(version)
        (folder / "config.pbtxt").unlink()
        origin = json.loads((folder / "provenance.json").read_text())
        del origin["files"]["config.pbtxt"]
        kept = {name: value for name, value in origin.items() if name not in ("history", *unstated)}
        (folder / "provenance.json").write_text(json.dumps(kept))
        for event in events:
            if event["version"] == version and "provenance" in event:
                event["provenance"] = atomic.file_hash(folder / "provenance.json")
    (model / "history.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    text = (model / "config.pbtxt").read_text()
    (model / "config.pbtxt").write_text(text.partition("\n")[2])


def key(folder, name, curve="SECP256R1", passphrase=None):
    """A private key that its owner alone can read, and its public key beside it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    made = ec.generate_private_key(getattr(ec, curve)())
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked_by = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    path = folder / f"{name}.pem"
    path.touch(mode=0o600)
    path.write_bytes(made.private_bytes(pem, private, locked_by))
    public = made.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(public)
    return path


def _checkpoint(folder):
    (folder / "model.safetensors").write_bytes(b"weights")
    np.savez(folder / "stages.npz", baseline_fp32=np.full(8, 90.0))
    atomic.write_json(folder / "versions.json", {"optkit": "0.1.0"})


def _as_dict(given):
    return {name: getattr(given, name) for name in given.__dataclass_fields__}
