"""Tokenizers and their models: the inputs, the length and the words on which they agree."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from optkit.compression import checkpoint
from optkit.core.errors import InputError
from optkit.evaluation import text_sample
from optkit.graph import reference
from optkit.graph.export import export
from optkit.graph.logits import input_names
from optkit.models import loading, tokenizers
from optkit.models.loading import LoadedModel, inference
from optkit.tasks import registry
from optkit.tasks.base import Task
from optkit.tasks.collate import Collator
from tests import tiny_families
from tests.models.conftest import Refusal, edit_json


@pytest.fixture
def pairs(tmp_path: Path) -> Task:
    """A task of pairs of texts."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    for split in ("train", "dev"):
        rows = [f"a film\tthe {word}\t{label}" for label, word in (("bad", "dull"), ("good", "bright"))]
        (folder / f"{split}.tsv").write_text("\n".join(["sentence1\tsentence2\tlabel", *rows]) + "\n")
    return registry.load("classification", folder)


@pytest.fixture
def without_segments(folder: Path) -> Path:
    """A BERT that tells segments apart, with a tokenizer that does not give them."""
    edit_json(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    return folder


def test_segments_that_a_tokenizer_does_not_give_are_zeros_everywhere(
    without_segments: Path, pairs: Task, tiny_model: LoadedModel, tmp_path: Path
) -> None:
    loaded = loading.load(without_segments, pairs)
    names = ["input_ids", "attention_mask"]
    assert set(loaded.tokenizer.model_input_names) == set(names) == set(input_names(loaded.model))
    features, collator = pairs.encode("dev", loaded.tokenizer), Collator.of(pairs, loaded.tokenizer)
    assert "token_type_ids" not in features.column_names
    feed = collator.feed(features.select_columns(list(collator.names))[:])
    with torch.no_grad():
        expected = tiny_model.model.eval()(**{name: torch.from_numpy(feed[name]) for name in names}).logits.numpy()
    assert np.allclose(inference(loaded.model, pairs)(feed), expected, atol=1e-6)
    graph = reference.load(export(loaded.model, tmp_path / "graph", 16, pairs))
    assert np.allclose(reference.infer(graph, feed), expected, atol=1e-5)
    assert set(pairs.text_settings(loaded.tokenizer).padding) == set(names)
    (tmp_path / "saved").mkdir()
    checkpoint.save(loaded, [], [], tmp_path / "saved")
    again = checkpoint.load(tmp_path / "saved", pairs)
    assert np.allclose(inference(again.model, pairs)(feed), expected, atol=1e-6)
    assert set(again.tokenizer.model_input_names) == set(input_names(again.model)) == set(names)
    shape = loading.architecture(without_segments, pairs)
    assert input_names(shape.model) == names and shape.model.config.type_vocab_size == 1


def test_segments_that_a_model_does_not_take_are_left_out(
    tiny_tokenizer: BertTokenizerFast, tiny_task: Task, tmp_path: Path
) -> None:
    config = DistilBertConfig(dim=32, n_layers=1, n_heads=4, hidden_dim=64, vocab_size=30, max_position_embeddings=16)
    DistilBertForSequenceClassification(config).base_model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    edit_json(tmp_path / "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    assert loading.load(tmp_path, tiny_task).tokenizer.model_input_names == ["input_ids", "attention_mask"]


def test_a_single_kind_of_segment_is_no_input(tiny_config: BertConfig, tiny_tokenizer: BertTokenizerFast) -> None:
    config = copy.deepcopy(tiny_config)
    config.type_vocab_size = 1
    model, tokenizer = BertForSequenceClassification(config), copy.deepcopy(tiny_tokenizer)
    assert "token_type_ids" in tokenizer.model_input_names
    tokenizers.fit(tokenizer, model, "it")
    assert set(tokenizer.model_input_names) == set(input_names(model)) == {"input_ids", "attention_mask"}


def test_a_tokenizer_of_more_segments_than_the_model(tiny_model: LoadedModel) -> None:
    tokenizer = copy.deepcopy(tiny_model.tokenizer)
    stored = tokenizer.backend_tokenizer.to_str().replace('"type_id":1', '"type_id":2')
    other = PreTrainedTokenizerFast(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(stored),
        pad_token="[PAD]",
        model_input_names=tokenizer.model_input_names,
    )
    with pytest.raises(InputError, match=r"it: its tokenizer gives token_type_ids up to 2, the model knows 0 to 1"):
        tokenizers.fit(other, tiny_model.model, "it")


def test_added_tokens_without_room_are_refused(
    folder: Path, tiny_model: LoadedModel, refusal: Refusal, tiny_task: Task
) -> None:
    rows = len(tiny_model.tokenizer)
    tokenizer = copy.deepcopy(tiny_model.tokenizer)
    tokenizer.add_tokens(["<url>", "<user>"])
    tokenizer.save_pretrained(folder)
    message = refusal()
    assert f"its tokenizer has 2 tokens beyond the {rows} rows of the model's embeddings" in message
    assert f"'<url>' ({rows}), '<user>' ({rows + 1})" in message
    assert "model.resize_token_embeddings(len(tokenizer))" in message
    with pytest.raises(InputError, match="2 tokens beyond"):
        loading.architecture(folder, tiny_task)
    with pytest.raises(InputError, match="BertForSequenceClassification: its tokenizer has 2 tokens beyond"):
        loading.loaded_model(tiny_model.model, tiny_task, tokenizer)
    tiny_model.model.resize_token_embeddings(len(tokenizer))
    tiny_model.model.save_pretrained(folder)
    assert len(loading.load(folder, tiny_task).tokenizer) == rows + 2


def test_a_table_larger_than_the_vocabulary_is_fine(folder: Path, tiny_model: LoadedModel, tiny_task: Task) -> None:
    tiny_model.model.resize_token_embeddings(512)
    tiny_model.model.save_pretrained(folder)
    assert loading.load(folder, tiny_task).fine_tuned


@pytest.mark.parametrize(("stated", "expected"), [(10**30, 16), (8, 8), (8.0, 8), (4096, 16), (None, 16)])
def test_the_length_is_what_both_take(stated: float | None, expected: int, folder: Path, tiny_task: Task) -> None:
    edit_json(folder / "tokenizer_config.json", model_max_length=stated)
    found = loading.load(folder, tiny_task).tokenizer.model_max_length
    assert found == expected and isinstance(found, int)
    assert loading.architecture(folder, tiny_task).tokenizer.model_max_length == expected


def test_the_length_of_a_model_without_positions(tiny_tokenizer: BertTokenizerFast) -> None:
    model = XLNetForSequenceClassification(XLNetConfig(vocab_size=30, d_model=32, n_layer=1, n_head=4, d_inner=64))
    for stated, expected in ((10**30, 512), (1024, 1024)):
        tokenizer = copy.deepcopy(tiny_tokenizer)
        tokenizer.model_max_length = stated
        tokenizers.fit(tokenizer, model, "it")
        assert tokenizer.model_max_length == expected


def test_a_tokenizer_without_padding(tiny_model: LoadedModel) -> None:
    tokenizer = copy.deepcopy(tiny_model.tokenizer)
    tokenizer.pad_token = None
    tokenizers.fit(tokenizer, tiny_model.model, "it")
    assert tokenizer.pad_token == "[PAD]", "the configuration has its number"
    tokenizer.pad_token = None
    tiny_model.model.config.pad_token_id = None
    with pytest.raises(InputError, match=r"it: its tokenizer has no padding token, and config\.json has no pad_token_id"):
        tokenizers.fit(tokenizer, tiny_model.model, "it")


def test_a_vocabulary_alone_becomes_a_fast_tokenizer(
    folder: Path, tiny_model: LoadedModel, tiny_task: Task, tmp_path: Path
) -> None:
    (folder / "tokenizer.json").unlink()
    words = sorted(tiny_model.tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words))
    loaded = loading.load(folder, tiny_task)
    assert loaded.tokenizer("a lovely film")["input_ids"] == tiny_model.tokenizer("a lovely film")["input_ids"]
    (tmp_path / "saved").mkdir()
    checkpoint.save(loaded, [], [], tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.json").is_file()


def test_a_sentencepiece_model_that_cannot_be_read_says_what_converts_it(folder: Path, refusal: Refusal) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "spiece.model").write_bytes(b"\xff")
    message = refusal()
    assert message.startswith(f"--model {folder}: its tokenizer is spiece.model only and cannot be converted (")
    assert message.endswith("pip install sentencepiece protobuf, or save it as tokenizer.json where they are")


def test_a_sentencepiece_model_becomes_a_fast_tokenizer(tiny_task: Task, tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    texts = tiny_task.examples("train")["sentence"][:]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(tmp_path / "sentencepiece.bpe"),
        vocab_size=60,
        hard_vocab_limit=False,
    )
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    XLMRobertaModel(XLMRobertaConfig(vocab_size=99, max_position_embeddings=34, **sizes)).save_pretrained(tmp_path)
    loaded = loading.load(tmp_path, tiny_task)
    assert loaded.tokenizer.is_fast and loaded.tokenizer.tokenize("a lovely film")[0].startswith("▁a")
    (tmp_path / "saved").mkdir()
    checkpoint.save(loaded, [], [], tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.json").is_file()


def test_a_tokenizer_that_draws_its_tokens_is_made_to_give_the_same(
    tmp_path: Path, tiny_task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tiny_families.FAMILIES["roberta"].write(tmp_path / "model")
    text, file = "a lovely film with an awful plot", folder / "tokenizer.json"
    expected = loading.load(folder, tiny_task).tokenizer(text)["input_ids"]
    stored = json.loads(file.read_text())
    stored["model"]["dropout"] = 0.5
    file.write_text(json.dumps(stored))
    assert len({str(AutoTokenizer.from_pretrained(folder)(text)["input_ids"]) for _ in range(9)}) > 1
    for _ in range(2):
        loaded = loading.load(folder, tiny_task)
        assert [loaded.tokenizer(text)["input_ids"] for _ in range(9)] == [expected] * 9
    assert caplog.text.count("its tokenizer has model.dropout 0.5, by which a text has other tokens each time") == 1
    text_sample.write_settings(tiny_task, loaded.tokenizer, tmp_path / "text")
    assert json.loads((tmp_path / "text/tokenizer.json").read_text())["model"]["dropout"] is None


def test_a_tokenizer_in_memory_that_samples_is_made_to_give_the_same(tiny_model: LoadedModel, tiny_task: Task) -> None:
    tokenizer = tiny_families.unigrams()
    text, reader = "a lovely film with an awful plot", tokenizer.backend_tokenizer.model
    expected = tokenizer(text)["input_ids"]
    reader.alpha, reader.nbest_size = 0.1, 64
    assert len({str(tokenizer(text)["input_ids"]) for _ in range(9)}) > 1
    tokenizers.settle(tokenizer, "it")
    assert [tokenizer(text)["input_ids"] for _ in range(9)] == [expected] * 9


def test_differences_and_fingerprints(tiny_tokenizer: BertTokenizerFast) -> None:
    assert tokenizers.differences(tiny_tokenizer, copy.deepcopy(tiny_tokenizer)) == []
    cased = BertTokenizerFast(vocab=tiny_tokenizer.get_vocab(), do_lower_case=False, model_max_length=16)
    assert tokenizers.differences(tiny_tokenizer, cased) == ["normalizer"]
    print_of = tokenizers.fingerprint(tiny_tokenizer)
    assert tokenizers.fingerprint(copy.deepcopy(tiny_tokenizer)) == print_of != tokenizers.fingerprint(cased)
    called = copy.deepcopy(tiny_tokenizer)
    called("a film", truncation=True, max_length=4, padding="max_length")
    assert tokenizers.fingerprint(called) == print_of, "what a call leaves in it does not count"
    called.model_max_length = 8
    assert tokenizers.fingerprint(called) != print_of
    split = BertTokenizerFast(vocab=tiny_tokenizer.get_vocab(), model_max_length=16, split_special_tokens=True)
    assert split("[SEP]")["input_ids"] != tiny_tokenizer("[SEP]")["input_ids"]
    assert tokenizers.differences(tiny_tokenizer, split) == ["split_special_tokens"]
    assert tokenizers.fingerprint(split) != print_of
