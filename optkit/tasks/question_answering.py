"""Extractive question answering: a span of a passage answers a question; exact match and F1 as SQuAD has them.

A passage that is longer than the model reads is cut into overlapping windows, each a feature of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedTokenizerBase

from optkit.core.errors import InputError
from optkit.tasks import spans, squad_metric
from optkit.tasks.base import Prediction, Split
from optkit.tasks.collate import check_logits
from optkit.tasks.data import hub, squad
from optkit.tasks.data.tables import fingerprint, limited, problem, shown

LONGEST_ANSWER = 30
"""Tokens a predicted answer may have."""

N_BEST = 5
"""Answers that a served question gets."""

_CHUNK = 1000  # questions that are tokenized at once, to bound the memory


class Answer(NamedTuple):
    """One of the answers found to a question."""

    text: str
    score: float
    """The sum of its start and end logit."""
    start: int
    end: int
    """Its first character in the passage, and the one after its last."""


class QuestionAnswering:
    """A data set of questions on passages; follows `optkit.tasks.base.Task`."""

    head: Literal["classification", "question_answering"] = "question_answering"
    metric = "f1"
    training: Mapping[str, Any] = {"epochs": 3, "batch_size": 16}  # Devlin et al. 2018 (arXiv 1810.04805), 4.2 and A.3
    labels: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        splits: Mapping[Split, Dataset],
        limit_train: int | None = None,
        max_length: int = 384,
        stride: int = 128,
    ) -> None:
        """Takes checked questions.

        Args:
            name: of the task, as on the command line.
            splits: rows of `squad.FEATURES`.
            limit_train: how many training questions to keep; all by default.
            max_length: longest feature in tokens, question included.
            stride: tokens that two neighbouring windows share.
        """
        self.name, self.max_length, self.stride = name, max_length, stride
        train = splits["train"]
        keep = limited(len(train), limit_train)
        self._examples: dict[Split, Dataset] = {
            "train": train if len(keep) == len(train) else train.select(keep).flatten_indices(),
            "dev": splits["dev"],
        }

    def examples(self, split: Split) -> Dataset:
        """Columns `id`, `question`, `context` and `answers` (`text`, `answer_start`)."""
        return self._examples[split]

    def encode(self, split: Split, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """One feature per window of a passage.

        Columns: the tokenizer's `model_input_names`, `start_positions`, `end_positions` (of the first answer; [CLS]
        where the window does not hold it), `example`, `length`, and for the dev split `context_starts` and
        `context_ends`: where each token stands in the passage, in characters, -1 outside of it.

        Raises:
            InputError: the tokenizer is not a fast one, or a question leaves no room for its passage.
        """
        if not tokenizer.is_fast:
            found = f"a slow tokenizer ({type(tokenizer).__name__})"
            raise problem(tokenizer.name_or_path, found, "a fast one, which knows offsets", "add its tokenizer.json")
        rows = self._examples[split]
        chunks = [
            Dataset.from_dict(self._encode(rows[first : first + _CHUNK], first, tokenizer, offsets=split == "dev"))
            for first in range(0, len(rows), _CHUNK)
        ]
        return concatenate_datasets(chunks)

    def predict(self, features: Dataset, logits: Sequence[np.ndarray]) -> list[Prediction]:
        """The best answer of all windows of a passage, question by question; "" where there is none.

        Args:
            features: of the dev split, in any order.
            logits: [sequence, 2] for each feature, padded or not: of start and end.

        Raises:
            GateError: a logit is not finite.
        """
        return [answers[0].text if answers else "" for answers in self.n_best(features, logits, 1)]

    def n_best(self, features: Dataset, logits: Sequence[np.ndarray], count: int = N_BEST) -> list[list[Answer]]:
        """The best answers of all windows of a passage, the best one first, question by question.

        Args:
            features: of the dev split, in any order.
            logits: [sequence, 2] for each feature, padded or not: of start and end.
            count: how many for each question; there are fewer where its passage has no more.

        Raises:
            GateError: a logit is not finite.
        """
        check_logits(features, logits)
        contexts = self._examples["dev"]["context"][:]
        windows: list[list[spans.Window]] = [[] for _ in contexts]
        columns = (features[name][:] for name in ("example", "context_starts", "context_ends"))
        for example, starts, ends, window in zip(*columns, logits, strict=True):
            windows[example].append((window, np.array(starts), np.array(ends)))
        found = (spans.of_passage(own, LONGEST_ANSWER, count) for own in windows)
        return [
            [Answer(context[first:last], value, first, last) for value, first, last in best]
            for context, best in zip(contexts, found, strict=True)
        ]

    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """F1 and exact match."""
        gold = self._gold(predictions)
        exact = [squad_metric.exact_match(text, answers) for text, answers in zip(predictions, gold, strict=True)]
        return {"f1": float(self.example_scores(predictions).mean()), "exact_match": 100.0 * float(np.mean(exact))}

    def example_scores(self, predictions: Sequence[Prediction]) -> np.ndarray:
        """F1 from 0 to 100 of each question, [examples]."""
        gold = self._gold(predictions)
        return np.array([100.0 * squad_metric.f1(text, answers) for text, answers in zip(predictions, gold, strict=True)])

    def fingerprint(self) -> str:
        """SHA-256 of the questions, passages and answers of both splits."""
        return fingerprint(self._examples["train"], self._examples["dev"])

    def _gold(self, predictions: Sequence[Prediction]) -> list[list[str]]:
        """The right answers of each dev question."""
        gold = [answers["text"] for answers in self._examples["dev"]["answers"][:]]
        if len(predictions) != len(gold):
            raise ValueError(f"{len(predictions)} predictions for {len(gold)} dev examples; expected one for each")
        return gold

    def _encode(
        self, rows: Mapping[str, Any], first: int, tokenizer: PreTrainedTokenizerBase, offsets: bool
    ) -> dict[str, list[Any]]:
        """The columns of a chunk's features, the chunk's first example being number `first`."""
        encoded = self._tokenized(rows, tokenizer)
        positions = list(_positions(encoded))
        columns: dict[str, list[Any]] = {name: encoded[name] for name in tokenizer.model_input_names}
        of_row = encoded["overflow_to_sample_mapping"]
        targets = [
            spans.target(starts, ends, _answer(rows["answers"][row]), tokens.index(tokenizer.cls_token_id))
            for row, tokens, (starts, ends) in zip(of_row, encoded["input_ids"], positions, strict=True)
        ]
        columns["start_positions"], columns["end_positions"] = map(list, zip(*targets, strict=True))
        columns["example"] = [first + row for row in of_row]
        columns["length"] = [len(tokens) for tokens in encoded["input_ids"]]
        if offsets:
            columns["context_starts"], columns["context_ends"] = map(list, zip(*positions, strict=True))
        return columns

    def _tokenized(self, rows: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> Any:
        """Windows of a chunk's passages, each after its question; a short model shares less between windows."""
        length = min(self.max_length, tokenizer.model_max_length)
        stride = min(self.stride, length // 3)
        questions = [question.strip() for question in rows["question"]]
        room = length - tokenizer.num_special_tokens_to_add(pair=True) - stride - 1
        for row, tokens in enumerate(tokenizer(questions, add_special_tokens=False)["input_ids"]):
            if len(tokens) > room:
                raise InputError(
                    f"{self.name}, question {rows['id'][row]!r}: found {len(tokens)} tokens "
                    f"({shown(questions[row])}), expected at most {room}, so that windows of {length} tokens hold a "
                    "piece of the passage. Fix: shorten the question, or remove it"
                )
        return tokenizer(
            questions,
            rows["context"],
            truncation="only_second",
            max_length=length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )


def read_splits(data: Path | None) -> dict[Split, Dataset]:
    """Both splits of a folder, or of SQuAD on the hub."""
    if data is not None:
        return {split: squad.read(path) for split, path in squad.find(data).items()}
    splits = hub.fetch("rajpurkar/squad")
    return {split: squad.checked(rows.to_list(), f"rajpurkar/squad, {split}") for split, rows in splits.items()}


def _positions(encoded: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Where each token of each feature starts and ends in the passage, int32 [sequence], in characters."""
    for encoding in encoded.encodings:
        passage = np.array([sequence == 1 for sequence in encoding.sequence_ids])[:, None]
        starts, ends = np.where(passage, np.array(encoding.offsets, dtype=np.int32), spans.NOWHERE).T
        yield starts, ends


def _answer(answers: Mapping[str, Any]) -> tuple[int, int]:
    """The first answer's first character and the one after its last, without blanks around it."""
    text, start = answers["text"][0], answers["answer_start"][0]
    start += len(text) - len(text.lstrip())
    return start, start + len(text.strip())
