"""Questions that may have no answer: targets, the threshold, SQuAD 2.0's scores, and the served answer."""

import json

import numpy as np
import pytest
from datasets import Dataset

from optkit.core.errors import InputError
from optkit.tasks import no_answer, squad_metric
from optkit.tasks.data.squad import FEATURES
from optkit.tasks.no_answer import Reply
from optkit.tasks.question_answering import QuestionAnswering
from optkit.tasks.registry import load

PASSAGE = "a b c d e f g h i j k l m n o p q r s t"
SHORT = {"max_length": 15, "stride": 4}


def rows(*examples: tuple[str, str | None]) -> Dataset:
    """Questions on `PASSAGE` with their answer; None for none."""
    found = []
    for index, (question, answer) in enumerate(examples):
        texts = [] if answer is None else [answer]
        answers = {"text": texts, "answer_start": [PASSAGE.index(text) for text in texts]}
        found.append({"id": f"q{index}", "question": question, "context": PASSAGE, "answers": answers})
    return Dataset.from_list(found, features=FEATURES)


@pytest.fixture
def task() -> QuestionAnswering:
    both = rows(("x", "p q"), ("y", None))
    return QuestionAnswering("qa", {"train": both, "dev": both}, **SHORT)


def logits_of(features: Dataset, none: dict[int, float]) -> list[np.ndarray]:
    """Logits with a score of 10 for "p q" where a window holds it, and of `none[example]` for no answer in every window."""
    found = []
    for example, starts, length in zip(features["example"], features["context_starts"], features["length"], strict=True):
        window = np.zeros((length, 2), np.float32)
        window[0] = none[example] / 2
        if PASSAGE.index("p") in starts and PASSAGE.index("q") in starts:
            window[starts.index(PASSAGE.index("p")), 0] = window[starts.index(PASSAGE.index("q")), 1] = 5.0
        found.append(window)
    return found


def test_every_window_of_a_question_without_an_answer_points_to_cls(task: QuestionAnswering, tokenizer) -> None:
    features = task.encode("train", tokenizer)
    assert features["example"][:] == [0, 0, 0, 1, 1, 1]
    assert features["start_positions"][:] == [0, 11, 4, 0, 0, 0] and features["end_positions"][:] == [0, 12, 5, 0, 0, 0]
    assert "context_starts" in features.column_names  # thresholds are fitted on this split


def test_the_threshold_decides(task: QuestionAnswering, tokenizer) -> None:
    features = task.encode("dev", tokenizer)
    logits = logits_of(features, {0: 11.0, 1: 13.0})
    assert task.predict(features, logits) == [Reply("", "p q", 1.0), Reply("", "p q", 3.0)]
    own = task.deciding(task.fit_thresholds(task.encode("train", tokenizer), logits))
    assert own.thresholds == (2.0,)
    found = own.predict(features, logits)
    assert found == [Reply("p q", "p q", 1.0), Reply("", "p q", 3.0)]
    assert [own.shown(one) for one in found] == ["p q", "(no answer)"]
    assert own.score(found) == {
        "f1": 100.0, "exact_match": 100.0, "has_answer_f1": 100.0, "has_answer_exact_match": 100.0, "no_answer_f1": 100.0,
        "best_f1": 100.0, "best_threshold": 2.0,
    }  # fmt: skip


def test_no_answer_has_the_lowest_score_of_all_windows(task: QuestionAnswering, tokenizer) -> None:
    features = task.encode("dev", tokenizer)
    logits = logits_of(features, {0: 11.0, 1: 13.0})
    logits[0][0] = 4.0  # of the first window alone
    assert task.predict(features, logits)[0] == Reply("p q", "p q", -2.0)


