"""What can be done with a model, told before anything is trained: the same checks as before a run, with what they found."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from optkit.core.errors import InputError
from optkit.engines.tensorrt import model_check
from optkit.engines.tensorrt.model_check import Finding
from optkit.graph.logits import input_names
from optkit.graph.onnx_file import LARGEST
from optkit.models import families, loading
from optkit.models.loading import LoadedModel
from optkit.pipeline import preflight
from optkit.pipeline.run_spec import RunSpec

Parts = dict[str, list[Finding]]
USABLE, IN_PART, UNUSABLE = 0, 1, 2
"""Exit status: every recipe applies, only some do, or the model cannot be used at all."""
_BYTES = 4


def examine(spec: RunSpec) -> tuple[Parts, int]:
    """Look at a model without its weights, and at every recipe that is known.

    Args:
        spec: the model, the task it is looked at for, and the recipes.

    Returns:
        What was found, by part, and the exit status: `USABLE`, `IN_PART` or `UNUSABLE`.
    """
    found, start = list[Finding](), None
    try:
        start = spec.architecture()
        found.extend(_model(start, spec))
    except InputError as error:
        refused = Finding("model", "cannot be used", False, str(error))
        return {"model": [*found, refused], "TensorRT": list(_tensorrt(spec, start))}, UNUSABLE
    recipes = list(_recipes(start, spec))
    status = USABLE if all(finding.fine for finding in recipes) else IN_PART
    return {"model": found, "recipes": recipes, "TensorRT": list(_tensorrt(spec, start))}, status


def _model(start: LoadedModel, spec: RunSpec) -> Iterator[Finding]:
    """Yield what is found of the model; what the last finding says includes that it can be used at all."""
    config, found = start.model.config, families.layers_of(start.model)
    yield Finding("family", str(config.model_type))
    yield Finding("layers", f"{families.depth(config)}, in {', '.join(sorted(found.lists)) or 'no list of modules'}")
    yield Finding("Linear modules", _linears(start))
    takes, gives = input_names(start.model), start.tokenizer.model_input_names
    yield Finding("inputs", f"the graph takes {', '.join(takes)}; the tokenizer gives {', '.join(gives)}")
    rows = families.word_embeddings(start.model).shape[0]
    yield Finding("token ids", f"{len(start.tokenizer)} tokens, {rows} rows in the embedding table")
    yield Finding("longest input", f"{loading.max_length(start, spec.task)} tokens, for the task {spec.task.name}")
    yield Finding("size", _size(start))
    preflight.check_model(start, spec)
    yield Finding("graph", "a tiny copy of the architecture is exported, and computes what PyTorch does")


def _linears(start: LoadedModel) -> str:
    """Tell how many Linear modules the encoder has, by role."""
    family = families.family_of(start.model.config)
    roles = Counter(family.role(name) or "other" for name in families.encoder_linears(start.model))
    return f"{roles.total()} in the encoder: " + ", ".join(f"{count} {role}" for role, count in roles.items())


def _size(start: LoadedModel) -> str:
    count = sum(parameter.numel() for parameter in start.model.parameters())
    size = f"{count / 1e6:,.1f} M parameters, {count * _BYTES / 1e9:.2f} GB in float32"
    return f"{size}: over 2 GB, so that weights lie in a file beside each graph" if count * _BYTES >= LARGEST else size


def _recipes(start: LoadedModel, spec: RunSpec) -> Iterator[Finding]:
    reasons = preflight.why_not([*spec.recipes.values()], start, spec)
    for name in spec.recipes:
        reason = reasons.get(name, "")
        yield Finding(name, "does not apply" if reason else "applies", not reason, reason)


def _tensorrt(spec: RunSpec, start: LoadedModel | None) -> Iterator[Finding]:
    """Yield what TensorRT can do with the model; of a folder also with the graph in it."""
    folder = Path(spec.model or "").expanduser()
    try:
        if spec.model and os.path.isdir(folder):
            yield from model_check.of_model(folder)
        elif start is not None:
            yield from model_check.of_config(start.model.config.to_dict())
    except InputError as error:
        yield Finding("sizes", "cannot be told", False, str(error))
