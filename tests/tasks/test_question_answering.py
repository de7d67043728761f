"""Question answering: windows, targets, the best span, scores."""

import numpy as np
import pytest
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from optkit.core.errors import GateError, InputError
from optkit.tasks import spans
from optkit.tasks.data.squad import FEATURES
from optkit.tasks.question_answering import LONGEST_ANSWER, QuestionAnswering


def rows(*examples: tuple[str, str, str]) -> Dataset:
    """Rows of (question, context, answer), the answer at its first occurrence."""
    return Dataset.from_list(
        [
            {
                "id": f"q{i}",
                "question": question,
                "context": context,
                "answers": {"text": [answer], "answer_start": [context.index(answer)]},
            }
            for i, (question, context, answer) in enumerate(examples)
        ],
        features=FEATURES,
    )


def task_of(*examples: tuple[str, str, str], **settings: int) -> QuestionAnswering:
    return QuestionAnswering("qa", {"train": rows(*examples), "dev": rows(*examples)}, **settings)


def certain(features: Dataset) -> list[np.ndarray]:
    """Logits that are highest at the targets; a window without the answer is less sure of anything."""
    logits = []
    for start, end, length in zip(features["start_positions"], features["end_positions"], features["length"], strict=True):
        window = np.zeros((length, 2), dtype=np.float32)
        if start:
            window[start, 0] = window[end, 1] = 5.0
        logits.append(window)
    return logits


LETTERS = "a b c d e f g h i j k l m n o p q r s t"
LONG = ("x y", LETTERS, "p q")


def test_windows_overlap_by_the_stride(tokenizer: PreTrainedTokenizerBase) -> None:
    features = task_of(LONG, max_length=15, stride=4).encode("dev", tokenizer)
    assert [tokenizer.decode(tokens) for tokens in features["input_ids"]] == [
        "[CLS] x y [SEP] a b c d e f g h i j [SEP]",
        "[CLS] x y [SEP] g h i j k l m n o p [SEP]",
        "[CLS] x y [SEP] m n o p q r s t [SEP]",
    ]
    assert features["length"][:] == [15, 15, 13]
    assert features["example"][:] == [0, 0, 0]


def test_the_answer_is_a_target_only_in_the_window_that_holds_it(tokenizer: PreTrainedTokenizerBase) -> None:
    features = task_of(LONG, max_length=15, stride=4).encode("train", tokenizer)
    assert features["start_positions"][:] == [0, 0, 7]
    assert features["end_positions"][:] == [0, 0, 8]
    assert "context_starts" not in features.column_names


def test_the_answer_of_the_second_window_is_found(tokenizer: PreTrainedTokenizerBase) -> None:
    task = task_of(("x y", LETTERS, "k l"), max_length=15, stride=4)
    features = task.encode("dev", tokenizer)
    assert features["start_positions"][:] == [0, 8, 0]
    assert task.predict(features, certain(features)) == ["k l"]


@pytest.mark.parametrize("answer", ["Zürich", "🙂🙂 b", "naïve", "İzmir", "東京", "é"])
def test_offsets_are_characters_of_the_passage(answer: str, tokenizer: PreTrainedTokenizerBase) -> None:
    context = "In Zürich — a naïve 🙂🙂 bear — 東京 and İzmir, cafe\u0301 é!"
    task = task_of(("where?", context, answer))
    features = task.encode("dev", tokenizer)
    assert task.predict(features, certain(features)) == [answer]
    starts, ends = features[0]["context_starts"], features[0]["context_ends"]
    tokens = [
        context[first:last] for first, last in zip(starts, ends, strict=True) if first != spans.NOWHERE and first != last
    ]
    assert "".join(tokens).replace("\u0301", "") == context.replace(" ", "").replace("\u0301", "")


def test_blanks_around_an_answer_are_not_its_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    task = task_of(("x", "a b c d", " b c "))
    features = task.encode("dev", tokenizer)
    assert task.predict(features, certain(features)) == ["b c"]


def test_an_answer_within_a_word_takes_its_pieces(tokenizer: PreTrainedTokenizerBase) -> None:
    task = task_of(("x", "abc def", "bc d"))
    features = task.encode("dev", tokenizer)
    assert features["start_positions"][:] == [4]  # [CLS] x [SEP] a ##b ##c d
    assert task.predict(features, certain(features)) == ["bc d"]


def test_predictions_follow_the_examples_whatever_the_order_of_the_features(tokenizer: PreTrainedTokenizerBase) -> None:
    task = task_of(LONG, ("x", "a b c", "b"), ("z", LETTERS, "c d"), max_length=15, stride=4)
    features = task.encode("dev", tokenizer)
    order = np.random.default_rng(0).permutation(len(features)).tolist()
    logits = certain(features)
    shuffled = task.predict(features.select(order), [logits[index] for index in order])
    assert shuffled == task.predict(features, logits) == ["p q", "b", "c d"]


def test_padded_logits_give_the_same(tokenizer: PreTrainedTokenizerBase) -> None:
    task = task_of(LONG, ("x", "a b c", "b"), max_length=15, stride=4)
    features = task.encode("dev", tokenizer)
    padded = [np.concatenate([row, np.full((9, 2), 50.0)]) for row in certain(features)]
    assert task.predict(features, padded) == ["p q", "b"]


def test_only_the_passage_answers(tokenizer: PreTrainedTokenizerBase) -> None:
    task = task_of(("x y", "a b c", "b"))
    features = task.encode("dev", tokenizer)
    logits = certain(features)
    logits[0][:4] = 9.0  # [CLS], the question and its [SEP]
    logits[0][-1] = 9.0
    assert task.predict(features, logits) == ["b"]


