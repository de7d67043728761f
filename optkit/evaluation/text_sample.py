"""What a server needs to take text instead of tokens, and a sample of texts with the served answers to them.

Settings are the task's own, the tokenizer is written as the training had it.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from optkit.core.atomic import write_json
from optkit.evaluation.artifacts import TEXT, TEXT_SAMPLE
from optkit.serving import ensemble
from optkit.tasks.base import Prediction, Task
from optkit.tasks.served import TextSettings

SAMPLE_ROWS = 16
log = logging.getLogger(__name__)


Predictions = Mapping[str, Sequence[Prediction]]
"""Predictions, {precision: one per example of the dev split}."""


def write(
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    predictions: Predictions,
    folder: Path,
    labels: Sequence[str] = (),
    logits: tuple[int, ...] | None = None,
) -> None:
    """Keep settings and tokenizer in `folder/text/`, and the sample beside it; nothing for a slow tokenizer.

    Args:
        task: whose dev split was scored.
        tokenizer: which made the features.
        predictions: served.
        folder: of the step.
        labels: the model's own names of the classes, in the task's order; without them, the task's.
        logits: shape of the model's logits without the batch; by default the task's.
    """
    settings = write_settings(task, tokenizer, folder / TEXT, labels, logits)
    if settings is None:
        return
    requests = task.requests(SAMPLE_ROWS)
    texts = {name: [request[place] for request in requests] for place, name in enumerate(settings.fields)}
    answers = {
        precision: [task.shown_as(one, labels) for one in found[:SAMPLE_ROWS]] for precision, found in predictions.items()
    }
    write_json(folder / TEXT_SAMPLE, {"texts": texts, "answers": answers})


def write_settings(
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    labels: Sequence[str] = (),
    logits: tuple[int, ...] | None = None,
) -> TextSettings | None:
    """Keep settings and tokenizer in a folder, which is made; returns the settings, or nothing for a slow tokenizer.

    Args:
        task, tokenizer, labels, logits: as of `write`.
        folder: of both.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        log.warning("%s has no tokenizer.json: the model takes tokens, and can be served no text", type(tokenizer).__name__)
        return None
    folder.mkdir()
    settings = task.text_settings(tokenizer)
    if labels:
        settings = replace(settings, labels=tuple(labels))
    if logits is not None:
        settings = replace(settings, logits=logits)
    settings.write(folder)
    (folder / ensemble.TOKENIZER).write_text(_plain(tokenizer), encoding="utf-8")
    return settings


def _plain(tokenizer: PreTrainedTokenizerFast) -> str:
    """The tokenizer's file, without what its last call has left in it."""
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return plain.to_str()
