"""Tensors beside the weights: used, known to be harmless, or refused by name."""

import contextlib
import copy
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import BertForPreTraining, BertForSequenceClassification

from optkit import Quantize, Sparsify
from optkit.compression import checkpoint, pruning, quantizers
from optkit.core.errors import InputError
from optkit.models import families, loading, two_to_four
from optkit.models.loading import LoadedModel, inference
from optkit.tasks.base import Task
from tests.models.conftest import Refusal, Tensors, edit_json, edit_weights

LINEAR = "bert.encoder.layer.0.attention.self.query"
TEXTS = ["a lovely film", "this dull plot", "the story with a cast"]


def answers(loaded: LoadedModel, task: Task) -> np.ndarray:
    return inference(loaded.model, task)(loaded.tokenizer(TEXTS, padding=True, return_tensors="np"))


def without_prefix(tensors: Tensors) -> None:
    """Rename all tensors of the encoder as a bare encoder has them."""
    for name in [name for name in tensors if name.startswith("bert.")]:
        tensors[name.removeprefix("bert.")] = tensors.pop(name)


@pytest.mark.parametrize("name", ["pre_classifier.weight", "classifier.temperature", "score.weight"])
def test_a_part_of_a_head_that_has_no_place_is_refused(name: str, folder: Path, refusal: Refusal) -> None:
    def add(tensors: Tensors) -> None:
        tensors[name] = torch.ones(2, 2)

    edit_weights(folder, add)
    assert f"its head has {name}, for which BertForSequenceClassification has no place" in refusal()


@pytest.mark.parametrize("other", ["classifier.out_proj", "score"])
def test_a_head_of_another_kind_is_said(other: str, folder: Path, tiny_task: Task, caplog: pytest.LogCaptureFixture) -> None:
    def rename(tensors: Tensors) -> None:
        for part in ("weight", "bias"):
            tensors[f"{other}.{part}"] = tensors.pop(f"classifier.{part}")

    edit_weights(folder, rename)
    assert not loading.load(folder, tiny_task).fine_tuned
    assert f"its head ({other}.bias, {other}.weight) is another than BertForSequenceClassification has" in caplog.text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.default.weight", "merge_and_unload()"),
        (f"{LINEAR}.lora_B.weight", "merge_and_unload()"),
        (f"{LINEAR}.base_layer.weight", "merge_and_unload()"),
        (f"{LINEAR}.qweight", "quantised already"),
        (f"{LINEAR}.weight.absmax", "quantised already"),
        (f"{LINEAR}.weight.quant_state.bitsandbytes__nf4", "quantised already"),
        (f"{LINEAR}.SCB", "quantised already"),
        (f"{LINEAR}.weight_scale", "quantised already"),
        (f"{LINEAR}.weight_quantizer._scale", "only _amax and an input's _pre_quant_scale are known"),
        (f"{LINEAR}.output_quantizer._pre_quant_scale", "only _amax and an input's _pre_quant_scale are known"),
        ("bert.encoder.layer.9.output.dense.weight", "has no place for"),
        ("encoder.layer.9.output.dense.weight", "has no place for"),
        ("something.else", "has no place for"),
        ("bert.encoder.layer.9.output.dense.input_quantizer._amax", "are scales for modules that the model does not have"),
        ("bert.encoder.layer.9.output.dense._weight_mask", "has no such Linear module"),
        ("bert.encoder.layer.9.output.dense.__weight_mma_mask", "has no such Linear module"),
        ("bert.encoder.layer.9.output.dense.input_quantizer._pre_quant_scale", "has no such Linear module"),
    ],
)
def test_a_tensor_that_nobody_uses_is_refused_by_name(name: str, said: str, folder: Path, refusal: Refusal) -> None:
    edit_weights(folder, lambda tensors: tensors.update({name: torch.ones(4)}))
    message = refusal()
    assert message.startswith(f"--model {folder}: ") and name in message and said in message


def test_many_are_counted(folder: Path, refusal: Refusal) -> None:
    edit_weights(folder, lambda tensors: tensors.update({f"odd.{index}": torch.ones(1) for index in range(9)}))
    assert "odd.0, odd.1, odd.2, odd.3, … (9 tensors)" in refusal()


