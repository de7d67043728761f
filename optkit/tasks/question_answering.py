"""Extractive question answering: a span of a passage answers a question; exact match and F1 as SQuAD has them.

A passage that is longer than the model reads is cut into overlapping windows, each a feature of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from optkit.core.errors import InputError
from optkit.tasks import marking, spans, squad_metric
from optkit.tasks.base import Prediction, Split, Task
from optkit.tasks.collate import check_logits
from optkit.tasks.data.data_settings import COLUMNS, DataSettings
from optkit.tasks.data.tables import limited, problem, shown
from optkit.tasks.degenerate import Doubt, of_answers
from optkit.tasks.served import OFFSETS, ServedForm, Tensors, TextSettings

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

LONGEST_ANSWER = 30
"""Tokens a predicted answer may have."""

WINDOW = 384
"""Tokens of a window of question and passage, by default (Devlin et al. 2018, arXiv 1810.04805)."""

N_BEST = 5
"""Answers that a served question gets."""

HUB = {"squad": "hub:rajpurkar/squad"}
"""Names of the tasks whose data is on the Hugging Face hub."""

_CHUNK = 1000  # questions that are tokenized at once, to bound the memory


class Span(NamedTuple):
    """One of the answers found to a question."""

    answer: str
    score: float
    """The sum of the answer's start and end logit."""
    start: int
    end: int
    """`start` and `end`: offsets of its first character in the passage, and of the one after its last."""
    others: tuple[Span, ...] = ()
    """The next best answers, where this is the served one."""

    def __str__(self) -> str:
        return self.answer

    def shown(self) -> str:
        """All answers in lines, the best first."""
        return "\n".join(
            f"{one.answer} (score {one.score:.2f}, characters {one.start} to {one.end})" for one in (self, *self.others)
        )


class ServedSpans(ServedForm):
    """A question on a passage, and its best answers, the best first."""

    has_windows = True
    beside = (*OFFSETS, "context")

    def logits_shape(self, settings: TextSettings) -> tuple[int, ...]:
        return (-1, 2)

    def outputs(self, settings: TextSettings) -> Tensors:
        return {"answer": ("STRING", (-1,)), "score": ("FP32", (-1,)), "span": ("INT32", (-1, 2))}

    def answer(self, logits: np.ndarray, beside: Mapping[str, np.ndarray], settings: TextSettings) -> dict[str, np.ndarray]:
        """The best spans of all windows, the first as the task predicts it.

        Returns:
            `answer` [answers] in UTF-8, `score` [answers]: the sum of its start and end logit; `span` [answers, 2]: its
            first character and the one after its last.
        """
        context = beside["context"][0].decode("utf-8")
        windows = zip(logits, *(beside[name] for name in OFFSETS), strict=True)
        found = spans.of_passage(windows, context, settings.longest_answer, settings.n_best)
        return {
            "answer": np.array([context[first:last].encode() for _, first, last in found], dtype=object),
            "score": np.array([value for value, _, _ in found], np.float32),
            "span": np.array([span for _, *span in found], np.int32).reshape(-1, 2),
        }

    def decode(self, outputs: Mapping[str, np.ndarray], labels: Sequence[str]) -> list[Span]:
        rows = zip(*(outputs[name] for name in ("answer", "score", "span")), strict=True)
        found = [Span(words.decode(), float(score), int(first), int(last)) for words, score, (first, last) in rows]
        return [found[0]._replace(others=tuple(found[1:]))]


