"""Tasks by name: optkit's own, and those of other packages.

task = load("classification", Path("reviews"))
features, collator = task.encode("dev", tokenizer), Collator.of(task, tokenizer)
task.score(task.predict(features, run(infer, features, 32, collator)))
"""

from __future__ import annotations

import difflib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit.core.errors import InputError
from optkit.core.plugins import Registry
from optkit.tasks.data.data_settings import DataSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from optkit.tasks.base import Task
    from optkit.tasks.served import ServedForm


def _is_task(thing: object) -> bool:
    from optkit.tasks.base import Task

    return isinstance(thing, type) and issubclass(thing, Task)


_CLASSIFICATION = "optkit.tasks.classification:Classification"
_QUESTION_ANSWERING = "optkit.tasks.question_answering:QuestionAnswering"
TASKS: Registry[type[Task]] = Registry(
    "task",
    "optkit.tasks",
    {
        "sample": "optkit.tasks.sample:Sample",
        "sample_multi_label": "optkit.tasks.sample_multi_label:SampleMultiLabel",
        "sample_qa": "optkit.tasks.sample_qa:SampleQA",
        "sample_regression": "optkit.tasks.sample_regression:SampleRegression",
        "sst2": _CLASSIFICATION,
        "squad": _QUESTION_ANSWERING,
        "squad_v2": _QUESTION_ANSWERING,
        "classification": _CLASSIFICATION,
        "multi_label": "optkit.tasks.multi_label:MultiLabel",
        "qa": _QUESTION_ANSWERING,
        "regression": "optkit.tasks.regression:Regression",
        "token_classification": "optkit.tasks.token_classification:TokenClassification",
        "sample_token_classification": "optkit.tasks.sample_token_classification:SampleTokenClassification",
        "sample_reranking": "optkit.tasks.sample_reranking:SampleReranking",
        "reranking": "optkit.tasks.reranking:Reranking",
        "embedding": "optkit.tasks.embedding:Embedding",
        "sample_embedding": "optkit.tasks.sample_embedding:SampleEmbedding",
    },
    _is_task,
)


def load(name: str, data: Path | str | None = None, limit_train: int | None = None, **settings: Any) -> Task:
    """Load a task by name: read and check its data.

        task = optkit.load_task("classification", data="reviews/", max_length=256)

    Args:
        name: one of `TASKS`. `sample` ships with the package, `sst2`, `squad` and `squad_v2` come from the Hugging Face hub
            unless `data` is given, the others are read from `data`.
        data: folder with a `train` and a `dev` file.
        limit_train: number of training rows to use, the first after a shuffle with a fixed seed; None for all.
        settings: further fields of `optkit.tasks.data.data_settings.DataSettings`.

    Returns:
        The task, with checked rows of both splits.

    Raises:
        InputError: the name, a setting or a file is wrong.
        MachineError: the hub cannot be reached.
    """
    names = [field.name for field in fields(DataSettings)]
    if unknown := [setting for setting in settings if setting not in names]:
        expected = ", ".join(name for name in names if name != "source")
        raise InputError(f"load_task: found the setting {', '.join(unknown)}, expected some of data, {expected}")
    return of_settings(name, DataSettings(None if data is None else str(data), limit_train, **settings))


def of_settings(name: str, settings: DataSettings) -> Task:
    """Load a task by name, with all settings of its data; see `load`."""
    names = TASKS.names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        own = "Your own data: --task classification (or token_classification, multi_label, regression, qa) --data DIR."
        hint = f"Did you mean {close[0]!r}?" if close else own
        raise InputError(f"task {name!r}: no such task; expected one of {', '.join(names)}. {hint}")
    kind = TASKS.get(name)
    kind.chosen(settings)
    task = kind.load(name, settings)
    task.check_groups(settings.group_column)
    if settings.metric is not None:
        task.choose_metric(settings.metric)
    if settings.max_length is not None:
        task.limit_length(settings.max_length)
    if settings.unlabelled is not None:
        from optkit.tasks import unlabelled

        task.unlabelled = unlabelled.read(task, settings)
    return task


def task_of(model: PreTrainedModel) -> type[Task]:
    """Return the class of the task that a model's head is for.

    Raises:
        InputError: none of the tasks has such a head.
    """
    heads = []
    for _, task in TASKS.working():
        heads.append(task.auto_class().__name__.removeprefix("AutoModel"))
        if type(model).__name__.endswith(heads[-1]) and task.has_head(model.config):
            return task
    heads = list(dict.fromkeys(heads))
    raise InputError(f"{type(model).__name__}: no task has its head; expected a model …{', …'.join(heads)}")


def form(head: str) -> ServedForm:
    """Return the served form of the tasks with a head.

    Raises:
        InputError: no task has this head.
    """
    for _, task in TASKS.working():
        if task.head == head:
            return task.served
    raise InputError(f"head {head!r}: none of the tasks {', '.join(TASKS.names())} has it. Install the package that does")
