"""Tensors of a checkpoint beyond the weights: each is used, known to be harmless, or refused by name.

Model Optimizer, pytorch-quantization and apex store scales and masks beside the weights; other tools store weights that
only they can read. transformers leaves out without a word what its model has no place for.
"""

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from optkit.core.errors import InputError
from optkit.models import shared_blocks, tensor_files, two_to_four

log = logging.getLogger(__name__)
AMAX_FILE, MASKS_FILE = "amax.safetensors", "masks.safetensors"
"""Files in which optkit's own checkpoints keep what came with the model."""
_OWN = (AMAX_FILE, MASKS_FILE)
_AMAX = re.compile(r"(?:(?P<module>.+)\.)?_?(?P<quantizer>\w+_quantizer)\._amax")
_MASK = re.compile(r"(?P<module>.+)\.(?P<kind>__weight_mma_mask|_weight_mask)")
_SMOOTH = re.compile(r"(?P<module>.+)\._?input_quantizer\._pre_quant_scale")
_FLOATS = {"F64", "F32", "F16", "BF16"}
_PACKED = (two_to_four.VALUES, two_to_four.INDICES, shared_blocks.CODES, shared_blocks.BLOCKS)
_HEADS = re.compile(
    r"(cls|lm_head|lm_predictions|mask_predictions|predictions|sop_classifier|mlm_head|nsp_head|pred_layer|decoder|head|"
    r"vocab_(transform|layer_norm|projector)|generator_(predictions|lm_head)|discriminator_predictions|qa_outputs|"
    r"qa_classifier|classifier|pre_classifier|score|sequence_summary|logits_proj)\."
)
"""Heads of other tasks, which a model for this one has no place for."""
_CLASSIFIERS = re.compile(r"(pre_classifier|classifier|score)\.")
"""Heads that tell classes: what a model that has one has no place for is a part of it, or another's."""
_HARMLESS = re.compile(r"(.+\.)?(position_ids|token_type_ids|inv_freq)|(.+\.)?pooler\..+")
"""Buffers that are computed, and a pooler whose output this head does not take."""
_MERGE = (
    "is of an adapter (LoRA and the like), which changes the weights; merge it: "
    "PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained(merged)"
)
_DEQUANTISE = "is of weights that are quantised already; give the float model that they were made from"
_OTHERS = {
    re.compile(
        r"(.*\.)?(lora_\w+|ia3_\w+|hada_\w+|oft_\w+|vera_\w+|base_layer|modules_to_save|adapters?|prompt_\w+)(\..*)?"
    ): _MERGE,
    re.compile(
        r".*\.(qweight|qzeros|scales|g_idx|absmax|quant_map|nested_absmax|nested_quant_map|quant_state|SCB|weight_format|"
        r"weight_(packed|scale|shape|scale_inv|zero_point|g_idx)|input_scale)(\..*)?"
    ): _DEQUANTISE,
    re.compile(r".*_quantizer\..*"): (
        "is of a quantiser, and of its settings only _amax and an input's _pre_quant_scale are known; save the float model"
    ),
}
"""Names that other tools give, and what they are."""


@dataclass
class Extras:
    """What a checkpoint has besides weights under their own names."""

    amax: dict[str, torch.Tensor] = field(default_factory=dict)
    """Scales, {quantiser's name: amax}."""
    masks: dict[str, torch.Tensor] = field(default_factory=dict)
    """2:4 masks, {Linear's name: [out, in]}."""
    weights: set[str] = field(default_factory=set)
    """Names of the model's weights that were stored in another form."""


def check_adapter(folder: Path, source: str) -> None:
    """Raise `InputError` if a folder holds an adapter."""
    if (folder / "adapter_config.json").is_file():
        raise InputError(f"--model {source}: adapter_config.json {_MERGE}")


def check_config(config: Any, source: str) -> None:
    """Raise `InputError` if a configuration says that the weights are quantised."""
    if settings := getattr(config, "quantization_config", None):
        method = settings.get("quant_method", "unknown") if isinstance(settings, Mapping) else type(settings).__name__
        raise InputError(f"--model {source}: quantization_config ({method}) in its config.json {_DEQUANTISE}")


