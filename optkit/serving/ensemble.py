"""Text pipelines: the models around a tensor model that let a client send words and get the task's answer.

`<model>_text` is a Triton ensemble of `<model>_text_tokenizer`, the tensor model and `<model>_text_answer`. Its tensor
step names no version: whichever version of the tensor model is live answers.

Where one example may become several features (`ServedForm.has_windows`), as in question answering, the ensemble takes one
example at a time, and its windows are the batch of the tensor model: a request of its own for each, however many it has.
"""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from optkit.core.errors import InputError
from optkit.serving import config as configuration
from optkit.serving import repository
from optkit.serving.config import OUTPUT, ModelConfig
from optkit.tasks import registry
from optkit.tasks.served import OFFSETS, SETTINGS, Tensors, TextSettings

SUFFIX = "_text"
STEPS = ("_tokenizer", "_answer")
DIGEST = "digest"
"""Parameter of a pipeline: SHA-256 of its tokenizer and settings."""
TOKENIZER = "tokenizer.json"
HEAD, LABELS = "head", "labels"
"""Parameters of a pipeline: head of its task, and class names as JSON."""


def pipeline(model: str) -> str:
    """The name of a model's text pipeline."""
    return f"{model}{SUFFIX}"


def steps(model: str) -> tuple[str, str]:
    """The names of a pipeline's own two steps: before the model and after it."""
    before, after = (f"{pipeline(model)}{step}" for step in STEPS)
    return before, after


def names(model: str) -> tuple[str, ...]:
    """The folders of a model's text pipeline, the ensemble last: it needs the others."""
    return (*steps(model), pipeline(model))


def stage(root: Path, source: Path, model: str, config: ModelConfig) -> None:
    """Write the text pipeline of a model as folders of a repository.

    Args:
        root: gets the folders of `names(model)`.
        source: has `tokenizer.json` and `text.json`.
        model: the tensor model's name there.
        config: the tensor model's.

    Raises:
        InputError: tokenizer and tensor model do not fit.
    """
    settings = replace(TextSettings.read(source), max_windows=config.max_batch_size)
    _check(settings, config)
    tokenizer, answer = steps(model)
    requests, answers = _requests(settings, config), registry.form(settings.head).outputs(settings)
    texts = {
        tokenizer: _step(tokenizer, requests, _texts(settings), _features(settings, config)),
        answer: _step(answer, requests, _logits(settings, config), answers),
        pipeline(model): _ensemble(model, settings, config, digest(source)),
    }
    for name, message in texts.items():
        (root / name / "1").mkdir(parents=True)
        (root / name / configuration.FILE).write_text(configuration.dumps(message), encoding="utf-8")
        settings.write(root / name / "1")
    shutil.copy2(source / TOKENIZER, root / tokenizer / "1")
    for name, module in ((tokenizer, "tokenizer"), (answer, "answer")):
        (root / name / "1" / "model.py").write_text(repository.model_py(module), encoding="utf-8")


def digest(source: Path) -> str:
    """SHA-256 of a tokenizer with its settings."""
    return hashlib.sha256(b"".join((source / name).read_bytes() for name in (TOKENIZER, SETTINGS))).hexdigest()


def _check(settings: TextSettings, config: ModelConfig) -> None:
    """The settings come from the training, the configuration from the engine."""
    logits = registry.form(settings.head).logits_shape(settings)
    if not set(config.inputs) <= set(settings.padding) or config.logits != logits:
        raise InputError(
            f"text pipeline of {config.name!r}: found a tokenizer for {', '.join(settings.padding)} and logits {logits}, "
            f"expected {', '.join(config.inputs)} and {config.logits} as the engine has them. Run the recipe again"
        )


def _requests(settings: TextSettings, config: ModelConfig) -> int:
    """Requests in a batch of the pipeline; 0 where windows are the tensor model's batch."""
    return 0 if registry.form(settings.head).has_windows else config.max_batch_size


def _windows(settings: TextSettings) -> tuple[int, ...]:
    """A batch of windows is no batch in Triton's sense, so that its dimension is written down."""
    return (-1,) if registry.form(settings.head).has_windows else ()


def _texts(settings: TextSettings) -> Tensors:
    return dict.fromkeys(settings.fields, ("STRING", (1,)))


def _features(settings: TextSettings, config: ModelConfig) -> Tensors:
    offsets = {name: kind for name, kind in _beside(settings).items() if name in OFFSETS}
    return dict.fromkeys(config.inputs, ("INT64", (*_windows(settings), -1))) | offsets


def _logits(settings: TextSettings, config: ModelConfig) -> Tensors:
    return {OUTPUT: ("FP32", (*_windows(settings), *config.logits))} | _beside(settings)


def _beside(settings: TextSettings) -> Tensors:
    """What the answer needs beside the logits."""
    offsets, text = ("INT32", (*_windows(settings), -1)), ("STRING", (1,))
    return {name: offsets if name in OFFSETS else text for name in registry.form(settings.head).beside}


def _step(name: str, batch: int, inputs: Tensors, outputs: Tensors) -> Any:
    message = configuration.message(name=name, backend="python", max_batch_size=batch)
    _declare(message, inputs, outputs)
    message.instance_group.add(count=1, kind="KIND_CPU")
    return message


def _ensemble(model: str, settings: TextSettings, config: ModelConfig, digest: str) -> Any:
    message = configuration.message(name=pipeline(model), platform="ensemble", max_batch_size=_requests(settings, config))
    answers = registry.form(settings.head).outputs(settings)
    _declare(message, _texts(settings), answers)
    before, after = steps(model)
    for name, inputs, outputs in (
        (before, _texts(settings), _features(settings, config)),
        (model, config.inputs, [OUTPUT]),
        (after, _logits(settings, config), answers),
    ):
        step = message.ensemble_scheduling.step.add(model_name=name, model_version=-1)
        step.input_map.update({tensor: tensor for tensor in inputs})
        step.output_map.update({tensor: tensor for tensor in outputs})
    message.parameters[DIGEST].string_value = digest
    message.parameters[HEAD].string_value = settings.head
    if settings.labels:
        message.parameters[LABELS].string_value = json.dumps(settings.labels)
    return message


def _declare(message: Any, inputs: Tensors, outputs: Tensors) -> None:
    for name, (kind, shape) in inputs.items():
        message.input.add(name=name, data_type=f"TYPE_{kind}", dims=shape)
    for name, (kind, shape) in outputs.items():
        message.output.add(name=name, data_type=f"TYPE_{kind}", dims=shape)
