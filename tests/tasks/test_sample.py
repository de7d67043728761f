"""The sample task: the same rows everywhere, labels that follow the grammar, a tokenizer and a model that fit."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from transformers import AutoTokenizer, BertForSequenceClassification

from optkit.recipe.training import Training
from optkit.tasks import sample
from optkit.tasks.base import Split
from optkit.tasks.data.sample_grammar import CONNECTIVES, Claim, Clause, Node, Pair

SHA256: dict[Split, str] = {
    "train": "cb0ef49bb6a53fba76ac5fe17bcba5b482ae330df4911f80862a1d4ba7aebd5c",
    "dev": "f56538daed94d22e68c65ba073cc8c7be4d168495e46d236f84e4f9c5f96b9ca",
}
"""SHA-256 of the rows by split; where they change on purpose, `sample.VERSION` changes too."""

GOOD = Clause("soup", "", "good")
BAD = Clause("wine", "very", "bad")
NOT_BAD = Clause("wine", "not", "bad")
PLAIN = Clause("room", "hardly", "plain")

SENTENCES: list[tuple[str, int, Node]] = [
    ("the soup was good", 1, GOOD),
    ("the wine was very bad", -1, BAD),
    ("the wine was not bad", 1, NOT_BAD),
    ("the room was hardly plain", 0, PLAIN),
    ("the guide denied that the soup was good", -1, Claim("", "guide", "denied", GOOD)),
    ("the honest cook doubted that the wine was not bad", -1, Claim("honest", "cook", "doubted", NOT_BAD)),
    ("the lying cook said that the wine was very bad", 1, Claim("lying", "cook", "said", BAD)),
    ("the lying cook denied that the wine was very bad", -1, Claim("lying", "cook", "denied", BAD)),
    ("the polite nurse said that the soup was good", 0, Claim("polite", "nurse", "said", GOOD)),
    ("the polite nurse denied that the soup was good", -1, Claim("polite", "nurse", "denied", GOOD)),
    ("the bitter guest said that the wine was very bad", 0, Claim("bitter", "guest", "said", BAD)),
    ("the bitter guest said that the soup was good", 1, Claim("bitter", "guest", "said", GOOD)),
    (
        "the polite nurse said that the lying cook said that the soup was good",
        -1,
        Claim("polite", "nurse", "said", Claim("lying", "cook", "said", GOOD)),
    ),
    (
        "the lying cook said that the polite nurse said that the soup was good",
        0,
        Claim("lying", "cook", "said", Claim("polite", "nurse", "said", GOOD)),
    ),
    ("the soup was good but the wine was very bad", -1, Pair(GOOD, "but", BAD)),
    ("the soup was good although the wine was very bad", 1, Pair(GOOD, "although", BAD)),
    ("the soup was good and the wine was very bad", 0, Pair(GOOD, "and", BAD)),
    ("the soup was good and the room was hardly plain", 1, Pair(GOOD, "and", PLAIN)),
    (
        "the guide denied that the soup was good but the wine was very bad",
        1,
        Claim("", "guide", "denied", Pair(GOOD, "but", BAD)),
    ),
    (
        "the guide denied that the soup was good, but the wine was very bad",
        -1,
        Pair(Claim("", "guide", "denied", GOOD), "but", BAD, comma=True),
    ),
]


@pytest.mark.parametrize(("text", "opinion", "node"), SENTENCES, ids=[text for text, _, _ in SENTENCES])
def test_opinion_follows_from_how_a_sentence_is_built(text: str, opinion: int, node: Node) -> None:
    assert (node.text, node.opinion) == (text, opinion)


@pytest.mark.parametrize("connective", CONNECTIVES)
def test_equal_opinions_agree_whatever_the_connective(connective: str) -> None:
    assert Pair(GOOD, connective, NOT_BAD).opinion == 1
    assert Pair(BAD, connective, BAD).opinion == -1


@pytest.mark.parametrize("split", ["train", "dev"])
def test_rows_are_pinned(split: Split) -> None:
    rows = sample.rows(split)
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest() == SHA256[split], "raise VERSION and pin anew"


@pytest.mark.slow
def test_rows_do_not_depend_on_the_order_of_hashes() -> None:
    """A fresh interpreter with another hash seed writes the same rows."""
    code = "import json; from optkit.tasks.sample import rows; print(json.dumps(rows('dev')))"
    made = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )
    assert json.loads(made.stdout) == sample.rows("dev")


def test_changing_a_row_leaves_the_next_caller_alone() -> None:
    sample.rows("dev")[0]["label"] = 99
    assert sample.rows("dev")[0]["label"] in range(len(sample.LABELS))


def test_splits_are_large_and_disjoint() -> None:
    texts = {split: [row["text"] for row in sample.rows(split)] for split in ("train", "dev")}
    assert len(texts["train"]) >= 10_000 and len(texts["dev"]) >= 2_000
    assert len({*texts["train"], *texts["dev"]}) == len(texts["train"]) + len(texts["dev"])


@pytest.mark.parametrize("split", ["train", "dev"])
def test_classes_are_balanced(split: Split) -> None:
    count = Counter(row["label"] for row in sample.rows(split))
    fair = count.total() / len(sample.LABELS)
    assert set(count) == set(range(len(sample.LABELS)))
    assert all(abs(found - fair) < 0.02 * fair for found in count.values())


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "dev"])
def test_every_review_fits_the_tokenizer_and_the_model(split: Split) -> None:
    tokenizer = sample.tokenizer()
    encoded = tokenizer([row["text"] for row in sample.rows(split)])["input_ids"]
    assert max(map(len, encoded)) <= sample.MAX_LENGTH <= sample.model_config().max_position_embeddings
    assert not any(tokenizer.unk_token_id in tokens for tokens in encoded)


def test_tokenizer_round_trip(tmp_path: Path) -> None:
    tokenizer = sample.tokenizer()
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    texts = [row["text"] for row in sample.rows("dev")[:100]]
    assert tokenizer(texts).data == again(texts).data
    assert list(again(texts)) == ["input_ids", "token_type_ids", "attention_mask"]
    assert again("THE SOUP was good.")["input_ids"] == tokenizer("the soup was good.")["input_ids"]
    assert again.model_max_length == sample.MAX_LENGTH and again.is_fast


def test_model_has_shapes_that_quantise_and_prune() -> None:
    config = sample.model_config()
    assert config.num_hidden_layers == 12
    assert config.vocab_size == len(sample.tokenizer()) and config.vocab_size % 8 == 0
    assert config.hidden_size % 16 == 0 and config.intermediate_size % 16 == 0
    assert (config.hidden_size // config.num_attention_heads) % 8 == 0
    assert config.id2label == dict(enumerate(sample.LABELS))


def test_training_settings_are_the_ones_the_loop_knows() -> None:
    assert set(sample.TRAINING) <= set(Training.model_fields)


def test_the_twelve_layers_begin_as_four() -> None:
    model = BertForSequenceClassification(sample.model_config())
    sample.initialise(model)
    silent = [n for n, layer in enumerate(model.bert.encoder.layer) if not layer.output.dense.weight.any()]
    assert silent == [1, 2, 4, 5, 7, 8, 10, 11]


def test_import_is_light() -> None:
    code = "import sys, optkit.tasks.data.sample_grammar; import optkit.tasks.sample; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers"} & set(modules)