def take(folder: Path, model: PreTrainedModel, unexpected: Iterable[str], source: str) -> Extras:
    """Take from a folder what is not stored as a weight of the model: scales, masks, and weights in half the space.

    Model Optimizer's masks and SmoothQuant's scales, which its own forward applies, are multiplied into the weights.

    Args:
        folder: with the checkpoint.
        model: has the folder's weights; changed in place.
        unexpected: names that transformers found no place for.
        source: name of the checkpoint, for messages.

    Raises:
        InputError: naming tensors that are for nothing, for modules that the model lacks, or no float weights.
    """
    places = _Places(model)
    weights = tensor_files.files(folder)
    beside = [path for path in sorted(folder.glob("*.safetensors")) if path not in weights and path.name not in _OWN]
    stored = [tensor_files.types(paths) for paths in (weights, beside)]
    _check_types(stored[0], source)
    _account({*stored[0], *unexpected}, set(unexpected), places, source)
    _account_beside(beside, set(stored[0]), source)
    if (folder / "modelopt_state.pth").is_file():
        log.warning("%s: modelopt_state.pth is a pickle and is not read; tensors in *.safetensors are", source)
    tensors = {name: tensor for path in (*weights, *beside) for name, tensor in tensor_files.read(path, _is_tool).items()}
    packed = _unpack(tensors, places, source)  # before what changes weights
    extras = Extras(_scales(tensors, places, source), _masks(tensors, places, source), packed)
    if _smooth(tensors, places, source) and extras.amax:
        log.warning("%s: its scales were made for activations smoothed by SmoothQuant, and are left out", source)
        extras.amax = {}
    for path, found in ((folder / AMAX_FILE, extras.amax), (folder / MASKS_FILE, extras.masks)):
        if path.is_file():
            found.update(tensor_files.read(path))
    return extras


class _Places:
    """Where a model keeps what a checkpoint names with the base model's prefix or without it."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.prefix = model, f"{model.base_model_prefix}."
        self.modules, self.state = dict(model.named_modules()), model.state_dict()
        self.ignored = [re.compile(pattern) for pattern in model._keys_to_ignore_on_load_unexpected or ()]

    def key(self, name: str) -> str | None:
        """Return the name of the model's tensor that a stored one is; None if it is none under these names."""
        renamed = re.sub(r"\.beta$", ".bias", re.sub(r"\.gamma$", ".weight", name))
        return next((one for own in (name, renamed) for one in self._names(own) if one in self.state), None)

    def module(self, name: str) -> str | None:
        """Return the name of the model's module that a checkpoint names."""
        return next((one for one in self._names(name) if one in self.modules), None)

    def linear(self, name: str, tensor: str, source: str) -> nn.Linear:
        """Return the Linear module that a tensor of a checkpoint is for."""
        found = self.modules.get(self.module(name) or "")
        if not isinstance(found, nn.Linear):
            raise InputError(f"--model {source}: {tensor} is for {name}, and the model has no such Linear module")
        return found

    def ignores(self, name: str) -> bool:
        """Return whether transformers leaves a tensor out without a word."""
        return any(pattern.search(name) for pattern in self.ignored)

    def _names(self, name: str) -> tuple[str, ...]:
        return name, self.prefix + name, name.removeprefix(self.prefix)


def _is_tool(name: str) -> bool:
    """Return whether a tensor is one of those beside the weights that are used."""
    return name.endswith(_PACKED) or any(pattern.fullmatch(name) for pattern in (_AMAX, _MASK, _SMOOTH))


def _check_types(types: Mapping[str, str], source: str) -> None:
    """Raise `InputError` if a weight is no float."""
    if wrong := [name for name, kind in types.items() if name.endswith(("weight", "bias")) and kind not in _FLOATS]:
        raise InputError(f"--model {source}: {listed(wrong)} ({types[wrong[0]]}) {_DEQUANTISE}")


def _account(names: Collection[str], unexpected: Collection[str], places: _Places, source: str) -> None:
    """Raise `InputError` if a stored tensor is for nothing; say which are left out as harmless."""
    used = {name: key for name in names if (key := places.key(name)) is not None and name not in unexpected}
    if twice := [key for key, count in Counter(used.values()).items() if count > 1]:
        raise InputError(f"--model {source}: {listed(twice)} are stored twice, with the base model's prefix and without it")
    left = [name for name in sorted(names) if name not in used and not _is_tool(name)]
    for pattern, what in _OTHERS.items():
        if found := [name for name in left if pattern.fullmatch(name)]:
            raise InputError(f"--model {source}: {listed(found)} {what}")
    heads = [name for name in left if _HEADS.match(name.removeprefix(places.prefix))]
    _account_head(heads, used.values(), places, source)
    harmless = [name for name in left if name not in heads and (_HARMLESS.fullmatch(name) or places.ignores(name))]
    if lost := [name for name in left if name in unexpected and name not in (*heads, *harmless)]:
        raise InputError(
            f"--model {source}: the model of its config.json has no place for {listed(lost)}; nothing is left out without "
            "knowing what it is. Correct config.json, or save the model again without them"
        )
    if unused := [name for name in (*heads, *harmless) if name in unexpected or places.ignores(name)]:
        groups = Counter(re.match(r"(cls\.)?[^.]+", name.removeprefix(places.prefix))[0] for name in unused)  # type: ignore[index]
        parts = ", ".join(f"{group} ({count})" for group, count in groups.items())
        log.info("%s: tensors of other heads that this one does not take are left out: %s", source, parts)


