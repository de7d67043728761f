"""The doctor of a model says before training what a run would say: layers, inputs, graph, recipes."""

from pathlib import Path

import pytest
from transformers import AlbertConfig, AlbertModel, BertConfig, BertModel, BertTokenizerFast, GPT2Config, GPT2Model

from optkit.cli.app import main

DEEP = "from optkit import Distill, Recipe\n\nrecipe = Recipe(name='deep', stages=[Distill(layers=9)])\n"
INT8 = "from optkit import Quantize, Recipe\n\nrecipe = Recipe(name='int8', stages=[Quantize()])\n"


@pytest.fixture
def model(
    tiny_config: BertConfig, tiny_tokenizer: BertTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A BERT of six layers without a head, with matrices of many blocks, in a workshop with a recipe of its own."""
    config = BertConfig(**{**tiny_config.to_dict(), "num_hidden_layers": 6, "intermediate_size": 1024})
    BertModel(config).save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "int8.py").write_text(INT8)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "model"


def told(model: str, status: int, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--model", model])
    out, err = capsys.readouterr()
    assert (end.value.code or 0) == status, out + err
    return out


@pytest.mark.slow
def test_a_model_that_every_recipe_applies_to(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(str(model), 0, capsys).splitlines()
    words = len(BertTokenizerFast.from_pretrained(model))
    for line in (
        "  ok  layers: 6, in bert.encoder.layer",
        "  ok  Linear modules: 36 in the encoder: 6 query, 6 key, 6 value, 6 attention_output, 12 other",
        f"  ok  token ids: {words} tokens, {words} rows in the embedding table",
        "  ok  longest input: 16 tokens, for the task sample",
        "  ok  graph: a tiny copy of the architecture is exported, and computes what PyTorch does",
        "  ok  int8: applies",
        "  ok  distill_6l_sparse_qat: applies",
        "  ok  longest input: 16 positions: no --sequence may be longer",
    ):
        assert line in lines
    assert not [path for path in model.parent.iterdir() if path.name not in ("model", "recipes")], "nothing is left behind"


@pytest.mark.slow
def test_a_recipe_that_does_not_apply_and_a_model_that_cannot_be_used(
    model: Path, tiny_tokenizer: BertTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path("recipes") / "deep.py").write_text(DEEP)
    lines = told(str(model), 1, capsys).splitlines()
    at = lines.index("  --  deep: does not apply")
    assert lines[at + 1] == "        a student of 9 layers is deeper than its teacher of 6; give at most 6"
    assert "  ok  int8: applies" in lines

    words = {"vocab_size": len(tiny_tokenizer), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    GPT2Model(GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=16, **words)).save_pretrained("gpt2")
    tiny_tokenizer.save_pretrained("gpt2")
    text = told("gpt2", 2, capsys)
    assert (
        "  --  model: cannot be used\n        GPT2ForSequenceClassification is not supported: its tokens see those" in text
    )
    assert "recipes" not in text
    assert "no such folder; expected one with config.json" in told("./nowhere", 2, capsys)


@pytest.mark.slow
def test_a_model_with_tensors_over_2_gb_is_said_to_be_one(
    model: Path, tiny_tokenizer: BertTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its weights: a table of words alone is 64 × 4 bytes × 8.5 million."""
    small = {
        "hidden_size": 32,
        "embedding_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    config = AlbertConfig(**small, vocab_size=len(tiny_tokenizer), pad_token_id=0)
    AlbertModel(config).save_pretrained("large")
    config.vocab_size = 8_500_000
    config.save_pretrained("large")
    tiny_tokenizer.save_pretrained("large")
    text = told("large", 1, capsys)
    assert "544.0 M parameters, 2.18 GB in float32: over 2 GB, so that weights lie in a file beside each graph" in text
