"""Models: what is loaded, what is refused and in which words, and that no code of a checkpoint's own ever runs."""

import copy
import json
import pickle
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)
from transformers import BertForSequenceClassification as Bert
from transformers.activations import ACT2FN

from optkit import Quantize
from optkit.compression import checkpoint, quantizers
from optkit.core.errors import InputError
from optkit.models import families, loading, tensor_files
from optkit.models.families import encoder_linears, prunable
from optkit.models.gelu import ClippedGELU, clip_gelu
from optkit.models.layers import Layers
from optkit.models.loading import LoadedModel, inference
from optkit.tasks.base import Task
from optkit.tasks.data.tables import Table
from optkit.tasks.regression import Regression
from tests.models.conftest import Refusal, edit_json, edit_weights


class Malicious:
    """Unpickling it leaves a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return Path.touch, (self.trace,)


def test_weights_come_back_as_they_were_saved(folder: Path, tiny_model: LoadedModel, tiny_task: Task) -> None:
    loaded = loading.load(str(folder), tiny_task)
    for name, tensor in tiny_model.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name
    assert loaded.fine_tuned and loaded.amax == {}
    assert loaded.tokenizer("lovely film")["input_ids"] == tiny_model.tokenizer("lovely film")["input_ids"]


def test_weights_of_half_precision_become_float32(folder: Path, tiny_model: LoadedModel, tiny_task: Task) -> None:
    tiny_model.model.half().save_pretrained(folder)
    assert loading.load(str(folder), tiny_task).model.dtype == torch.float32


def test_a_model_without_the_tasks_head_is_not_fine_tuned(folder: Path, tiny_model: LoadedModel, tiny_task: Task) -> None:
    BertForMaskedLM(tiny_model.model.config).save_pretrained(folder)  # has no pooler either
    loaded = loading.load(str(folder), tiny_task)
    assert not loaded.fine_tuned
    assert (loaded.model.config.num_labels, loaded.model.config.id2label) == (2, {0: "bad", 1: "good"})


def test_a_bare_encoder_is_not_fine_tuned(folder: Path, tiny_model: LoadedModel, tiny_task: Task) -> None:
    BertModel(tiny_model.model.config).save_pretrained(folder)
    assert not loading.load(str(folder), tiny_task).fine_tuned


def test_what_another_head_was_for_is_not_kept(folder: Path, tiny_model: LoadedModel) -> None:
    tiny_model.model.config.problem_type = "single_label_classification"  # as a model called with labels has it
    BertModel(tiny_model.model.config).save_pretrained(folder)
    table = Table("rows", {"text": ["bad film", "lovely film"], "label": [1.0, 2.0]}, range(1, 3), "row")
    task = Regression("regression", {"train": table, "dev": table})
    loaded = loading.load(str(folder), task)
    assert (loaded.model.config.problem_type, loaded.model.config.num_labels) == (None, 1)
    loaded.model.save_pretrained(folder)
    assert loading.load(str(folder), task).fine_tuned
    tiny_model.model.save_pretrained(folder)
    with pytest.raises(
        InputError, match="its head has 2 classes, the task has 1; give the model that was fine-tuned for this task"
    ):
        loading.load(str(folder), task)


def test_an_unknown_folder(tmp_path: Path, tiny_task: Task) -> None:
    message = r"--model \S+/nowhere: no such folder; expected one with config\.json and model\.safetensors"
    with pytest.raises(InputError, match=message):
        loading.load(str(tmp_path / "nowhere"), tiny_task)


def test_no_weights(folder: Path, refusal: Refusal) -> None:
    (folder / "model.safetensors").unlink()
    assert refusal() == f"--model {folder}: no *.safetensors in it; expected a folder saved by save_pretrained"


def test_no_config(folder: Path, refusal: Refusal) -> None:
    (folder / "config.json").unlink()
    assert refusal() == f"--model {folder}: no config.json in it; expected a folder saved by save_pretrained"


def test_no_tokenizer(folder: Path, refusal: Refusal) -> None:
    (folder / "tokenizer.json").unlink()
    assert refusal().startswith(f"--model {folder}: no tokenizer in it (tokenizer.json, vocab.txt, …); save it there with")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl", "weights.pth", "last.ckpt"])
def test_a_pickle_is_refused_and_never_read(name: str, folder: Path, refusal: Refusal, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Malicious(tmp_path / "trace")))
    message = refusal()
    assert f"{name} is a pickle, which can run code when it is read; expected model.safetensors." in message
    assert "safe_serialization=True" in message
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "training_args.bin", "optimizer.pt", "vocab.pkl"])
def test_a_pickle_beside_the_weights_is_never_read(name: str, folder: Path, tiny_task: Task, tmp_path: Path) -> None:
    (folder / name).write_bytes(pickle.dumps(Malicious(tmp_path / "trace")))
    assert loading.load(str(folder), tiny_task).fine_tuned
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(InputError, match=r"no model\.safetensors in it; if other\.safetensors is the model, rename it"):
        loading.load(str(folder), tiny_task)
    assert not (tmp_path / "trace").exists()


def test_the_malicious_pickle_would_work(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Malicious(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("model_type", ["bert", "mine"])
def test_code_in_the_folder_never_runs_even_if_agreed_to(
    model_type: str, folder: Path, tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "mine.py").write_text(
        f"open({str(tmp_path / 'trace')!r}, 'w')\n"
        "import transformers\n"
        "class C(transformers.BertConfig): pass\n"
        "class M(transformers.BertForSequenceClassification): pass\n"
        "class T(transformers.BertTokenizerFast): pass\n"
    )
    own = {"AutoConfig": "mine.C", "AutoModelForSequenceClassification": "mine.M", "AutoTokenizer": [None, "mine.T"]}
    edit_json(folder / "config.json", model_type=model_type, auto_map=own)
    edit_json(folder / "tokenizer_config.json", tokenizer_class="T", auto_map=own)
    monkeypatch.setattr("builtins.input", lambda question="": "y")
    with suppress(InputError):
        loading.load(str(folder), tiny_task)
    assert not (tmp_path / "trace").exists()
    if model_type == "mine":
        with pytest.raises(InputError, match=r"--model \S+: cannot be loaded: .*custom code"):
            loading.load(str(folder), tiny_task)


def test_weights_cut_off(folder: Path, refusal: Refusal) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    said = "model.safetensors is damaged, or was not written to its end (incomplete metadata, file not fully covered; it has"
    assert refusal().startswith(f"--model {folder}: {said} 5,000 bytes); download it again")


def test_weights_of_noise(folder: Path, refusal: Refusal) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 5000)
    assert refusal().startswith(f"--model {folder}: model.safetensors is damaged, or was not written to its end (header too")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"model": {"type": "zzz"}, "model_type": "zzz"}', "\0\1"])
def test_a_broken_description(name: str, content: str, folder: Path, refusal: Refusal) -> None:
    (folder / name).write_text(content)
    assert str(folder) in refusal()


def test_missing_tensors_of_the_encoder_are_not_drawn_at_random(folder: Path, refusal: Refusal) -> None:
    edit_weights(folder, lambda tensors: tensors.pop("bert.encoder.layer.1.output.dense.weight"))
    assert "bert.encoder.layer.1.output.dense.weight" in refusal()


def test_a_head_with_other_classes(folder: Path, tiny_model: LoadedModel, refusal: Refusal) -> None:
    config = BertConfig(**{**tiny_model.model.config.to_dict(), "id2label": dict(enumerate("abc")), "num_labels": 3})
    Bert(config).save_pretrained(folder)
    message = refusal()
    assert "its head has 3 classes, the task has 2 (bad, good)" in message


def answers(loaded: LoadedModel, task: Task) -> np.ndarray:
    """Logits of a few texts, [texts, classes]."""
    return inference(loaded.model, task)(loaded.tokenizer(["a lovely film", "this dull plot"], return_tensors="np"))


@pytest.mark.parametrize(
    ("names", "labels"),
    [(["good", "bad"], None), (["GOOD", "Bad "], None), (["g", "b"], None), (["LABEL_0", "LABEL_1"], ["good", "bad"])],
)
def test_a_head_whose_classes_stand_in_another_order(
    names: list[str], labels: list[str] | None, folder: Path, tiny_task: Task, tiny_model: LoadedModel
) -> None:
    edit_json(folder / "config.json", id2label=dict(enumerate(names)), label2id=dict(zip(names, (0, 1), strict=True)))
    loaded = loading.load(str(folder), tiny_task, labels=labels)
    assert np.array_equal(answers(loaded, tiny_task), answers(tiny_model, tiny_task)[:, ::-1])
    served = ["bad", "good"] if labels else [names[1], names[0]]
    assert loaded.model.config.id2label == dict(enumerate(served)), "the names are the model's own"
    assert loaded.model.config.label2id == {name: index for index, name in enumerate(served)}


def test_a_head_whose_classes_have_no_names(folder: Path, tiny_task: Task, refusal: Refusal) -> None:
    edit_json(folder / "config.json", id2label={"0": "LABEL_0", "1": "LABEL_1"}, label2id={"LABEL_0": 0, "LABEL_1": 1})
    assert "its head's classes are LABEL_0, LABEL_1 (id2label in config.json), the data's are bad, good" in refusal()
    assert "--labels bad,good" in refusal()
    loaded = loading.load(str(folder), tiny_task, labels=("bad", "good"))
    assert loaded.model.config.id2label == {0: "bad", 1: "good"}


def test_labels_for_a_head_that_is_not_there(folder: Path, tiny_model: LoadedModel, tiny_task: Task) -> None:
    BertModel(tiny_model.model.config).save_pretrained(folder)
    with pytest.raises(InputError, match=r"--labels bad,good: \S+ has no head with classes yet"):
        loading.load(str(folder), tiny_task, labels=["bad", "good"])


def test_a_model_in_memory_whose_classes_stand_in_another_order(tiny_model: LoadedModel, tiny_task: Task) -> None:
    tiny_model.model.config.id2label = {0: "good", 1: "bad"}
    with pytest.raises(InputError, match=r"its head's classes are good, bad \(config\.id2label\), the task's are bad, good"):
        loading.loaded_model(tiny_model.model, tiny_task, tiny_model.tokenizer)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("place", ["file", "config", "both"])
def test_any_type_of_weights_becomes_float32_everywhere(
    place: str, kind: torch.dtype, folder: Path, tiny_task: Task, tmp_path: Path
) -> None:
    if place != "config":
        edit_weights(folder, lambda tensors: tensors.update({name: one.to(kind) for name, one in tensors.items()}))
    if place != "file":
        edit_json(folder / "config.json", dtype=str(kind).removeprefix("torch."))
    loaded, shape = loading.load(folder, tiny_task), loading.architecture(folder, tiny_task)
    assert {one.dtype for model in (loaded.model, shape.model) for one in model.state_dict().values()} <= {
        torch.float32,
        torch.int64,
    }
    expected = {name: tensor.float() for name, tensor in tensor_files.tensors(folder).items()}
    assert all(torch.equal(loaded.model.state_dict()[name], tensor) for name, tensor in expected.items())
    (tmp_path / "saved").mkdir()
    checkpoint.save(loaded, [], [], tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["dtype"] == "float32"
    again = checkpoint.load(tmp_path / "saved", tiny_task)
    assert np.array_equal(answers(again, tiny_task), answers(loaded, tiny_task))


def test_a_checkpoint_that_announces_half_precision_is_read_in_float32(
    folder: Path, tiny_model: LoadedModel, tiny_task: Task
) -> None:
    checkpoint.save(tiny_model, [], [], folder)
    edit_json(folder / "config.json", dtype="float16")
    assert checkpoint.load(folder, tiny_task).model.dtype == torch.float32


@pytest.mark.parametrize("sharded", [False, True])
def test_half_precision_without_the_base_models_prefix(
    sharded: bool, folder: Path, tiny_model: LoadedModel, tiny_task: Task
) -> None:
    base = copy.deepcopy(tiny_model.model.bert).half()
    (folder / "model.safetensors").unlink()
    base.save_pretrained(folder, max_shard_size="20KB" if sharded else "1GB")
    assert sharded == (folder / "model.safetensors.index.json").is_file()
    loaded = loading.load(folder, tiny_task)
    assert not loaded.fine_tuned and loaded.model.dtype == torch.float32
    for name, tensor in base.state_dict().items():
        assert torch.equal(loaded.model.bert.state_dict()[name], tensor.float() if tensor.is_floating_point() else tensor)


def test_weights_that_are_not_finite(folder: Path, refusal: Refusal) -> None:
    edit_weights(folder, lambda tensors: tensors["classifier.bias"].fill_(float("inf")))
    assert refusal() == f"--model {folder}: 1 tensors hold NaN or infinity: classifier.bias"


def test_scales_of_pytorch_quantization_are_read_and_applied(folder: Path, tiny_model: LoadedModel, tiny_task: Task) -> None:
    scales: dict[str, torch.Tensor] = {}

    def add(tensors: dict[str, torch.Tensor]) -> None:
        generator = torch.Generator().manual_seed(1)
        for name, linear in encoder_linears(tiny_model.model).items():
            scales[f"{name}._input_quantizer._amax"] = torch.rand((), generator=generator) + 0.1
            scales[f"{name}._weight_quantizer._amax"] = torch.rand(linear.out_features, 1, generator=generator) + 0.1
        tensors.update(scales)
        tensors["bert.encoder.layer.0.attention.self.matmul_q_input_quantizer._amax"] = torch.tensor(1.0)

    edit_weights(folder, add)
    loaded = loading.load(str(folder), tiny_task)
    assert torch.equal(
        loaded.amax["bert.encoder.layer.1.attention.self.query.input_quantizer"],
        scales["bert.encoder.layer.1.attention.self.query._input_quantizer._amax"],
    )
    quantizers.insert(loaded.model, Quantize())
    quantizers.load_amax(loaded.model, loaded.amax)
    found = quantizers.quantisers(loaded.model)
    assert len(found) == len(scales) == 24
    for name, quantiser in found.items():
        linear, _, kind = name.rpartition(".")
        assert torch.equal(quantiser.amax, scales[f"{linear}._{kind}._amax"]), name


def quantisers(model: LoadedModel) -> list[str]:
    return [f"{name}.{kind}_quantizer" for name in encoder_linears(model.model) for kind in ("input", "weight")]


def test_scales_of_model_optimizer_are_read_too(folder: Path, tiny_model: LoadedModel, tiny_task: Task) -> None:
    names = quantisers(tiny_model)
    edit_weights(folder, lambda tensors: tensors.update({f"{name}._amax": torch.tensor(0.5) for name in names}))
    assert sorted(loading.load(str(folder), tiny_task).amax) == sorted(names)


def test_scales_that_are_not_all_there_are_refused_when_the_model_is_read(folder: Path, refusal: Refusal) -> None:
    name = "bert.encoder.layer.0.attention.self.query.weight_quantizer"
    edit_weights(folder, lambda tensors: tensors.update({f"{name}._amax": torch.full((32, 1), 0.5)}))
    assert "has scales of 1 quantisers and none for 23 of the 24 that its encoder would have" in refusal()


@pytest.mark.parametrize("value", [float("nan"), -1.0, 0.0])
def test_scales_that_are_no_scales_are_refused(
    value: float, folder: Path, tiny_model: LoadedModel, refusal: Refusal
) -> None:
    names = quantisers(tiny_model)
    scales = {f"{name}._amax": torch.tensor(value if name == names[3] else 0.5) for name in names}
    edit_weights(folder, lambda tensors: tensors.update(scales))
    assert f"scales that are not finite and positive: {names[3]}; calibrate again" in refusal()


def test_a_part_of_a_head_is_no_head_and_not_trained_over(folder: Path, refusal: Refusal) -> None:
    edit_weights(folder, lambda tensors: tensors.pop("classifier.bias"))
    assert "of its head classifier.bias is missing, and classifier.weight is there" in refusal()


def test_a_pointer_of_git_lfs_is_no_model(folder: Path, refusal: Refusal) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "model.safetensors is a pointer of Git LFS, not the weights; git lfs pull" in refusal()


def test_clipped_gelu_by_hand() -> None:
    values = torch.tensor([-100.0, -1.0, 0.0, 1.0, 9.0, 10.0, 11.0, 1e4])
    expected = [0.0, -0.158655, 0.0, 0.841345, 9.0, 10.0, 10.0, 10.0]  # x * Phi(x), bounded by 10
    assert ClippedGELU(10.0)(values).tolist() == pytest.approx(expected, abs=1e-6)


def test_clipping_reaches_every_layer_and_changes_the_model(tiny_model: LoadedModel, tiny_task: Task) -> None:
    before = inference(tiny_model.model, tiny_task)(tiny_model.tokenizer(["a lovely film"], return_tensors="np"))
    assert clip_gelu(tiny_model.model, 0.05) == 2
    after = inference(tiny_model.model, tiny_task)(tiny_model.tokenizer(["a lovely film"], return_tensors="np"))
    assert not np.array_equal(before, after)
    assert all(layer.intermediate.intermediate_act_fn.clip == 0.05 for layer in tiny_model.model.bert.encoder.layer)


def test_clipping_wants_a_gelu(tiny_model: LoadedModel) -> None:
    relu = Bert(BertConfig(**{**tiny_model.model.config.to_dict(), "hidden_act": "relu"}))
    message = r"gelu_clip=10: BertForSequenceClassification has hidden_act 'relu' in 2 feed-forward blocks; expected a GELU"
    with pytest.raises(InputError, match=message):
        clip_gelu(relu, 10.0)


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python"])
def test_clipping_keeps_the_functions_own_formula(activation: str, tiny_model: LoadedModel) -> None:
    other = Bert(BertConfig(**{**tiny_model.model.config.to_dict(), "hidden_act": activation}))
    assert clip_gelu(other, 1.5) == 2
    values = torch.linspace(-5, 5, 101)
    clipped = other.bert.encoder.layer[0].intermediate.intermediate_act_fn
    assert torch.allclose(clipped(values), ACT2FN[activation](values).clamp(max=1.5), atol=1e-6)


@pytest.mark.parametrize("activation", ["silu", "quick_gelu", "gelu_10"])
def test_clipping_does_not_replace_another_function(activation: str, tiny_model: LoadedModel) -> None:
    other = Bert(BertConfig(**{**tiny_model.model.config.to_dict(), "hidden_act": activation}))
    with pytest.raises(InputError, match=rf"has hidden_act '{activation}' in 2 feed-forward blocks; expected a GELU"):
        clip_gelu(other, 10.0)


def test_clipping_reaches_another_family() -> None:
    config = DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64, vocab_size=20, max_position_embeddings=16)
    model = DistilBertForSequenceClassification(config)
    assert clip_gelu(model, 10.0) == 2
    assert all(isinstance(layer.ffn.activation, ClippedGELU) for layer in model.distilbert.transformer.layer)


def test_positions_of_roberta_start_after_the_padding(tiny_model: LoadedModel) -> None:
    config = RobertaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, max_position_embeddings=18)
    assert families.longest_input(RobertaForSequenceClassification(config)) == 16
    assert families.longest_input(tiny_model.model) == 16


def test_the_linears_of_the_encoder(tiny_model: LoadedModel) -> None:
    assert list(encoder_linears(tiny_model.model)) == [
        f"bert.encoder.layer.{layer}.{part}"
        for layer in range(2)
        for part in (
            *("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
            *("intermediate.dense", "output.dense"),
        )
    ]


def test_the_linears_of_another_family() -> None:
    config = DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64, vocab_size=20, max_position_embeddings=16)
    names = list(encoder_linears(DistilBertForSequenceClassification(config)))
    assert len(names) == 12
    assert all(name.startswith("distilbert.transformer.layer.") for name in names)


def test_inference_gives_float32_logits_without_dropout(tiny_model: LoadedModel, tiny_task: Task) -> None:
    tiny_model.model.bert.embeddings.dropout.p = 0.5
    infer = inference(tiny_model.model.train(), tiny_task)
    feed = tiny_model.tokenizer(["a lovely film", "this dull plot"], return_tensors="np")
    assert infer(feed).shape == (2, 2) and infer(feed).dtype == np.float32
    assert np.array_equal(infer(feed), infer(feed))


def test_a_sharded_model_is_one_model(folder: Path, tiny_model: LoadedModel, tiny_task: Task) -> None:
    shutil.rmtree(folder)
    tiny_model.model.save_pretrained(folder, max_shard_size="20KB")
    tiny_model.tokenizer.save_pretrained(folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert set(tensor_files.tensors(folder)) == set(tiny_model.model.state_dict())
    assert loading.load(str(folder), tiny_task).fine_tuned


def test_an_architecture_is_what_would_be_loaded_without_weights(
    folder: Path, tiny_task: Task, tiny_model: LoadedModel
) -> None:
    found = loading.architecture(str(folder), tiny_task)
    assert all(parameter.is_meta for parameter in found.model.parameters())
    assert {name: tensor.shape for name, tensor in found.model.state_dict().items()} == {
        name: tensor.shape for name, tensor in tiny_model.model.state_dict().items()
    }
    assert found.tokenizer.get_vocab() == tiny_model.tokenizer.get_vocab()


def test_an_architecture_needs_no_readable_weights(folder: Path, tiny_task: Task) -> None:
    (folder / "model.safetensors").write_bytes(b"")
    assert loading.architecture(str(folder), tiny_task).model.config.hidden_size == 32
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"--model \S+: no config\.json in it"):
        loading.architecture(str(folder), tiny_task)


def test_masks_of_apex_are_read(folder: Path, tiny_model: LoadedModel, tiny_task: Task) -> None:
    """ASP registers a buffer `__weight_mma_mask` beside each weight, in the weight's type."""
    name = "bert.encoder.layer.1.output.dense"
    mask = torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(32, 16)

    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{name}.__weight_mma_mask"] = mask.half()

    edit_weights(folder, add)
    loaded = loading.load(str(folder), tiny_task)
    assert list(loaded.masks) == [name] and loaded.amax == {}
    assert torch.equal(loaded.masks[name], mask.bool())
    assert torch.equal(loaded.model.get_submodule(name).weight, tiny_model.model.get_submodule(name).weight)


def test_the_linears_that_can_be_sparse(tiny_model: LoadedModel) -> None:
    assert list(prunable(tiny_model.model)) == list(encoder_linears(tiny_model.model))
    narrow = Bert(BertConfig(**{**tiny_model.model.config.to_dict(), "intermediate_size": 40}))  # 5 × 8, not 2.5 × 16
    assert set(encoder_linears(narrow)) - set(prunable(narrow)) == {f"bert.encoder.layer.{i}.output.dense" for i in (0, 1)}


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("bert.encoder.layer.11.output.dense.weight", 11),
        ("distilbert.transformer.layer.0.ffn.lin1.bias", 0),
        ("model.layers.3.self_attn.q_proj.weight", 3),
        ("bert.pooler.dense.weight", None),
        ("classifier.weight", None),
    ],
)
def test_the_layer_of_a_name(name: str, index: int | None) -> None:
    assert Layers.among([name]).number(name) == index