def test_integers_are_no_weights(folder: Path, refusal: Refusal) -> None:
    edit_weights(folder, lambda tensors: tensors.update({f"{LINEAR}.weight": torch.ones(32, 32, dtype=torch.int8)}))
    assert f"{LINEAR}.weight (I8) is of weights that are quantised already" in refusal()


def test_a_tensor_stored_twice(folder: Path, refusal: Refusal) -> None:
    name = f"{LINEAR}.weight"
    edit_weights(folder, lambda tensors: tensors.update({name.removeprefix("bert."): tensors[name] * 2}))
    assert f"{name} are stored twice" in refusal()


@pytest.mark.parametrize("whose", ["adapter_config.json", "quantization_config"])
def test_an_adapter_and_quantised_weights_are_known_by_their_settings(whose: str, folder: Path, refusal: Refusal) -> None:
    if whose == "adapter_config.json":
        (folder / whose).write_text("{}")
        assert "merge_and_unload()" in refusal()
    else:
        edit_json(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
        assert "quantization_config (gptq) in its config.json is of weights that are quantised already" in refusal()


def test_an_adapter_alone(folder: Path, refusal: Refusal) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text("{}")
    assert "merge" in refusal()


def test_files_beside_the_weights(folder: Path, tiny_task: Task, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "model.fp16.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    loading.load(folder, tiny_task)
    assert "model.fp16.safetensors is not read, as the same tensors are in the weights" in caplog.text
    save_file({"extra.weight": torch.ones(1)}, folder / "extra.safetensors")
    with pytest.raises(InputError, match=r"extra\.safetensors beside the weights has extra\.weight; move it elsewhere"):
        loading.load(folder, tiny_task)
    (folder / "extra.safetensors").unlink()
    save_file({"base_model.model.x.lora_A.weight": torch.ones(1)}, folder / "adapter_model.safetensors")
    with pytest.raises(
        InputError, match=r"adapter_model\.safetensors: base_model\.model\.x\.lora_A\.weight is of an adapter"
    ):
        loading.load(folder, tiny_task)


def test_heads_of_other_tasks_are_harmless_and_said(
    folder: Path, tiny_model: LoadedModel, tiny_task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "optkit")
    pretrained = BertForPreTraining(tiny_model.model.config)
    pretrained.save_pretrained(folder)
    edit_weights(folder, lambda tensors: tensors.update({"qa_outputs.weight": torch.ones(2, 32)}))
    loaded = loading.load(folder, tiny_task)
    assert not loaded.fine_tuned
    assert torch.equal(loaded.model.bert.pooler.dense.weight, pretrained.bert.pooler.dense.weight)
    assert "left out: cls.predictions (5), cls.seq_relationship (2), qa_outputs (1)" in caplog.text


def test_a_pickle_of_model_optimizer_is_not_read_and_said(
    folder: Path, tiny_task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "modelopt_state.pth").write_bytes(b"no pickle at all")
    loading.load(folder, tiny_task)
    assert "modelopt_state.pth is a pickle and is not read" in caplog.text


def scales_of(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    """A scale for each quantiser that the encoder would have."""
    names = families.encoder_linears(loaded.model)
    return {f"{name}.{kind}_quantizer": torch.tensor(2.5) for name in names for kind in ("input", "weight")}


@pytest.mark.parametrize("prefixed", [True, False])
def test_scales_and_masks_with_the_prefix_and_without(
    prefixed: bool, folder: Path, tiny_model: LoadedModel, tiny_task: Task
) -> None:
    mask = torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(32, 8)

    scales = scales_of(tiny_model)

    def add(tensors: Tensors) -> None:
        for name, scale in scales.items():
            linear, _, quantizer = name.rpartition(".")
            tensors[f"{linear}._{quantizer}._amax"] = scale.half()
        tensors[f"{LINEAR}.__weight_mma_mask"] = mask
        tensors[f"{LINEAR.replace('query', 'key')}._weight_mask"] = mask.bool()
        if not prefixed:
            without_prefix(tensors)

    edit_weights(folder, add)
    loaded = loading.load(folder, tiny_task)
    assert loaded.amax == scales
    assert set(loaded.masks) == {LINEAR, LINEAR.replace("query", "key")}
    attention, expected = loaded.model.bert.encoder.layer[0].attention.self, tiny_model.model.bert.encoder.layer[0].attention
    assert torch.equal(attention.query.weight, expected.self.query.weight), "apex has pruned the weight itself"
    assert torch.equal(attention.key.weight, expected.self.key.weight * mask), "Model Optimizer's weights are dense"


def modelopt(model: BertForSequenceClassification, task: Task, what: str, texts: object) -> BertForSequenceClassification:
    """Let Model Optimizer quantise or prune a model."""
    import modelopt.torch.quantization as mtq
    import modelopt.torch.sparsity as mts

    with contextlib.redirect_stdout(io.StringIO()):
        if what == "2:4":
            rules = {"nn.Linear": {"*classifier*": None, "*": {}}}
            return mts.sparsify(model, [("sparse_magnitude", rules)], {"verbose": False})
        mtq.quantize(model, getattr(mtq, what), lambda module: module(**texts))  # type: ignore[arg-type]
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", ["INT8_DEFAULT_CFG", "INT8_SMOOTHQUANT_CFG", "2:4"])
def test_checkpoints_of_model_optimizer_answer_as_they_did(
    what: str, folder: Path, tiny_model: LoadedModel, tiny_task: Task
) -> None:
    with torch.no_grad():
        for layer in tiny_model.model.bert.encoder.layer:
            layer.output.LayerNorm.weight[3] = layer.attention.output.LayerNorm.weight[3] = 6.0
    before = answers(tiny_model, tiny_task)
    texts = tiny_model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    made = modelopt(copy.deepcopy(tiny_model.model).eval(), tiny_task, what, texts)
    with torch.no_grad():
        theirs = made(**texts).logits.numpy()
    save_file(
        {name: one.contiguous().clone() for name, one in made.state_dict().items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    loaded = loading.load(folder, tiny_task)
    if what == "2:4":
        assert np.abs(theirs - before).max() > 0.05, "the masks change the model"
        assert np.allclose(answers(loaded, tiny_task), theirs, atol=1e-6)
        assert len(two_to_four.sparse_linears(families.encoder_linears(loaded.model))) == 12
        pruning.apply_masks(loaded.model, loaded.masks)
        Sparsify().check(loaded.model, "by the masks of the checkpoint")
    else:
        assert np.allclose(answers(loaded, tiny_task), before, atol=1e-5), "the float model that was quantised"
        quantizers.insert(loaded.model, Quantize())
        if what == "INT8_DEFAULT_CFG":
            quantizers.load_amax(loaded.model, loaded.amax)
            for name, quantiser in quantizers.quantisers(loaded.model).items():
                assert torch.equal(quantiser.amax.flatten(), made.get_submodule(name).amax.flatten()), name
        else:
            assert loaded.amax == {}, "made for other activations"


def test_a_baseline_of_optkit_is_a_model_to_start_from(folder: Path, tiny_model: LoadedModel, tiny_task: Task) -> None:
    tiny_model.amax = scales_of(tiny_model)
    tiny_model.masks = {LINEAR: torch.ones(32, 32, dtype=torch.bool)}
    pruning.prune(tiny_model.model, "magnitude", lambda model: None)
    checkpoint.save(tiny_model, [], [], folder)
    loaded = loading.load(folder, tiny_task)
    assert loaded.fine_tuned and loaded.amax == tiny_model.amax and set(loaded.masks) == {LINEAR}
    for name, tensor in tiny_model.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name


def test_a_later_checkpoint_of_optkit_says_that_its_weights_alone_are_taken(
    folder: Path, tiny_model: LoadedModel, tiny_task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint.save(tiny_model, [Sparsify(epochs=0)], [], folder)
    loading.load(folder, tiny_task)
    assert "a checkpoint after sparsify; its float weights are taken" in caplog.text


def test_the_index_says_which_files_are_weights(folder: Path, tiny_model: LoadedModel, tiny_task: Task) -> None:
    (folder / "model.safetensors").unlink()
    tiny_model.model.save_pretrained(folder, max_shard_size="20KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    last = max(index["weight_map"].values())
    (folder / last).rename(folder / "elsewhere.safetensors")
    with pytest.raises(InputError, match=rf"1 of the \d files with weights that \S+ names are not there \({last}\)"):
        loading.load(folder, tiny_task)
