"""Answers marked as tokens and read back, with tokenizers of every kind of offsets."""

import logging
from collections.abc import Callable

import numpy as np
import pytest
from datasets import Dataset
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from optkit.tasks import spans
from optkit.tasks.marking import Answer, mark, outside
from optkit.tasks.question_answering import LONGEST_ANSWER
from optkit.tasks.served import NOWHERE, TextSettings
from optkit.tasks.served_spans import ServedSpans
from tests.tasks.test_question_answering import certain, task_of

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
WORDS = "the mark was on film room had grade name in and a of sad sufficient bear"
CONTEXT = "☃ In Zürich — the  na\u0131ve 🙂🙂 bear\u00a0was 5 , 東京 and İzmir,\u3000cafe\u0301 é! ½ ﬁlm\tA 鶴"


def fast(
    tokenizer: Tokenizer, template: tuple[str, ...] = ("<s>", "$A", "</s>", "$B", "</s>"), **names: str
) -> PreTrainedTokenizerFast:
    pair = " ".join(template)
    ids = [(token, SPECIAL.index(token)) for token in {*template} if token in SPECIAL]
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair=pair, special_tokens=ids)
    own = {"cls_token": "<s>"} | names
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", sep_token="</s>", unk_token="<unk>", model_max_length=128, **own
    )  # fmt: skip


def bytes_of(trim: bool = True, prefix: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE, as RoBERTa and GPT-2 have it: a character outside of the merges is several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [WORDS], trainers.BpeTrainer(vocab_size=330, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    found = fast(tokenizer)
    if trim:
        found.backend_tokenizer.post_processor = processors.RobertaProcessing(
            ("</s>", 2), ("<s>", 0), add_prefix_space=prefix
        )
    return found


def pieces(split: bool, fallback: bool = False, **settings: object) -> PreTrainedTokenizerFast:
    """SentencePiece's Unigram: a "▁" of its own stands before what is in no vocabulary; blanks are or are not its own."""
    scores = [*((token, 0.0) for token in SPECIAL), *(("▁" + word, -2.0) for word in WORDS.split()), ("▁", -3.0)]
    bytes_ = [(f"<0x{byte:02X}>", -9.0) for byte in range(256)] if fallback else []
    letters = sorted({*WORDS, *("5" if fallback else CONTEXT), *"eikyx?"} - {" "})
    tokenizer = Tokenizer(models.Unigram([*scores, *((letter, -6.0) for letter in letters), *bytes_], 3, fallback))
    metaspace = pre_tokenizers.Metaspace()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace]) if split else metaspace
    return fast(tokenizer, **settings)


