"""Extractive question answering: a span of a passage answers a question; exact match and F1 as SQuAD has them.

A passage that is longer than the model reads is cut into overlapping windows, each a feature of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from optkit.core.errors import InputError
from optkit.tasks import marking, no_answer, spans, squad_metric
from optkit.tasks.base import Prediction, Split, Task
from optkit.tasks.choices import Choices
from optkit.tasks.collate import check_logits
from optkit.tasks.data.data_settings import COLUMNS, DataSettings
from optkit.tasks.data.tables import limited, problem, shown
from optkit.tasks.degenerate import Doubt, of_answers
from optkit.tasks.served import TextSettings
from optkit.tasks.served_spans import NO_ANSWER, ServedSpans, Span

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

LONGEST_ANSWER = 30
"""Tokens a predicted answer may have."""

WINDOW = 384
"""Tokens of a window of question and passage, by default (Devlin et al. 2018, arXiv 1810.04805)."""

N_BEST = 5
"""Answers that a served question gets, besides none where that is possible."""

HUB = {"squad": "hub:rajpurkar/squad", "squad_v2": "hub:rajpurkar/squad_v2"}
"""Names of the tasks whose data is on the Hugging Face hub."""

_CHUNK = 1000  # questions that are tokenized at once, to bound the memory


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
        from datasets import Dataset

        self.stride = stride
        train = splits["train"]
        keep = limited(len(train), limit_train)
        kept = train if len(keep) == len(train) else Dataset.from_dict(train[keep], features=train.features)
        super().__init__(name, {"train": kept, "dev": splits["dev"]}, max_length)
        self.fits_thresholds = no_answer.is_told(name, kept, splits["dev"])

    @classmethod
    def load(cls, name: str, data: DataSettings) -> Task:
        data.refuse(name, *COLUMNS)
        from optkit.tasks.data import squad

        return cls(name, squad.read_splits(name, data.source or HUB.get(name), data.group_column), data.limit_train)

    def encode(self, split: Split, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """One feature per window of a passage.

        Columns: the tokenizer's `model_input_names`, `start_positions`, `end_positions` (of the first answer;
        `marking.outside`, such as [CLS], where the window does not hold it), `example`, `length`, and for the dev split
        `context_starts` and `context_ends`: where each token stands in the passage, in characters, -1 outside of it; for
        the train split too where questions may have no answer.

        Raises:
            InputError: the tokenizer is not a fast one, or a question leaves no room for its passage.
        """
        from datasets import Dataset, concatenate_datasets

        if not tokenizer.is_fast:
            found = f"a slow tokenizer ({type(tokenizer).__name__})"
            raise problem(tokenizer.name_or_path, found, "a fast one, which knows offsets", "add its tokenizer.json")
        offsets = split == "dev" or self.fits_thresholds
        rows, marker = self.examples(split), marking.Marker(f"{self.name}, {split}", LONGEST_ANSWER)
        chunks = [
            Dataset.from_dict(self._encode(rows[first : first + _CHUNK], first, tokenizer, marker, offsets))
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

        Returns:
            Texts; a `Reply` for each question where questions may have no answer.

        Raises:
            GateError: a logit is not finite.
        """
        if self.fits_thresholds:
            return list(self._replies("dev", features, logits).values())
        return [answers[0].answer if answers else "" for answers in self.n_best(features, logits, 1)]

    def fit_thresholds(self, features: Dataset, logits: Sequence[np.ndarray]) -> tuple[float, ...]:
        """The margin from which no answer has the highest F1."""
        replies = self._replies("train", features, logits)
        answers = self.examples("train")[list(replies)]["answers"]
        return (no_answer.best_threshold(list(replies.values()), list(map(squad_metric.told, answers)))[0],)

    def n_best(self, features: Dataset, logits: Sequence[np.ndarray], count: int = N_BEST) -> list[list[Span]]:
        """The best answers of all windows of a passage, the best one first, question by question; see `predict`.

        Args:
            features: of the dev split, in any order.
            logits: [sequence, 2] for each feature, padded or not: of start and end.
            count: how many for each question; there are fewer where its passage has no more.
        """
        return [
            [
                Span(context[first:last], value, first, last)
                for value, first, last in spans.of_passage(windows, context, LONGEST_ANSWER, count)
            ]
            for context, windows in self._windows("dev", features, logits).values()
        ]

    def _replies(self, split: Split, features: Dataset, logits: Sequence[np.ndarray]) -> dict[int, no_answer.Reply]:
        """The best answer of each question, or none, by the question's row."""
        found, threshold = {}, self.thresholds[0] if self.thresholds else 0.0
        for example, (context, windows) in self._windows(split, features, logits).items():
            best, none = spans.of_passage(windows, context, LONGEST_ANSWER, 1), spans.none_score(windows)
            value, first, last = best[0] if best else (-np.inf, 0, 0)
            _, *given = spans.with_none(best, none - threshold)[0]
            found[example] = no_answer.Reply(context[slice(*given)], context[first:last], none - value)
        return found

    def _windows(
        self, split: Split, features: Dataset, logits: Sequence[np.ndarray]
    ) -> dict[int, tuple[str, list[spans.Window]]]:
        """The passage of each question and its windows, by the question's row."""
        check_logits(features, logits)
        contexts = self.examples(split)["context"][:]
        columns = [features[name][:] for name in ("example", "context_starts", "context_ends")]
        found: dict[int, tuple[str, list[spans.Window]]] = {row: (contexts[row], []) for row in sorted(set(columns[0]))}
        for example, starts, ends, window in zip(*columns, logits, strict=True):
            found[example][1].append((window, np.array(starts), np.array(ends)))
        return found

    def choices(self, features: Dataset, logits: Sequence[np.ndarray]) -> Iterator[Choices]:
        """The tokens that the first answer starts and ends at, window by window."""
        columns = (features[name][:] for name in self.targets)
        for *ends, row in zip(*columns, logits, strict=True):
            yield Choices(row.T, np.eye(len(row))[ends])

    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """F1 and exact match; where questions may have no answer, also of those with and without one."""
        outcomes = self.outcomes(predictions)
        more = no_answer.scores(predictions, self._gold(predictions)) if self.fits_thresholds else {}
        return {**{name: float(outcomes[name].mean()) for name in self.metrics}, **more}

    def outcomes(self, predictions: Sequence[Prediction]) -> np.ndarray:
        """Return F1 and exact match of each question, in points."""
        pairs = list(zip(map(no_answer.text_of, predictions), self._gold(predictions), strict=True))
        found = np.empty(len(pairs), [(name, np.float64) for name in self.metrics])
        found["f1"] = [100.0 * squad_metric.f1(*pair) for pair in pairs]
        found["exact_match"] = [100.0 * squad_metric.exact_match(*pair) for pair in pairs]
        return found

    def degenerate(self, predictions: Sequence[Prediction]) -> Doubt | None:
        """Return why answers are all the same, or no better than any piece of the passage."""
        return of_answers(
            list(map(no_answer.text_of, predictions)), self._gold(predictions), self.examples("dev")["context"][:]
        )

    def wholes(self, split: Split) -> list[str]:
        """Return the passages: several questions are about one."""
        found: list[str] = self.examples(split)["context"][:]
        return found

    def text_settings(self, tokenizer: PreTrainedTokenizerBase) -> TextSettings:
        """Return the settings with the windows' stride, and the length and number of answers."""
        settings = super().text_settings(tokenizer)
        stride = self._stride(settings.max_length)
        more = {"thresholds": list(self.thresholds or (0.0,))} if self.fits_thresholds else {}
        return replace(settings, stride=stride, longest_answer=LONGEST_ANSWER, n_best=N_BEST, more=more)

    def decision(self, prediction: Prediction) -> Any:
        """The answer's text."""
        return no_answer.text_of(prediction)

    def shown(self, prediction: Prediction) -> str:
        """The answer's text."""
        return no_answer.text_of(prediction) or NO_ANSWER

    def _stride(self, length: int) -> int:
        """Tokens that windows of so many tokens share: fewer where the model is short."""
        return min(self.stride, length // 3)

    def _gold(self, predictions: Sequence[Prediction]) -> list[list[str]]:
        """The right answers of each dev question; `[""]` for one without any."""
        self.check_count(predictions)
        told = squad_metric.told if self.fits_thresholds else lambda answers: answers["text"]
        return list(map(told, self.examples("dev")["answers"][:]))

    def _encode(
        self, rows: Mapping[str, Any], first: int, tokenizer: PreTrainedTokenizerBase, marker: marking.Marker, offsets: bool
    ) -> dict[str, list[Any]]:
        """The columns of a chunk's features, the chunk's first example being number `first`."""
        encoded = self._tokenized(rows, tokenizer)
        positions, of_row = list(spans.positions(encoded)), encoded["overflow_to_sample_mapping"]
        missing = [marking.outside(one.sequence_ids, one.ids, tokenizer.cls_token_id) for one in encoded.encodings]
        if self.fits_thresholds:
            no_answer.check_first(self.name, missing)
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
