"""Text pipelines: the models around a tensor model that let a client send words and get the task's answer.

`<model>_text` is a Triton ensemble of `<model>_text_tokenizer`, the tensor model and `<model>_text_answer`. Its tensor
step names no version: whichever version of the tensor model is live answers.

For question answering the ensemble takes one question at a time, and the windows of its passage are the batch of the
tensor model: a request of its own for each question, however many windows it has.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from optkit.core.errors import InputError
from optkit.serving import config as configuration
from optkit.serving import repository
from optkit.serving.config import OUTPUT, ModelConfig

SUFFIX = "_text"
STEPS = ("_tokenizer", "_answer")
DIGEST = "digest"
"""Parameter of a pipeline: what makes its tokens and its answers."""
TOKENIZER, SETTINGS = "tokenizer.json", "text.json"
OFFSETS = ("context_starts", "context_ends")
"""Where each token stands in the passage, int32 [windows, sequence]; -1 outside of it."""
ANSWER: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {
    "classification": {"label": ("STRING", (1,)), "probability": ("FP32", (1,)), "probabilities": ("FP32", (-1,))},
    "question_answering": {"answer": ("STRING", (-1,)), "score": ("FP32", (-1,)), "span": ("INT32", (-1, 2))},
}
"""What comes back, {head: {output: (type, shape)}}: the label's probability and all in the order of the labels; answers, the
best first, each with the sum of its start and end logit, its first character in the passage and the one after its last."""


@dataclass(frozen=True)
class TextSettings:
    """How a task makes tokens of text and an answer of logits."""

    head: str
    """`classification` or `question_answering`."""
    fields: tuple[str, ...]
    """Texts of a request: `text`, `text` and `text_pair`, or `question` and `context`."""
    padding: Mapping[str, int]
    """The model's inputs in their order, each with what fills it up."""
    max_length: int
    """Longest feature in tokens: longer texts are cut, longer passages become several windows."""
    truncation_side: str = "right"
    labels: tuple[str, ...] = ()
    """Class names in the order of the logits."""
    stride: int = 0
    """Tokens that two neighbouring windows share."""
    longest_answer: int = 0
    """Tokens an answer may have."""
    n_best: int = 1
    """Answers to a question."""
    max_windows: int = 0
    """Windows of one passage that the engine takes at once."""

    @property
    def has_windows(self) -> bool:
        """Whether one request may become several features."""
        return self.head == "question_answering"

    def write(self, folder: Path) -> None:
        """Keep the settings in a folder."""
        (folder / SETTINGS).write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(folder: Path) -> TextSettings:
    """What `TextSettings.write` kept.

    Raises:
        InputError: it is something else.
    """
    path = folder / SETTINGS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
        return TextSettings(**fields)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        fix = "score the recipe again: optkit run"
        raise InputError(f"{path}: not text settings written by optkit ({error}); {fix}") from error


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
    settings = replace(read(source), max_windows=config.max_batch_size)
    _check(settings, config)
    tokenizer, answer = steps(model)
    texts = {
        tokenizer: _step(tokenizer, _requests(settings, config), _texts(settings), _features(settings, config)),
        answer: _step(answer, _requests(settings, config), _logits(settings, config), _answers(settings)),
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
    labels = (len(settings.labels),) if settings.labels else (-1, 2)
    if not set(config.inputs) <= set(settings.padding) or config.logits != labels:
        raise InputError(
            f"text pipeline of {config.name!r}: found a tokenizer for {', '.join(settings.padding)} and logits {labels}, "
            f"expected {', '.join(config.inputs)} and {config.logits} as the engine has them. Run the recipe again"
        )


Tensors = dict[str, tuple[str, tuple[int, ...]]]
"""{name: (type, shape without the batch)}"""


def _requests(settings: TextSettings, config: ModelConfig) -> int:
    """Requests in a batch of the pipeline; 0 where windows are the tensor model's batch."""
    return 0 if settings.has_windows else config.max_batch_size


def _texts(settings: TextSettings) -> Tensors:
    return dict.fromkeys(settings.fields, ("STRING", (1,)))


def _features(settings: TextSettings, config: ModelConfig) -> Tensors:
    """Tokens; a batch of windows is no batch in Triton's sense, so that its dimension is written down."""
    windows = (-1,) if settings.has_windows else ()
    offsets: Tensors = dict.fromkeys(OFFSETS, ("INT32", (-1, -1))) if settings.has_windows else {}
    return dict.fromkeys(config.inputs, ("INT64", (*windows, -1))) | offsets


def _logits(settings: TextSettings, config: ModelConfig) -> Tensors:
    if not settings.has_windows:
        return {OUTPUT: ("FP32", config.logits)}
    offsets: Tensors = dict.fromkeys(OFFSETS, ("INT32", (-1, -1)))
    return {OUTPUT: ("FP32", (-1, *config.logits)), **offsets, "context": ("STRING", (1,))}


def _answers(settings: TextSettings) -> Tensors:
    return {
        name: (kind, (len(settings.labels),) if settings.labels and shape == (-1,) else shape)
        for name, (kind, shape) in ANSWER[settings.head].items()
    }


def _step(name: str, batch: int, inputs: Tensors, outputs: Tensors) -> Any:
    message = configuration.message(name=name, backend="python", max_batch_size=batch)
    _declare(message, inputs, outputs)
    message.instance_group.add(count=1, kind="KIND_CPU")
    return message


def _ensemble(model: str, settings: TextSettings, config: ModelConfig, digest: str) -> Any:
    message = configuration.message(name=pipeline(model), platform="ensemble", max_batch_size=_requests(settings, config))
    _declare(message, _texts(settings), _answers(settings))
    before, after = steps(model)
    for name, inputs, outputs in (
        (before, _texts(settings), _features(settings, config)),
        (model, config.inputs, [OUTPUT]),
        (after, _logits(settings, config), _answers(settings)),
    ):
        step = message.ensemble_scheduling.step.add(model_name=name, model_version=-1)
        step.input_map.update({tensor: tensor for tensor in inputs})
        step.output_map.update({tensor: tensor for tensor in outputs})
    message.parameters[DIGEST].string_value = digest
    if settings.labels:
        message.parameters["labels"].string_value = json.dumps(settings.labels)
    return message


def _declare(message: Any, inputs: Tensors, outputs: Tensors) -> None:
    for name, (kind, shape) in inputs.items():
        message.input.add(name=name, data_type=f"TYPE_{kind}", dims=shape)
    for name, (kind, shape) in outputs.items():
        message.output.add(name=name, data_type=f"TYPE_{kind}", dims=shape)
