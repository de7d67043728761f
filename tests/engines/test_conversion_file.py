"""What is told of a choice among engines: which was kept, and where another is much faster."""

import json
from pathlib import Path

from optkit.engines import conversion_file


def candidate(kind: str, ms: dict[str, float], *, agreed: bool = True, chosen: bool = False, precision: str = "int8"):
    told = {"kind": kind, "variant": "f32", "precision": precision, "ms": ms, "agreed": agreed, "chosen": chosen}
    return told | {"evidence": {}}


def told(folder: Path, *candidates: dict) -> list[str]:
    (folder / "conversion.json").write_text(json.dumps({"candidates": candidates}))
    return list(conversion_file.faster_elsewhere(folder, "int8"))


def test_a_shape_at_which_another_is_much_faster_is_said(tmp_path: Path) -> None:
    kept = candidate("openvino", {"1x32": 2.0, "8x128": 10.0}, chosen=True)
    other = candidate("onnxruntime", {"1x32": 1.0, "8x128": 30.0})
    (said,) = told(tmp_path, kept, other)
    assert said.startswith("at 1x32 tokens onnxruntime (f32) was 2.0 times as fast as openvino (f32)")
    assert said.endswith("workload=[(1, 32)] keeps it")
    assert conversion_file.kept(tmp_path, "int8") == kept


def test_what_is_near_refused_or_of_another_precision_is_not_said(tmp_path: Path) -> None:
    kept = candidate("openvino", {"1x32": 1.2}, chosen=True)
    near = candidate("onnxruntime", {"1x32": 1.0})
    refused = candidate("onnxruntime", {"1x32": 0.1}, agreed=False)
    of_bf16 = candidate("openvino", {"1x32": 0.1}, precision="bf16")
    untimed = candidate("onnxruntime", {})
    assert told(tmp_path, kept, near, refused, of_bf16, untimed) == []
    assert told(tmp_path, kept) == []
