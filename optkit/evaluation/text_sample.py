"""What a server needs to take text instead of tokens, and a sample of texts with the served answers to them.

Settings are the task's own, the tokenizer is written as the training had it.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from optkit.core.atomic import write_json
from optkit.evaluation.artifacts import TEXT, TEXT_SAMPLE
from optkit.serving import ensemble
from optkit.serving.ensemble import TextSettings
from optkit.tasks.base import Prediction, Task
from optkit.tasks.classification import Classification
from optkit.tasks.question_answering import LONGEST_ANSWER, N_BEST, QuestionAnswering

SAMPLE_ROWS = 16
log = logging.getLogger(__name__)


Predictions = Mapping[str, Sequence[Prediction]]
"""{precision: one per example of the dev split}"""


def write(task: Task, tokenizer: PreTrainedTokenizerBase, predictions: Predictions, folder: Path) -> None:
    """Keep settings and tokenizer in `folder/text/`, and the sample beside it; nothing for a slow tokenizer.

    Args:
        task: whose dev split was scored.
        tokenizer: which made the features.
        predictions: served.
        folder: of the step.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        log.warning("%s has no tokenizer.json: the model takes tokens, and can be served no text", type(tokenizer).__name__)
        return
    (folder / TEXT).mkdir()
    settings = settings_of(task, tokenizer)
    settings.write(folder / TEXT)
    (folder / TEXT / ensemble.TOKENIZER).write_text(_plain(tokenizer), encoding="utf-8")
    rows = task.examples("dev")[:SAMPLE_ROWS]
    texts = dict(zip(settings.fields, (rows[name] for name in _columns(task)), strict=True))
    answers = {precision: [_named(task, one) for one in found[:SAMPLE_ROWS]] for precision, found in predictions.items()}
    write_json(folder / TEXT_SAMPLE, {"texts": texts, "answers": answers})


def settings_of(task: Task, tokenizer: PreTrainedTokenizerBase) -> TextSettings:
    """A task's way from text to tokens and from logits to answers, as a server needs it."""
    length = min(task.max_length, tokenizer.model_max_length)
    padding = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    settings = TextSettings(
        head=task.head,
        fields=("text", "text_pair")[: len(_columns(task))],
        padding={name: int(padding.get(name, 0)) for name in tokenizer.model_input_names},
        max_length=length,
        truncation_side=tokenizer.truncation_side,
        labels=tuple(task.labels),
    )
    if task.head == "classification":
        return settings
    stride = min(cast(QuestionAnswering, task).stride, length // 3)
    fields = ("question", "context")
    return replace(settings, fields=fields, stride=stride, longest_answer=LONGEST_ANSWER, n_best=N_BEST)


def _plain(tokenizer: PreTrainedTokenizerFast) -> str:
    """The tokenizer's file, without what its last call has left in it."""
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return plain.to_str()


def _columns(task: Task) -> tuple[str, ...]:
    return cast(Classification, task).text_columns if task.head == "classification" else ("question", "context")


def _named(task: Task, prediction: Prediction) -> str:
    """A prediction as the server's client sees it."""
    return task.labels[prediction] if task.labels else prediction
