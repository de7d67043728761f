"""Token classification: entities in a text, such as names, each a span of a type; F1 by exact span as seqeval has it.

The tokens of a row are joined by blanks, and the text that this makes is tokenised as a client's text is, so that what is
served is what was trained. A text that is longer than the model reads is cut into overlapping windows, each a feature of its
own; `optkit.tasks.entities` says which pieces of it get a tag.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from optkit.tasks import entities
from optkit.tasks.base import LONGEST, SPLITS, Prediction, Split, Task
from optkit.tasks.choices import Choices
from optkit.tasks.collate import IGNORED, check_logits
from optkit.tasks.data import groups, iob
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.data.tables import limited
from optkit.tasks.degenerate import Doubt, of_tags
from optkit.tasks.entities import Entities, Entity, ServedEntities, Tagging, types_of
from optkit.tasks.outcomes import COUNT_METRICS, Counts, counts
from optkit.tasks.outcomes import value as metric_of
from optkit.tasks.served import TextSettings
from optkit.tasks.tag_marking import TagMarker, first_units, token_places

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from optkit.tasks.data.tags import Sentences

_CHUNK = 1000  # texts that are tokenized at once, to bound the memory
Span = tuple[str, int, int]
"""Type, begin and end of an entity."""
_OVERLAP = 4
"""Inverse of the share of a window that the next one has too."""


class TokenClassification(Task):
    """A data set of tokens with tags."""

    head = "token_classification"
    axes = ("batch", "token", "class")
    choice = "class"
    targets = ("labels",)
    head_modules = ("classifier.",)
    library_classes: ClassVar[Mapping[str, str]] = {"optimum": "ModelForTokenClassification"}
    served = ServedEntities()
    metric = "f1"
    metrics = tuple(COUNT_METRICS)
    training: ClassVar[Mapping[str, Any]] = {"epochs": 3}
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {"pieces": (entities.FIRST, entities.ALL)}
    text_columns = ("text",)
    learns_from_texts = True

    def __init__(
        self,
        name: str,
        splits: Mapping[Split, Sentences],
        labels: Sequence[str],
        limit_train: int | None = None,
        max_length: int = LONGEST,
        pieces: str = entities.FIRST,
    ) -> None:
        """Create a task from checked rows.

        Args:
            name: of the task, as on the command line.
            splits: rows with tags in IOB2.
            labels: all tags, in the order of the logits.
            limit_train: how many training rows to keep; all by default.
            max_length: longest window in tokens.
            pieces: which pieces of a word are trained and read, `first` or `all`.
        """
        self.labels, self.pieces = tuple(labels), pieces
        self.types = tuple(iob.type_of(label) for label in labels if label.startswith("B-"))
        limits: dict[Split, int | None] = {"train": limit_train, "dev": None}
        kept = {split: limited(len(own.tokens), limits[split]) for split, own in splits.items()}
        self._place = {split: partial(_place, own, kept[split]) for split, own in splits.items()}
        super().__init__(name, {split: self._rows(own, kept[split]) for split, own in splits.items()}, max_length)

    @classmethod
    def load(cls, name: str, data: DataSettings) -> Task:
        from optkit.tasks.data import conll, tags
        from optkit.tasks.data.source import read_tables

        data.refuse(name, "text_pair_column")
        splits, labels = tags.read(read_tables(name, data.source, more=conll.READERS), data)
        return cls(name, splits, labels, data.limit_train, pieces=cls.chosen(data)["pieces"])

    def fingerprint(self, splits: Sequence[Split] = SPLITS) -> str:
        """Return the SHA-256 of the rows, and which pieces are trained where that is not the default."""
        return super().fingerprint(splits) + (f"-{self.pieces}" if self.pieces != entities.FIRST else "")

    def class_shares(self, split: Split) -> tuple[Sequence[int], Sequence[str]]:
        """Return the type of each entity, and the types."""
        return [self.types.index(kind) for tags in self._gold(split) for kind, *_ in self._spans(tags)], self.types

    def encode(self, split: Split, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """One feature per window of a text.

        Columns: the tokenizer's `model_input_names`, `labels` (the tag of each piece that gets one, else
        `collate.IGNORED`), `example`, `length`, and for the dev split `starts` and `ends`: where each piece stands in the
        text, in characters, -1 outside of it.

        Raises:
            InputError: the tokenizer drops a token that belongs to an entity; the message names its line or row.
        """
        from datasets import Dataset, concatenate_datasets

        rows, length = self.examples(split), self.length(tokenizer)
        marker = TagMarker(f"{self.name}, {split}", self.labels, self.pieces, self._place[split])
        chunks = []
        for first in range(0, len(rows), _CHUNK):
            chunk = rows[first : first + _CHUNK]
            encoded = tokenizer(
                chunk["text"],
                truncation=True,
                max_length=length,
                stride=length // _OVERLAP,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
            )
            columns = {name: encoded[name] for name in tokenizer.model_input_names}
            columns |= marker.columns(chunk, first, encoded, offsets=split == "dev")
            chunks.append(Dataset.from_dict(columns))
        marker.report()
        return concatenate_datasets(chunks)

    @staticmethod
    def auto_class() -> Any:
        from transformers import AutoModelForTokenClassification

        return AutoModelForTokenClassification

    @staticmethod
    def logits(output: Any) -> torch.Tensor:
        """The classes of each piece, [batch, sequence, classes]."""
        return output["logits"]

    @staticmethod
    def loss(output: Any, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The mean cross-entropy of the tags; 0 where a batch has none."""
        from torch.nn.functional import cross_entropy

        tags = targets["labels"]  # as wide as the longest feature, which the batch may be padded beyond
        logits = output["logits"][:, : tags.shape[1]].float().flatten(0, 1)
        total = cross_entropy(logits, tags.flatten(), ignore_index=IGNORED, reduction="sum")
        return total / (tags != IGNORED).sum().clamp(min=1)

    def predict(self, features: Dataset, logits: Sequence[np.ndarray]) -> list[Prediction]:
        """The entities of each text, over all of its windows, and the tags of its row's tokens.

        Args:
            features: of the dev split, in any order.
            logits: [sequence, classes] for each feature, padded or not.

        Raises:
            GateError: a logit is not finite.
        """
        check_logits(features, logits)
        rows = self.examples("dev")
        windows: list[list[tuple[np.ndarray, entities.Offsets]]] = [[] for _ in range(len(rows))]
        columns = (features[name][:] for name in ("example", "starts", "ends"))
        for example, starts, ends, window in zip(*columns, logits, strict=True):
            windows[example].append((window, (np.array(starts), np.array(ends))))
        texts, tokens = rows["text"][:], rows["tokens"][:]
        return [self._tagging(*row) for row in zip(windows, texts, tokens, strict=True)]

    def choices(self, features: Dataset, logits: Sequence[np.ndarray]) -> Iterator[Choices]:
        """The tags of the pieces that get one."""
        for labels, row in zip(features["labels"][:], logits, strict=True):
            tags = np.array(labels)
            kept = tags != IGNORED
            yield Choices(row[: len(tags)][kept], np.eye(row.shape[-1])[tags[kept]])

    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """F1, precision and recall over all types, their mean F1, the F1 of each type, and `served_f1`.

        Tokens have the tag of their first word, as data of the field is scored. `served_f1` is of the entities as they are
        served, to the character.
        """
        outcomes, rows = self.outcomes(predictions), self.examples("dev")
        found = {name: metric_of(outcomes, name) for name in self.metrics}
        for place, kind in enumerate(self.types):
            own = np.empty(len(outcomes), counts(1))
            for name in Counts._fields:
                own[name] = outcomes[name][:, [place]]
            found[f"f1_{kind}"] = metric_of(own, "f1")
        gold = [self._in_text(tokens, tags) for tokens, tags in zip(rows["tokens"][:], rows["tags"][:], strict=True)]
        served = [[(one.type, one.start, one.end) for one in prediction.found] for prediction in predictions]
        return {**found, "served_f1": metric_of(self._counted(gold, served), "f1")}

    def outcomes(self, predictions: Sequence[Prediction]) -> np.ndarray:
        """Return how many entities of each type an example has, how many are predicted, and how many of these are right."""
        self.check_count(predictions)
        return self._counted(map(self._spans, self._gold("dev")), [self._spans(one.tags) for one in predictions])

    def _counted(self, gold: Iterable[Sequence[Span]], predicted: Iterable[Sequence[Span]]) -> np.ndarray:
        """The outcomes of the right and the predicted entities of each example."""
        places = {kind: place for place, kind in enumerate(self.types)}
        found = []
        for sides in zip(gold, predicted, strict=True):
            right, others = map(set, sides)
            kinds = ([places[kind] for kind, *_ in own] for own in (right & others, right, others))
            found.append(tuple(np.bincount(own, minlength=len(places)) for own in kinds))
        return np.array(found, counts(len(places)))

    def weakness(self, features: Dataset, logits: Sequence[np.ndarray]) -> str | None:
        """Return why a teacher is bad: it tags fewer words right than the most frequent tag does."""
        scores, shares = (np.concatenate(side) for side in zip(*self.choices(features, logits), strict=True))
        gold, predicted = shares.argmax(-1), scores.argmax(-1)
        right, constant = float((gold == predicted).mean()), float(np.bincount(gold).max() / len(gold))
        if right >= constant:
            return None
        return (
            f"tags {100 * right:.1f} % of the training words right; always giving the most frequent tag would be right on "
            f"{100 * constant:.1f} %"
        )

    def degenerate(self, predictions: Sequence[Prediction]) -> Doubt | None:
        """Return why tags are all the same, no better than in random order, or those of renamed classes."""
        gold, predicted = (np.concatenate(side) for side in (self._gold("dev"), [one.tags for one in predictions]))
        return of_tags(gold, predicted, self.labels, self.outcomes(predictions))

    def decision(self, prediction: Prediction) -> Any:
        """The entities, whatever their scores, and the tags."""
        return [(one.type, one.start, one.end) for one in prediction.found], prediction.tags

    def shown(self, prediction: Prediction) -> str:
        """The entities in the words of the text."""
        return str(Entities(prediction.found))

    def shown_as(self, prediction: Prediction, labels: Sequence[str]) -> str:
        """The same with a model's own names of the types."""
        types = types_of(self.labels, labels or self.labels)
        return str(Entities(tuple(one._replace(type=types[one.type]) for one in prediction.found)))

    def readable(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The text, and its entities as predictions show them."""
        spans = self._in_text(row["tokens"], row["tags"])
        found = tuple(Entity(kind, row["text"][start:end], start, end) for kind, start, end in spans)
        return {"text": row["text"], "entities": str(Entities(found))}

    def text_settings(self, tokenizer: PreTrainedTokenizerBase) -> TextSettings:
        """Return the settings with the windows' stride, and which pieces get which tags."""
        settings = super().text_settings(tokenizer)
        more = {"pieces": self.pieces, "tags": list(self.labels)}
        return replace(settings, stride=settings.max_length // _OVERLAP, more=more)

    def _rows(self, sentences: Sentences, kept: Sequence[int]) -> Dataset:
        """The rows that are used: text, tokens and tags."""
        from datasets import ClassLabel, Dataset, Features, List, Value

        index = {label: place for place, label in enumerate(self.labels)}
        tokens = [sentences.tokens[row] for row in kept]
        columns = {
            "text": [" ".join(one) for one in tokens],
            "tokens": tokens,
            "tags": [[index[tag] for tag in sentences.tags[row]] for row in kept],
        }
        own = groups.kept(sentences.table, kept)
        kinds = {"text": Value("string"), "tokens": List(Value("string")), "tags": List(ClassLabel(names=list(self.labels)))}
        return Dataset.from_dict({**columns, **own}, Features({**kinds, **dict.fromkeys(own, Value("string"))}))

    def _gold(self, split: Split) -> list[list[int]]:
        """The tags of each row's tokens."""
        found: list[list[int]] = self.examples(split)["tags"][:]
        return found

    def _spans(self, tags: Sequence[int]) -> list[Span]:
        return iob.entities([self.labels[tag] for tag in tags])

    def _in_text(self, tokens: Sequence[str], tags: Sequence[int]) -> list[Span]:
        """The entities of a row in characters of its text."""
        places = token_places(tokens)
        return [(kind, places[first][0], places[last - 1][1]) for kind, first, last in self._spans(tags)]

    def _tagging(self, windows: Sequence[tuple[np.ndarray, entities.Offsets]], text: str, tokens: Sequence[str]) -> Tagging:
        """The prediction for one text."""
        logits, offsets = zip(*windows, strict=True)
        places = entities.stripped(offsets, text)
        units = entities.units_of(places, text, self.pieces)
        found = entities.joined(logits, places, units)
        first, has_one = first_units(units, token_places(tokens))
        tags = np.full(len(tokens), self.labels.index(iob.OUTSIDE))
        tags[has_one] = found.argmax(-1)[first[has_one]]
        return Tagging(tuple(tags.tolist()), tuple(entities.read(found, units, text, self.labels)))


def _place(sentences: Sentences, kept: Sequence[int], row: int, token: int) -> str:
    """Return where a token of a row that is used was read."""
    return sentences.place(int(kept[row]), token)