def words_of(
    lower: bool, template: tuple[str, ...] = ("<s>", "$A", "</s>", "$B", "</s>"), **names: str
) -> PreTrainedTokenizerFast:
    """WordPiece of whole words or of letters, as BERT has it, cased or not."""
    letters = sorted({*WORDS, *CONTEXT, *CONTEXT.lower(), *"yx?"} - {" "})
    vocabulary = [*SPECIAL, *letters, *("##" + letter for letter in letters)]
    tokenizer = Tokenizer(models.WordPiece({token: at for at, token in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return fast(tokenizer, template, **names)


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "bytes": bytes_of,
    "bytes with a blank before the text": lambda: bytes_of(prefix=True),
    "bytes whose offsets hold blanks": lambda: bytes_of(trim=False),
    "pieces": lambda: pieces(split=True),
    "pieces whose offsets hold blanks": lambda: pieces(split=False),
    "pieces and bytes": lambda: pieces(split=False, fallback=True),
    "words, cased": lambda: words_of(lower=False),
    "words, uncased": lambda: words_of(lower=True),
    "no [CLS]": lambda: words_of(False, ("$A", "</s>", "$B", "</s>"), cls_token=None),
    "[CLS] last": lambda: words_of(False, ("$A", "</s>", "$B", "</s>", "<s>")),
    "no special tokens": lambda: words_of(False, ("$A", "$B"), cls_token=None),
    "passage first": lambda: words_of(False, ("<s>", "$B", "</s>", "$A", "</s>")),
}
ANSWERS = [
    "☃",
    "5",
    "鶴",
    "東",
    "京 and",
    "Zürich",
    "the  na\u0131ve",
    "🙂 bear",
    "🙂🙂",
    "bear\u00a0was",
    "İzmir",
    ",\u3000cafe\u0301",
    "A 鶴",
    "☃ In",
    "é",
    "—",
]

FUSED = {"東": "東京", "京 and": "東京 and", "🙂 bear": "🙂🙂 bear", "é": "é!"}
"""Bytes of neighbouring characters in no vocabulary have the offsets of all of these; "é!" is "é" by SQuAD's rules."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("windows", [False, True])
def test_a_model_that_learned_its_targets_gives_the_answers(
    kind: str, windows: bool, caplog: pytest.LogCaptureFixture
) -> None:
    lengths = {"max_length": 48, "stride": 14} if windows else {}
    task = task_of(*(("which mark ?", CONTEXT, answer) for answer in ANSWERS), **lengths)
    tokenizer = KINDS[kind]()
    features = task.encode("dev", tokenizer)
    wider = FUSED if kind == "pieces and bytes" else {}
    assert task.predict(features, sure(features, tokenizer)) == [wider.get(answer, answer) for answer in ANSWERS]
    assert ["3 of 16 answers (18.8 %) are parts of larger" in one.getMessage() for one in caplog.records] == [True] * bool(
        wider
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_reads_the_same_answers_without_blanks_around_them(kind: str) -> None:
    task, tokenizer = task_of(("which mark ?", CONTEXT, "5"), max_length=40, stride=8), KINDS[kind]()
    features = task.encode("dev", tokenizer)
    random = np.random.default_rng(0)
    logits = [random.normal(size=(length, 2)).astype(np.float32) for length in features["length"]]
    settings = TextSettings("question_answering", ("question", "context"), {}, 40, longest_answer=LONGEST_ANSWER, n_best=50)
    wide = max(features["length"])
    beside = {
        name: np.stack([np.pad(row, (0, wide - len(row)), constant_values=NOWHERE) for row in features[name]])
        for name in ("context_starts", "context_ends")
    }
    padded = np.stack([np.pad(row, ((0, wide - len(row)), (0, 0))) for row in logits])
    found = task.served.answer(padded, {**beside, "context": np.array([CONTEXT.encode()])}, settings)
    (expected,) = task.n_best(features, logits, 50)
    assert [tuple(span) for span in found["span"]] == [(one.start, one.end) for one in expected]
    assert len({*map(tuple, found["span"])}) == 50
    assert [text.decode() for text in found["answer"]] == [CONTEXT[one.start : one.end].strip() for one in expected]


def test_the_windows_without_the_answer_are_told_by_a_token_outside_of_the_passage() -> None:
    for kind, make in KINDS.items():
        task, tokenizer = task_of(("which mark ?", CONTEXT, "☃"), max_length=40, stride=8), make()
        features = task.encode("dev", tokenizer)
        start, starts = features["start_positions"][-1], features["context_starts"][-1]
        assert len(features) > 1 and starts[start] == NOWHERE, kind
        if tokenizer.cls_token:
            assert features["input_ids"][-1][start] == tokenizer.cls_token_id, kind
    assert outside([0, 0, 1, None], [7, 8, 9, 2], None) == 3
    assert outside([1, 1, 0, 0], [7, 8, 9, 2], None) == 2
    assert outside([1], [7], None) == 0


def test_what_a_tokenizer_cannot_mark_is_counted_and_marked_with_the_rest_of_its_tokens(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    vocabulary = [*SPECIAL, *"fgh", "abc", "def", "?"]
    whole = Tokenizer(models.WordLevel({token: at for at, token in enumerate(vocabulary)}, unk_token="<unk>"))
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    task = task_of(("f", "f abc def g", "bc d"), ("f", "f abc def ?", "abc"), ("g", "g h ?", "?"), ("g", "g ?? h", "?"))
    features = task.encode("train", fast(whole))
    assert list(zip(features["start_positions"], features["end_positions"], strict=True)) == [(4, 5), (4, 4), (5, 5), (4, 4)]
    (record,) = caplog.records
    assert record.getMessage() == (
        "qa, train: 2 of 4 answers (50 %) are parts of larger tokens, whose rest is marked with them. First: "
        "question 'q0', answer 'bc d', read as 'abc def'"
    )


def test_answers_that_no_window_holds_or_no_prediction_reaches_are_counted(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    letters = " ".join("abcdefghij" * 5)
    task = task_of(("x", letters, letters[2:40]), ("x", "a \u200b b", "\u200b"), max_length=15, stride=4)
    features = task.encode("train", tokenizer)
    assert {*features["start_positions"]} == {*features["end_positions"]} == {0}
    task_of(("x", letters, letters[:80])).encode("dev", tokenizer)
    none, many = (record.getMessage() for record in caplog.records)
    assert none == (
        "qa, train: 2 of 2 answers (100 %) stand whole in no window of tokens, and count as not there. "
        f"First: question 'q0', answer '{letters[2:39]}'"
    )
    assert "have more than the 30 tokens that a predicted answer may have. First: question 'q0', answer 'a b c" in many
    assert many.endswith("of 40 tokens")


def test_characters_that_the_tokenizer_drops_do_not_hide_an_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    context = "\u200bab cd\u200b"
    task = task_of(("x", context, "\u200bab"), ("x", context, "cd\u200b"), ("x", context, context))
    features = task.encode("dev", tokenizer)
    assert list(zip(features["start_positions"], features["end_positions"], strict=True)) == [(3, 4), (5, 6), (3, 6)]
    assert task.predict(features, certain(features)) == ["ab", "cd", "ab cd"]


def test_blanks_are_taken_off_what_tokens_stand_for() -> None:
    words = spans.Words(" a  b\u00a0c ")
    starts, ends = np.array([-1, 0, 2, 3, 4, 6, 7]), np.array([-1, 2, 3, 5, 4, 8, 8])
    found = [one.tolist() for one in words.of(starts, ends)]
    assert found == [[-1, 1, -1, 4, -1, 6, -1], [-1, 2, -1, 5, -1, 7, -1]]
    assert [one.tolist() for one in spans.Words("").of(starts[:1], ends[:1])] == [[-1], [-1]]


def test_an_accent_of_its_own_belongs_to_its_letter() -> None:
    words = spans.Words("cafe\u0301 e\u0301te\u0301 \u0301")
    starts, ends = np.array([0, 6, 6, 0, 12]), np.array([4, 7, 10, 3, 13])  # what is left when accents are stripped
    assert [one.tolist() for one in words.of(starts, ends)] == [[0, 6, 6, 0, 12], [5, 8, 11, 3, 13]]


def test_the_answer_is_compared_by_the_rules_of_squad() -> None:
    answer = Answer.of({"text": [" The Cat. ", "dog"], "answer_start": [3, 9]})
    assert answer == ("The Cat.", 4, 12)
    assert answer.is_read_as("cat") and not answer.is_read_as("cats")
    assert Answer("?", 0, 1).is_read_as("?") and not Answer("?", 0, 1).is_read_as("!")


def test_an_answer_over_an_empty_window() -> None:
    empty = np.full(3, NOWHERE)
    assert mark([(empty, empty)], Answer("a", 0, 1)) == [None]


def sure(features: Dataset, tokenizer: PreTrainedTokenizerFast) -> list[np.ndarray]:
    """Logits that are highest at the targets inside the passage."""
    logits = []
    for start, end, starts in zip(
        features["start_positions"], features["end_positions"], features["context_starts"], strict=True
    ):
        window = np.zeros((len(starts), 2), dtype=np.float32)
        if starts[start] != NOWHERE:
            window[start, 0] = window[end, 1] = 5.0
        logits.append(window)
    return logits


def test_no_answer_at_all_is_none() -> None:
    """As to a passage of characters that no token stands for."""
    nothing = {"answer": np.array([], object), "score": np.zeros(0, np.float32), "span": np.zeros((0, 2), np.int32)}
    (found,) = ServedSpans().decode(nothing, ())
    assert str(found) == "(no answer)" and found.others == ()