class QuestionAnswering(Task):
    """A data set of questions on passages."""

    head = "question_answering"
    axes = ("batch", "token", "end")
    choice = "token"
    targets = ("start_positions", "end_positions")
    head_modules = ("qa_outputs.",)
    served = ServedSpans()
    metric = "f1"
    metrics = ("f1", "exact_match")
    training: ClassVar[Mapping[str, Any]] = {"epochs": 3, "batch_size": 16}
    """Default training settings (Devlin et al. 2018, arXiv 1810.04805, 4.2 and A.3)."""
    class_names = ("start", "end")
    text_columns = ("question", "context")

    def __init__(
        self,
        name: str,
        splits: Mapping[Split, Dataset],
        limit_train: int | None = None,
        max_length: int = WINDOW,
        stride: int = 128,
    ) -> None:
        """Create a task from checked questions.

        Args:
            name: of the task, as on the command line.
            splits: rows of `squad.FEATURES`.
            limit_train: how many training questions to keep; all by default.
            max_length: longest feature in tokens, question included.
            stride: tokens that two neighbouring windows share.
        """
        self.stride = stride
        train = splits["train"]
        keep = limited(len(train), limit_train)
        kept = train if len(keep) == len(train) else train.select(keep).flatten_indices()
        super().__init__(name, {"train": kept, "dev": splits["dev"]}, max_length)

    @classmethod
    def load(cls, name: str, data: DataSettings) -> Task:
        data.refuse(name, *COLUMNS)
        from optkit.tasks.data import squad

        return cls(name, squad.read_splits(name, data.source or HUB.get(name)), data.limit_train)

    def encode(self, split: Split, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """One feature per window of a passage.

        Columns: the tokenizer's `model_input_names`, `start_positions`, `end_positions` (of the first answer;
        `marking.outside`, such as [CLS], where the window does not hold it), `example`, `length`, and for the dev split
        `context_starts` and `context_ends`: where each token stands in the passage, in characters, -1 outside of it.

        Raises:
            InputError: the tokenizer is not a fast one, or a question leaves no room for its passage.
        """
        from datasets import Dataset, concatenate_datasets

        if not tokenizer.is_fast:
            found = f"a slow tokenizer ({type(tokenizer).__name__})"
            raise problem(tokenizer.name_or_path, found, "a fast one, which knows offsets", "add its tokenizer.json")
        rows, marker = self.examples(split), marking.Marker(f"{self.name}, {split}", LONGEST_ANSWER)
        chunks = [
            Dataset.from_dict(self._encode(rows[first : first + _CHUNK], first, tokenizer, marker, offsets=split == "dev"))
            for first in range(0, len(rows), _CHUNK)
        ]
        marker.report()
        return concatenate_datasets(chunks)

    @staticmethod
    def auto_class() -> Any:
        from transformers import AutoModelForQuestionAnswering

        return AutoModelForQuestionAnswering

    @staticmethod
    def logits(output: Any) -> torch.Tensor:
        """Start and end, [batch, sequence, 2]."""
        import torch

        return torch.stack([output["start_logits"], output["end_logits"]], dim=-1)

    @staticmethod
    def loss(output: Any, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The mean of the cross-entropies of start and end positions."""
        from torch.nn.functional import cross_entropy

        start = cross_entropy(output["start_logits"].float(), targets["start_positions"])
        end = cross_entropy(output["end_logits"].float(), targets["end_positions"])
        return (start + end) / 2

    def predict(self, features: Dataset, logits: Sequence[np.ndarray]) -> list[Prediction]:
        """The best answer of all windows of a passage, question by question; "" where there is none.

        Args:
            features: of the dev split, in any order.
            logits: [sequence, 2] for each feature, padded or not: of start and end.

        Raises:
            GateError: a logit is not finite.
        """
        return [answers[0].answer if answers else "" for answers in self.n_best(features, logits, 1)]

    def n_best(self, features: Dataset, logits: Sequence[np.ndarray], count: int = N_BEST) -> list[list[Span]]:
        """The best answers of all windows of a passage, the best one first, question by question; see `predict`.

        Args:
            features: of the dev split, in any order.
            logits: [sequence, 2] for each feature, padded or not: of start and end.
            count: how many for each question; there are fewer where its passage has no more.
        """
        check_logits(features, logits)
        contexts = self.examples("dev")["context"][:]
        windows: list[list[spans.Window]] = [[] for _ in contexts]
        columns = (features[name][:] for name in ("example", "context_starts", "context_ends"))
        for example, starts, ends, window in zip(*columns, logits, strict=True):
            windows[example].append((window, np.array(starts), np.array(ends)))
        return [
            [
                Span(context[first:last], value, first, last)
                for value, first, last in spans.of_passage(own, context, LONGEST_ANSWER, count)
            ]
            for own, context in zip(windows, contexts, strict=True)
        ]

    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """F1 and exact match."""
        outcomes = self.outcomes(predictions)
        return {name: float(outcomes[name].mean()) for name in self.metrics}

    def outcomes(self, predictions: Sequence[Prediction]) -> np.ndarray:
        """Return F1 and exact match of each question, in points."""
        pairs = list(zip(predictions, self._gold(predictions), strict=True))
        found = np.empty(len(pairs), [(name, np.float64) for name in self.metrics])
        found["f1"] = [100.0 * squad_metric.f1(*pair) for pair in pairs]
        found["exact_match"] = [100.0 * squad_metric.exact_match(*pair) for pair in pairs]
        return found

    def degenerate(self, predictions: Sequence[Prediction]) -> Doubt | None:
        """Return why answers are all the same, or no better than any piece of the passage."""
        return of_answers(predictions, self._gold(predictions), self.examples("dev")["context"][:])

    def text_settings(self, tokenizer: PreTrainedTokenizerBase) -> TextSettings:
        """Return the settings with the windows' stride, and the length and number of answers."""
        settings = super().text_settings(tokenizer)
        stride = self._stride(settings.max_length)
        return replace(settings, stride=stride, longest_answer=LONGEST_ANSWER, n_best=N_BEST)

    def _stride(self, length: int) -> int:
        """Tokens that windows of so many tokens share: fewer where the model is short."""
        return min(self.stride, length // 3)

    def _gold(self, predictions: Sequence[Prediction]) -> list[list[str]]:
        """The right answers of each dev question."""
        self.check_count(predictions)
        return [answers["text"] for answers in self.examples("dev")["answers"][:]]

    def _encode(
        self, rows: Mapping[str, Any], first: int, tokenizer: PreTrainedTokenizerBase, marker: marking.Marker, offsets: bool
    ) -> dict[str, list[Any]]:
        """The columns of a chunk's features, the chunk's first example being number `first`."""
        encoded = self._tokenized(rows, tokenizer)
        positions, of_row = list(spans.positions(encoded)), encoded["overflow_to_sample_mapping"]
        missing = [marking.outside(one.sequence_ids, one.ids, tokenizer.cls_token_id) for one in encoded.encodings]
        columns: dict[str, list[Any]] = {name: encoded[name] for name in tokenizer.model_input_names}
        targets = marker.targets(rows, of_row, positions, missing)
        columns["start_positions"], columns["end_positions"] = map(list, zip(*targets, strict=True))
        columns["example"] = [first + row for row in of_row]
        columns["length"] = [len(tokens) for tokens in encoded["input_ids"]]
        if offsets:
            columns["context_starts"], columns["context_ends"] = map(list, zip(*positions, strict=True))
        return columns

    def _tokenized(self, rows: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> Any:
        """Windows of a chunk's passages, each after its question."""
        length = self.length(tokenizer)
        stride = self._stride(length)
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