def test_the_server_answers_as_the_task_predicts(task: QuestionAnswering, tokenizer) -> None:
    own, features = task.deciding([2.0]), task.encode("dev", tokenizer)
    logits = logits_of(features, {0: 11.0, 1: 13.0})
    settings = own.text_settings(tokenizer)
    assert settings.more == {"thresholds": [2.0]} and task.text_settings(tokenizer).more == {"thresholds": [0.0]}
    answers = []
    for example in (0, 1):
        windows = [row for row, owner in enumerate(features["example"]) if owner == example]
        offsets = {name: np.array([padded(features[row][name], 15) for row in windows]) for name in OFFSETS}
        wide = np.stack([np.pad(logits[row], ((0, 15 - len(logits[row])), (0, 0))) for row in windows])
        outputs = own.served.answer(wide, {**offsets, "context": np.array([PASSAGE.encode()], object)}, settings)
        answers += own.served.decode(outputs, ())
    assert [str(one) for one in answers] == [own.shown(one) for one in own.predict(features, logits)]
    assert answers[1].score == 11.0 and answers[1].others[0].answer == "p q"
    assert answers[1].shown().splitlines()[0] == "(no answer) (score 11.00)"
    assert len(answers[0].others) == settings.n_best


OFFSETS = ("context_starts", "context_ends")


def padded(row: list[int], width: int) -> list[int]:
    return row + [-1] * (width - len(row))


def test_scores_by_hand() -> None:
    replies = [Reply("a b", "a b", -3.0), Reply("", "c", 1.0), Reply("d", "d", -1.0), Reply("", "e", 2.0)]
    gold = [["b"], ["c"], [""], [""]]
    assert [squad_metric.f1(one.answer, right) for one, right in zip(replies, gold, strict=True)] == [1.0, 0.0, 0.0, 1.0]
    found = no_answer.scores(replies, gold)
    assert found["has_answer_f1"] == found["has_answer_exact_match"] == 50.0 and found["no_answer_f1"] == 50.0
    # answers up to a margin of -3, or up to 1: (1 + 0 + 1 + 1) / 4 of the questions are right
    assert found["best_f1"] == 75.0 and found["best_threshold"] == -2.0


def test_the_threshold_is_the_best_of_all() -> None:
    random = np.random.default_rng(0)
    replies = [Reply("", random.choice(["a", "b"]), float(margin)) for margin in random.integers(-3, 4, 60)]
    gold = [["a"] if random.random() < 0.6 else [""] for _ in replies]

    def f1(threshold: float) -> float:
        texts = ["" if one.margin > threshold else one.best for one in replies]
        return float(np.mean([squad_metric.f1(*pair) for pair in zip(texts, gold, strict=True)]))

    threshold, best = no_answer.best_threshold(replies, gold)
    assert best == pytest.approx(f1(threshold)) == pytest.approx(max(f1(place - 0.5) for place in range(-3, 6)))


def test_answers_without_words_are_none() -> None:
    assert squad_metric.told({"text": ["the", "a"]}) == [""] and squad_metric.told({"text": ["the x", "a"]}) == ["the x"]


def test_doubts() -> None:
    half = rows(*[("x", "p q"), ("y", None)] * 30)
    task = QuestionAnswering("qa", {"train": half, "dev": half}, **SHORT)
    right, never = Reply("p q", "p q", -1.0), Reply("", "p q", 1.0)
    assert task.degenerate([right, never] * 30) is None
    assert task.degenerate([never] * 60).reason.startswith("answers nothing to each of the 60 examples")
    found = task.degenerate([never, right] + [Reply("a", "a", -1.0), never] * 29)
    assert found.verdict == "undecided" and "never answering would have 50.0" in found.reason


def file(*questions: dict) -> str:
    return json.dumps({"data": [{"paragraphs": [{"context": "He did.", "qas": questions}]}]})


ASKED = {"id": "a", "question": "who?", "answers": [{"text": "He", "answer_start": 0}]}
IMPOSSIBLE = {"id": "b", "question": "why?", "answers": [], "is_impossible": True, "plausible_answers": []}


def test_files_of_squad_2(write) -> None:
    task = load("qa", write({"train.json": file(ASKED, IMPOSSIBLE), "dev.json": file(ASKED)}))
    assert task.fits_thresholds and task.examples("train")["answers"][1] == {"text": [], "answer_start": []}
    assert not load("qa", write({"train.json": file(ASKED), "dev.json": file(ASKED)})).fits_thresholds
    with pytest.raises(InputError, match="qa: found 1 questions without an answer in the dev split, and none in the train"):
        load("qa", write({"train.json": file(ASKED), "dev.json": file(ASKED, IMPOSSIBLE)}))


def test_a_tokenizer_without_cls_is_refused() -> None:
    with pytest.raises(InputError, match="qa: found a tokenizer without"):
        no_answer.check_first("qa", [0, 3])
