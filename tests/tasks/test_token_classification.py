"""Token classification: targets, windows, predictions and scores; what is served is what is predicted."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForTokenClassification, BertTokenizerFast

from optkit.core.errors import GateError, InputError
from optkit.evaluation.bootstrap import paired_bootstrap
from optkit.models.loading import load as load_model
from optkit.models.loading import loaded_model
from optkit.serving.backend.encoding import Encoder, encoded
from optkit.tasks.collate import IGNORED, Collator, run
from optkit.tasks.entities import Tagging
from optkit.tasks.outcomes import of_draws, value
from optkit.tasks.registry import load, task_of
from optkit.tasks.served import OFFSETS, TextSettings
from optkit.tasks.token_classification import TokenClassification
from optkit.training.losses import Batch, stored, with_teacher

Row = tuple[str, str]
"""Tokens and tags, apart by blanks."""
ROWS: tuple[Row, ...] = (
    ("ada b. is in bonn", "B-per I-per O O B-loc"),
    ("ulm", "B-loc"),
    ("so what ?", "O O O"),
    ("eva ada", "B-per B-per"),
)


def task_of_rows(folder: Path, rows: Sequence[Row] = ROWS, **settings) -> TokenClassification:
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"tokens": tokens.split(" "), "tags": tags.split(" ")}) for tokens, tags in rows]
    for split in ("train", "dev"):
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return load("token_classification", folder, **settings)


@pytest.fixture
def task(tmp_path: Path) -> TokenClassification:
    return task_of_rows(tmp_path / "data")


def predicted(task: TokenClassification, *tags: str) -> list[Tagging]:
    return [Tagging(tuple(task.labels.index(tag) for tag in one.split()), ()) for one in tags]


def perfect(task: TokenClassification, labels: Sequence[int]) -> np.ndarray:
    """Logits of a model that gives each piece its target, and the last class where it has none."""
    return np.eye(len(task.labels))[np.where(np.array(labels) == IGNORED, len(task.labels) - 1, labels)] * 9.0


def tags_by_piece(task: TokenClassification, tokenizer: BertTokenizerFast, row: int = 0) -> list[str]:
    feature = task.encode("train", tokenizer)[row]
    pieces = tokenizer.convert_ids_to_tokens(feature["input_ids"])
    names = ["-" if label == IGNORED else task.labels[label] for label in feature["labels"]]
    return [f"{piece} {name}" for piece, name in zip(pieces, names, strict=True)]


def test_the_first_piece_of_each_word_has_its_tag(task: TokenClassification, tokenizer) -> None:
    assert tags_by_piece(task, tokenizer) == [
        *("[CLS] -", "a B-per", "##d -", "##a -", "b I-per", ". I-per", "i O", "##s -", "i O", "##n -"),
        *("b B-loc", "##o -", "##n -", "##n -", "[SEP] -"),
    ]


def test_or_all_pieces_have(tmp_path: Path, tokenizer) -> None:
    every = task_of_rows(tmp_path / "data", options={"pieces": "all"})
    assert tags_by_piece(every, tokenizer, 1) == ["[CLS] -", "u B-loc", "##l I-loc", "##m I-loc", "[SEP] -"]
    first = task_of_rows(tmp_path / "data")
    assert first.fingerprint() != every.fingerprint()
    assert first.fingerprint() == task_of_rows(tmp_path / "data", options={"pieces": "first"}).fingerprint()
    with pytest.raises(InputError, match=r"--task-option pieces=some: expected pieces=first or all"):
        task_of_rows(tmp_path / "data", options={"pieces": "some"})
    with pytest.raises(InputError, match=r"--task-option piece=all: expected none, as the task has no options"):
        load("sample", options={"piece": "all"})


@pytest.mark.parametrize("pieces", ["first", "all"])
@pytest.mark.parametrize("length", [64, 12, 8])
def test_right_logits_give_the_right_entities_through_windows(pieces: str, length: int, tmp_path: Path, tokenizer) -> None:
    task = task_of_rows(tmp_path / "data", options={"pieces": pieces}, max_length=length)
    features = task.encode("dev", tokenizer)
    assert (len(features) > len(ROWS)) == (length < 64) and max(features["length"][:]) <= length
    order = np.random.default_rng(0).permutation(len(features))
    logits = [perfect(task, labels) for labels in features["labels"][:]]
    found = task.predict(features.select(order), [logits[at] for at in order])
    assert [task.shown(one) for one in found] == [
        "ada b. [per]; bonn [loc]",
        "ulm [loc]",
        "no entities",
        "eva [per]; ada [per]",
    ]
    assert [[task.labels[tag] for tag in one.tags] for one in found] == [tags.split() for _, tags in ROWS]
    assert found[0].found[1][:4] == ("loc", "bonn", 13, 17)
    assert task.score(found)["f1"] == task.score(found)["served_f1"] == 100.0


def test_what_is_served_is_scored_to_the_character(tmp_path: Path, tokenizer) -> None:
    """A model that loses the last full stop of `u.s.` is right by its first word, and not by what it serves."""
    task = task_of_rows(tmp_path / "data", [("in u.s. today", "O B-loc O")])
    (labels,) = (features := task.encode("dev", tokenizer))["labels"][:]
    labels[tokenizer.convert_ids_to_tokens(features["input_ids"][0]).index("s") + 1] = 0
    found = task.predict(features, [perfect(task, labels)])
    assert task.shown(found[0]) == "u.s [loc]"
    scores = task.score(found)
    assert (scores["f1"], scores["served_f1"]) == (100.0, 0.0)


def test_scores_are_those_counted_by_hand(task: TokenClassification) -> None:
    """Four of five entities found of which one is of the wrong type and one too short, and one that is none."""
    found = predicted(task, "B-per O O O B-loc", "B-per", "O B-per I-per", "B-per I-loc")
    expected = {"f1": 200 / 11 * 2, "precision": 100 / 3, "recall": 40.0}
    scores = task.score(found)
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    assert scores["f1_per"] == pytest.approx(2 * 100 * 1 / (3 + 4)) and scores["f1_loc"] == pytest.approx(100 * 2 / 4)
    assert scores["macro_f1"] == pytest.approx((scores["f1_per"] + scores["f1_loc"]) / 2)
    with pytest.raises(ValueError, match="1 predictions for 4 dev examples"):
        task.score(found[:1])


def test_a_resample_is_the_metric_of_the_drawn_examples(task: TokenClassification) -> None:
    found = task.outcomes(predicted(task, "B-per O O O B-loc", "B-per", "O B-per I-per", "B-per I-loc"))
    drawn = np.array([0, 0, 3, 1])
    for metric in task.metrics:
        (computed,) = of_draws(found, metric)(np.bincount(drawn, minlength=4)[None])
        assert computed == pytest.approx(value(found[drawn], metric))
    worse = task.outcomes(predicted(task, "O O O O B-loc", "O", "O O O", "B-per O"))
    low, high = paired_bootstrap(worse, found, "recall", resamples=200)
    assert low <= value(worse, "recall") - value(found, "recall") <= high
    assert paired_bootstrap(found, found, "f1", resamples=50) == (0.0, 0.0)


def test_another_metric(task: TokenClassification) -> None:
    task.choose_metric("macro_f1")
    with pytest.raises(
        InputError, match=r"--metric accuracy: task 'token_classification' has f1, precision, recall, macro_f1"
    ):
        task.choose_metric("accuracy")


def test_the_loss_is_the_mean_over_tags(task: TokenClassification) -> None:
    logits = torch.zeros(2, 4, len(task.labels))  # padded beyond the targets
    logits[0, 1, 2] = np.log(5.0)
    targets = {"labels": torch.tensor([[IGNORED, 2, IGNORED], [IGNORED, 1, IGNORED]])}
    uniform = np.log(len(task.labels))
    sure = np.log((len(task.labels) - 1 + 5) / 5)
    assert float(task.loss({"logits": logits}, targets)) == pytest.approx((uniform + sure) / 2)
    nothing = {"labels": torch.full((2, 3), IGNORED)}
    assert float(task.loss({"logits": logits}, nothing)) == 0.0


def test_a_teacher_teaches_each_token() -> None:
    """KL(teacher || student) over classes, averaged over real tokens (Hinton et al. 2015)."""
    student = torch.zeros(1, 3, 2)
    answers = [np.array([[np.log(3.0), 0.0], [0.0, 0.0]], dtype=np.float32)]  # of two tokens; the third is padding
    batch = Batch({"input_ids": torch.ones(1, 3), "attention_mask": torch.tensor([[1, 1, 0]])}, {}, [0])
    loss = with_teacher(_Untaught, stored(answers, TokenClassification), 1.0, 0.0)
    expected = (0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5) + 0.0) / 2
    assert float(loss(lambda **inputs: {"logits": student}, batch)) == pytest.approx(expected)


class _Untaught(TokenClassification):
    """The task where labels say nothing."""

    @staticmethod
    def loss(output, targets):
        return torch.zeros(())


def test_a_tagger_that_has_learned_nothing_is_doubted(tmp_path: Path) -> None:
    task = task_of_rows(tmp_path / "data", ROWS * 20)
    right = [tags for _, tags in ROWS] * 20
    assert task.degenerate(predicted(task, *right)) is None
    half = [tags if place % 2 else " ".join("O" for _ in tags.split()) for place, tags in enumerate(right)]
    assert task.degenerate(predicted(task, *half)) is None
    silent = task.degenerate(predicted(task, *(" ".join("O" for _ in tags.split()) for tags in right)))
    assert silent is not None and silent.verdict == "fail"
    assert silent.reason.startswith("finds none of the 100 entities, nor anything else: its training was too short")
    swapped = [tags.replace("per", "X").replace("loc", "per").replace("X", "loc") for tags in right]
    other = task.degenerate(predicted(task, *swapped))
    assert other is not None and other.reason.startswith("finds none of the 100 entities: ")
    swapped[:4] = right[:4]
    other = task.degenerate(predicted(task, *swapped))
    assert other is not None and other.verdict == "fail"
    assert "of the 220 tokens, and would be on" in other.reason and "'B-loc' -> 'B-per'" in other.reason
    shuffled = np.random.default_rng(0).permutation([tag for tags in right for tag in tags.split()]).tolist()
    guessed = [" ".join(shuffled.pop() for _ in tags.split()) for tags in right]
    chance = task.degenerate(predicted(task, *guessed))
    assert chance is not None and "the same answers in random order would be on" in chance.reason
    few = task_of_rows(tmp_path / "few", ROWS[1:3])
    doubt = few.degenerate(predicted(few, "O", "O O O"))
    assert doubt is not None and doubt.verdict == "undecided"


def test_a_bad_teacher(task: TokenClassification, tokenizer) -> None:
    features = task.encode("train", tokenizer)
    assert task.weakness(features, [perfect(task, labels) for labels in features["labels"][:]]) is None
    wrong = [np.eye(len(task.labels))[[1] * len(labels)] for labels in features["labels"][:]]
    assert "% of the training words right; always giving the most frequent tag" in str(task.weakness(features, wrong))


def test_predictions_for_people(task: TokenClassification, tokenizer) -> None:
    features = task.encode("dev", tokenizer)
    first, second, *_ = task.predict(features, [perfect(task, labels) for labels in features["labels"][:]])
    surer = Tagging(first.tags, tuple(one._replace(score=0.5) for one in first.found))
    assert task.same(first, surer) and not task.same(first, second)
    assert not task.same(first, Tagging(first.tags, first.found[:1]))
    own = [label.replace("per", "PERSON") for label in task.labels]
    assert task.shown_as(first, own) == "ada b. [PERSON]; bonn [loc]" and task.shown_as(first, ()) == task.shown(first)
    assert task.readable(task.examples("dev")[0]) == {"text": "ada b. is in bonn", "entities": "ada b. [per]; bonn [loc]"}
    assert task.class_shares("dev") == ([1, 0, 0, 1, 1], ("loc", "per"))
    with pytest.raises(GateError, match="found NaN or infinity"):
        task.predict(features, [np.full((length, len(task.labels)), np.nan) for length in features["length"][:]])


def test_tokens_that_the_tokenizer_drops(tmp_path: Path, tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    row = ("ada \ufe0f in \u200b bonn", "B-per O O O B-loc")
    task = task_of_rows(tmp_path / "data", [row])
    with caplog.at_level(logging.WARNING):
        features = task.encode("dev", tokenizer)
    assert "dev: 2 of 5 tokens are dropped by the tokenizer, and count as O. First: " in caplog.text
    assert "dev.jsonl, line 1, token 2: the tokenizer makes nothing of the token '\\ufe0f'" in caplog.text
    (found,) = task.predict(features, [perfect(task, labels) for labels in features["labels"][:]])
    assert [task.labels[tag] for tag in found.tags] == row[1].split()
    task = task_of_rows(tmp_path / "data", [("ada \u200b", "B-per I-per")])
    with pytest.raises(InputError, match=r"line 1, token 2: .* '\\u200b', whose tag is I-per; expected one that it reads"):
        task.encode("train", tokenizer)


@pytest.mark.parametrize("pieces", ["first", "all"])
@pytest.mark.parametrize("length", [64, 16])
def test_what_is_served_is_what_is_predicted(pieces: str, length: int, tmp_path: Path, tokenizer) -> None:
    """Logits of random tables of tokens and positions, which say something else in each window."""
    random = np.random.default_rng(0)
    rows = [
        (" ".join(random.choice(["ada", "b.", "in", "bonn", "it's"], 20)), " ".join(["B-x", *["O"] * 19])) for _ in range(8)
    ]
    task = task_of_rows(tmp_path / "data", rows, options={"pieces": pieces}, max_length=length)
    tables = random.normal(size=(len(tokenizer), len(task.labels))), random.normal(size=(length, len(task.labels)))

    def infer(feed) -> np.ndarray:
        ids = feed["input_ids"]
        return (tables[0][ids] + tables[1][: ids.shape[1]]).astype(np.float32)

    predictions = task.predict(
        features := task.encode("dev", tokenizer), run(infer, features, 4, Collator.of(task, tokenizer))
    )
    settings = replace(task.text_settings(tokenizer), max_windows=64)
    settings.write(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = Encoder(tmp_path)
    for text, prediction in zip(task.examples("dev")["text"][:], predictions, strict=True):
        request = {"text": np.array([text.encode()], object)}
        feed = encoded(encoder, request, ["input_ids", *OFFSETS])
        assert isinstance(feed, dict) and len(prediction.found) > 0
        outputs = task.served.answer(infer(feed), {**feed, **request}, TextSettings.read(tmp_path))
        (answer,) = task.served.decode(outputs, settings.labels)
        assert str(answer) == task.shown(prediction)
        assert [one[:4] for one in answer.found] == [one[:4] for one in prediction.found]


def test_a_head_is_sorted_into_the_order_of_the_tags(task: TokenClassification, tokenizer, tmp_path: Path) -> None:
    names = ["B-PER", "I-PER", "O", "I-LOC", "B-LOC"]
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        id2label=dict(enumerate(names)), label2id={name: at for at, name in enumerate(names)},
    )  # fmt: skip
    model = BertForTokenClassification(config)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    loaded = load_model(tmp_path / "model", task)
    assert loaded.fine_tuned and task_of(loaded.model) is TokenClassification
    assert list(loaded.model.config.id2label.values()) == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    ids = torch.tensor([[2, 5, 6, 3]])
    with torch.no_grad():
        found, before = loaded.model(ids).logits, model.eval()(ids).logits
    torch.testing.assert_close(found, before[..., [2, 4, 3, 0, 1]])
    with pytest.raises(InputError, match=r"its head's classes are B-PER, I-PER, O, I-LOC, B-LOC"):
        loaded_model(model, task, tokenizer)
