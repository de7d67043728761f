"""A card says what the provenance says, figure by figure."""

import copy

import pytest

from optkit.registry import layout, model_card

from . import small


@pytest.fixture
def origin(model):
    return layout.provenance(model / "2")


def test_what_it_is_and_how_good(origin):
    text = model_card.text(origin)
    for line in (
        f"# {small.MODEL}, version 2",
        "A BERT-type model of 2 layers for the task `classification`, as a fp32 engine of onnxruntime (0.0 MB).",
        "accuracy 90.00 on the dev split, through Triton; the FP32 baseline has 90.50.",
        "The difference is -0.50 points, 95 % interval [-0.80, -0.20]",
        "| 1 | 1.0 | 2.0 | 3.0 | 900.0 | 1.50 |  |",
        "* Up to 16 tokens in a text and 8 texts in a request.",
    ):
        assert line in text
    assert "did not pass" not in text and "git commit unknown" in text


def test_stages_seeds_and_the_16_bit_engine(origin):
    changed = copy.deepcopy(origin)
    changed["recipe"]["stages"] = [{"technique": "quantize", "calibrator": "mse", "gelu_clip": 10.0}]
    changed["git"] = {"commit": "0123456789abcdef", "changed": True}
    changed["row"]["speedup_vs_16bit"] = {"1": 1.25}
    changed["rows"] = [changed["row"], changed["row"] | {"seed": 1, "delta": 0.25}, changed["row"] | {"seed": None}]
    text = model_card.text(changed)
    assert "1. quantize: calibrator mse, gelu_clip 10.0\n" in text
    assert "git commit `0123456789ab`, with changes on top" in text
    assert "| 1.50 | 1.25 |" in text
    assert "by training seed: -0.50 (seed 0), +0.25 (seed 1)." in text