def test_the_best_span_by_hand() -> None:
    logits = np.array([[9.0, 9.0], [1.0, 5.0], [4.0, 0.0], [3.0, 2.0], [0.0, 3.0], [9.0, 9.0]])
    passage = np.array([False, True, True, True, True, False])
    assert spans.best(logits, passage, longest=4) == [(7.0, 2, 4)]
    assert spans.best(logits, passage, longest=2) == [(6.0, 1, 1)]
    assert spans.best(logits, passage, longest=2, count=4) == [(6.0, 1, 1), (6.0, 2, 3), (6.0, 3, 4), (5.0, 3, 3)]
    assert spans.best(logits, np.zeros(6, dtype=bool), longest=2) == []


def test_the_best_spans_are_those_of_every_pair() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        logits, passage = random.normal(size=(40, 2)), np.arange(40) > 7
        pairs = [(i, j) for i in range(8, 40) for j in range(i, min(i + 10, 40))]
        ordered = sorted(pairs, key=lambda pair: -(logits[pair[0], 0] + logits[pair[1], 1]))
        assert [span[1:] for span in spans.best(logits, passage, longest=10, count=7)] == ordered[:7]


def test_what_two_windows_share_is_one_answer() -> None:
    starts, ends = np.array([-1, 0, 2, 4]), np.array([-1, 1, 3, 5])  # "a b c"; the second window begins at "b"
    first = np.array([[9.0, 9.0], [3.0, 0.0], [0.0, 2.0], [0.0, -9.0]])
    second = np.array([[9.0, 9.0], [4.0, 5.0], [0.0, 1.0]])
    windows = [(first, starts, ends), (second, starts[[0, 2, 3]], ends[[0, 2, 3]])]
    assert spans.of_passage(windows, "a b c", longest=2, count=3) == [(9.0, 2, 3), (5.0, 0, 3), (5.0, 2, 5)]
    assert len(spans.of_passage(windows, "a b c", longest=2, count=99)) == 5


def test_the_first_of_the_best_answers_is_the_prediction(tokenizer: PreTrainedTokenizerBase) -> None:
    task = task_of(("x y", "a b c", "b"), ("x", "a", "a"))
    features = task.encode("dev", tokenizer)
    several, one = task.n_best(features, certain(features), 4)
    assert several[0].answer == "b" and len({answer[2:] for answer in several}) == 4
    assert [answer.score for answer in several] == sorted((answer.score for answer in several), reverse=True)
    assert [answer.answer for answer in one] == ["a"] and (one[0].start, one[0].end) == (0, 1)


def test_an_answer_has_no_more_tokens_than_allowed(tokenizer: PreTrainedTokenizerBase) -> None:
    context = " ".join("abcdefghij" * 5)
    task = task_of(("x", context, context[:99]))
    features = task.encode("dev", tokenizer)
    (answer,) = task.predict(features, certain(features))
    assert len(answer.split()) <= LONGEST_ANSWER


def test_scores_are_the_means_of_what_bootstraps_draw_from() -> None:
    task = task_of(("x", "the black cat sat", "black cat"), ("y", "a dog", "dog"))
    predictions = ["cat", "a Dog"]
    assert task.outcomes(predictions)["f1"] == pytest.approx([200 / 3, 100.0])
    assert task.score(predictions) == pytest.approx({"f1": 250 / 3, "exact_match": 50.0})
    with pytest.raises(ValueError, match="1 predictions for 2 dev examples"):
        task.score(["cat"])


def test_the_best_of_several_answers_counts() -> None:
    data = Dataset.from_list(
        [{"id": "q", "question": "x", "context": "a b", "answers": {"text": ["z", "b"], "answer_start": [0, 2]}}]
    )
    assert QuestionAnswering("qa", {"train": data, "dev": data}).score(["b"]) == {"f1": 100.0, "exact_match": 100.0}


def test_a_question_without_room_for_its_passage(tokenizer: PreTrainedTokenizerBase) -> None:
    task = task_of(("x", "a", "a"), ("x " * 9, LETTERS, "b"), max_length=15, stride=4)
    with pytest.raises(InputError) as error:
        task.encode("dev", tokenizer)
    assert "qa, question 'q1': found 9 tokens ('x x x x x x x x x'), expected at most 7" in str(error.value)
    assert "Fix: shorten the question, or remove it" in str(error.value)
    longest = task_of(("x " * 7, LETTERS, "b"), max_length=15, stride=4).encode("dev", tokenizer)
    assert max(longest["length"]) == 15


def test_a_model_shorter_than_the_task_has_windows_of_its_own_length(tokenizer: PreTrainedTokenizerBase) -> None:
    features = task_of(("x", "a " * 300 + "b", "b")).encode("dev", tokenizer)
    assert max(features["length"]) == tokenizer.model_max_length
    assert len(features) > 300 // tokenizer.model_max_length


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False
        name_or_path = "somewhere"

    with pytest.raises(InputError, match=r"somewhere: found a slow tokenizer \(Slow\).* Fix: add its tokenizer.json"):
        task_of(("x", "a", "a")).encode("dev", Slow())  # type: ignore[arg-type]


def test_logits_that_are_not_numbers_fail_the_gate(tokenizer: PreTrainedTokenizerBase) -> None:
    task = task_of(("x", "a b", "b"))
    features = task.encode("dev", tokenizer)
    with pytest.raises(GateError, match="found NaN or infinity"):
        task.predict(features, [np.full((features[0]["length"], 2), np.inf)])