def _account_head(heads: Iterable[str], used: Collection[str], places: _Places, source: str) -> None:
    """Raise `InputError` if a model's own classifier is whole and a part of it has no place; warn where it is another's."""
    own = [key for key in places.state if _CLASSIFIERS.match(key)]
    left = [name for name in heads if own and _CLASSIFIERS.match(name.removeprefix(places.prefix))]
    if not left:
        return
    kind = type(places.model).__name__
    if set(own) <= set(used):
        raise InputError(
            f"--model {source}: its head has {listed(left)}, for which {kind} has no place: it would answer otherwise "
            "without. Correct architectures and model_type in config.json, or save the model without them"
        )
    log.warning("%s: its head (%s) is another than %s has, and is left out", source, listed(left), kind)


def _account_beside(beside: Iterable[Path], stored: Collection[str], source: str) -> None:
    """Raise `InputError` if a file beside the weights has tensors of its own that are for nothing."""
    for path in beside:
        names = {name for name in tensor_files.types([path]) if not _is_tool(name)}
        for pattern, what in _OTHERS.items():
            if found := [name for name in names if pattern.fullmatch(name)]:
                raise InputError(f"--model {source}: {path.name}: {listed(found)} {what}")
        if lost := sorted(names.difference(stored)):
            raise InputError(f"--model {source}: {path.name} beside the weights has {listed(lost)}; move it elsewhere")
        if names:
            log.warning("%s: %s is not read, as the same tensors are in the weights", source, path.name)


def _scales(tensors: Mapping[str, torch.Tensor], places: _Places, source: str) -> dict[str, torch.Tensor]:
    """Return the scales by the model's own names, without those of other heads."""
    found, lost = {}, []
    for name, tensor in tensors.items():
        if (match := _AMAX.fullmatch(name)) is None:
            continue
        if (module := places.module(match["module"] or "")) is not None:
            found[f"{module}.{match['quantizer']}".lstrip(".")] = tensor.float()
        elif not _HEADS.match(name):
            lost.append(name)
    if lost:
        raise InputError(f"--model {source}: {listed(lost)} are scales for modules that the model does not have")
    return found


def _masks(tensors: Mapping[str, torch.Tensor], places: _Places, source: str) -> dict[str, torch.Tensor]:
    """Return the masks by the model's own names, after Model Optimizer's, whose weights are dense, were applied."""
    found = {}
    for name, tensor in tensors.items():
        if (match := _MASK.fullmatch(name)) is None or (_HEADS.match(name) and places.module(match["module"]) is None):
            continue
        linear = places.linear(match["module"], name, source)
        if tensor.shape != linear.weight.shape:
            raise InputError(
                f"--model {source}: {name} has shape {list(tensor.shape)}, its weight {list(linear.weight.shape)}"
            )
        found[str(places.module(match["module"]))] = tensor.bool()
        if match["kind"] == "_weight_mask":
            with torch.no_grad():
                linear.weight.mul_(tensor)
    return found


def _smooth(tensors: Mapping[str, torch.Tensor], places: _Places, source: str) -> bool:
    """Multiply SmoothQuant's scales [in] of inputs into the weights, which were divided by them; return whether any are."""
    found = [(name, match["module"]) for name in tensors if (match := _SMOOTH.fullmatch(name))]
    for name, module in found:
        linear = places.linear(module, name, source)
        if tensors[name].numel() != linear.in_features:
            raise InputError(f"--model {source}: {name} has {tensors[name].numel()} scales, expected {linear.in_features}")
        with torch.no_grad():
            linear.weight.mul_(tensors[name].float().reshape(1, -1))
    return bool(found)


def _unpack(tensors: Mapping[str, torch.Tensor], places: _Places, source: str) -> set[str]:
    """Give the model the weights that optkit stores in less space; return their names."""
    packed = {name: tensor for name, tensor in tensors.items() if name.endswith(_PACKED)}
    found = {}
    for name, tensor in shared_blocks.restore(two_to_four.restore(packed)).items():
        key = places.key(name)
        if key is None or places.state[key].shape != tensor.shape:
            raise InputError(
                f"--model {source}: {name} {list(tensor.shape)}: the model of its config.json has no such weight"
            )
        found[key] = tensor
    with torch.no_grad():
        for key, tensor in found.items():
            places.state[key].copy_(tensor)
    return set(found)


def listed(names: Collection[str]) -> str:
    """Return the first of the names, and how many there are."""
    first = ", ".join(sorted(names)[:4])
    return first if len(names) <= 4 else f"{first}, … ({len(names)} tensors)"
