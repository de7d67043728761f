"""Whatever lies in the place of a model's files is loaded, or refused by its name: never a traceback, never a hang."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from optkit.core.errors import MachineError, OptkitError
from optkit.models import config_door, loading
from optkit.models.loading import LoadedModel, inference
from optkit.tasks.base import Task
from optkit.tasks.collate import Collator, run
from tests import damage
from tests.conftest import saved
from tests.models.conftest import Refusal, edit_json, edit_weights

FIELDS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size", "hidden_act"),
    *("max_position_embeddings", "type_vocab_size", "id2label", "label2id", "num_labels", "pad_token_id", "architectures"),
    *("chunk_size_feed_forward", "output_attentions", "output_hidden_states", "return_dict", "torchscript", "is_decoder"),
    *("hidden_dropout_prob", "layer_norm_eps", "initializer_range", "classifier_dropout", "position_embedding_type"),
    *("model_type", "dtype", "tie_word_embeddings", "problem_type", "quantization_config", "pruned_heads"),
)
TOLD = (
    *("model_max_length", "cls_token", "sep_token", "pad_token", "unk_token", "tokenizer_class", "model_input_names"),
    *("added_tokens_decoder", "padding_side", "truncation_side", "do_lower_case", "extra_special_tokens", "auto_map"),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole")


@st.composite
def edits(draw: st.DrawFn) -> Callable[[Path], str]:
    """A function that damages one file of a folder and returns its name."""
    name = draw(
        st.sampled_from(["config.json", "config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors"])
    )
    fields = {"config.json": FIELDS, "tokenizer_config.json": TOLD}.get(name)
    seed = draw(st.randoms(use_true_random=False))
    field, odd = draw(st.sampled_from(fields or [""])), draw(damage.values.map(json.dumps))

    def edit(folder: Path) -> str:
        path = folder / name
        if fields and seed.random() < 0.7:
            path.write_text(json.dumps({**json.loads(path.read_text()), field: "ODD"}).replace('"ODD"', odd))
        else:
            path.write_bytes(_spliced(path.read_bytes(), seed.random(), odd.encode()))
        return name

    return edit


def _spliced(content: bytes, where: float, piece: bytes) -> bytes:
    start = int(where * len(content))
    return content[:start] + piece + content[start + len(piece) // 2 :]


@pytest.mark.slow
@pytest.mark.doors
@given(edit=edits())
def test_any_model_is_loaded_or_refused_by_its_name(
    edit: Callable[[Path], str], whole: Path, tiny_config, tiny_tokenizer, tiny_task: Task
) -> None:
    if not any(whole.iterdir()):
        saved(loading.new(copy.deepcopy(tiny_config), tiny_tokenizer, tiny_task), whole)
    folder = whole.parent / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    edit(folder)
    try:
        loaded = loading.load(str(folder), tiny_task)
        features = tiny_task.encode("dev", loaded.tokenizer).select(range(2))
        run(inference(loaded.model, tiny_task), features, 2, Collator.of(tiny_task, loaded.tokenizer))
    except OptkitError as error:
        assert damage.is_told(error, folder)
    assert torch.get_default_device() == torch.device("cpu")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_hidden_layers": 2**63}, "num_hidden_layers is 9223372036854775808, expected 0 to 256"),
        ({"hidden_size": 2**40}, "hidden_size is 1099511627776, expected 1 to 16777216"),
        ({"num_labels": 10**9}, "num_labels is 1000000000, expected -2147483647 to 65536"),
        ({"more": {"block_sizes": [4, 10**6]}}, "block_sizes is 1000000, expected -2147483647 to 1024"),
        ({"hidden_act": "swish_of_mine"}, "the activation 'swish_of_mine' is not known; it is one of gelu"),
        ({"label2id": {"bad": 1, "good": 0}}, "'bad' is row 0 by id2label and row 1 by label2id"),
    ],
)
def test_a_configuration_beyond_its_bounds_is_refused(fields: dict, said: str, folder: Path, refusal: Refusal) -> None:
    edit_json(folder / "config.json", **fields)
    assert f"{folder}/config.json: {said}" in refusal()


def test_a_model_larger_than_the_machine_is_refused_before_it_is_made(folder: Path, tiny_task: Task) -> None:
    edit_json(folder / "config.json", vocab_size=2**24, hidden_size=2**20, intermediate_size=2**20)
    for load in (loading.load, loading.architecture):
        with pytest.raises(MachineError, match=r"parameters by its config\.json, which are [\d,.]+ GB in float32"):
            load(str(folder), tiny_task)


def test_fields_that_change_no_logits_are_legal(folder: Path, tiny_task: Task, tiny_model: LoadedModel) -> None:
    plain = loading.load(str(folder), tiny_task)
    odd = {"chunk_size_feed_forward": 3, "output_attentions": True, "output_hidden_states": True, "return_dict": False}
    edit_json(folder / "config.json", **odd)
    other = loading.load(str(folder), tiny_task)
    feed = dict(tiny_model.tokenizer(["lovely film"], return_tensors="np"))
    assert (inference(other.model, tiny_task)(feed) == inference(plain.model, tiny_task)(feed)).all()
    assert not other.model.config.output_attentions
    in_memory = type(plain.model).from_pretrained(folder)
    config_door.make_plain(in_memory)
    assert (inference(in_memory, tiny_task)(feed) == inference(plain.model, tiny_task)(feed)).all()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_weights_saved_with_their_wrapper_are_refused_by_it(prefix: str, folder: Path, refusal: Refusal) -> None:
    edit_weights(folder, lambda tensors: tensors.update({prefix + name: tensors.pop(name) for name in [*tensors]}))
    assert f"all its tensors are named {prefix}…" in refusal()
    assert f"model.{prefix}save_pretrained(folder)" in refusal()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.json", "{}", "tokenizer.json is no tokenizer (KeyError: 'added_tokens'); save it again"),
        ("tokenizer_config.json", "[]", "tokenizer_config.json: the whole is an array, expected an object"),
        ("tokenizer_config.json", '{"model_max_length": "x"}', 'model_max_length is "x", expected a number'),
        ("tokenizer_config.json", "[" * 100_000, "tokenizer_config.json: not JSON (more than 64 levels of brackets)"),
        ("config.json", "[]", "config.json: the whole is an array, expected an object"),
    ],
)
def test_a_broken_file_is_named(name: str, content: str, said: str, folder: Path, refusal: Refusal) -> None:
    (folder / name).write_text(content)
    assert said in refusal()


def test_special_tokens_outside_of_the_vocabulary_are_refused(folder: Path, refusal: Refusal) -> None:
    edit_json(folder / "tokenizer_config.json", sep_token="[NOWHERE]")
    assert "its special tokens [NOWHERE] are not in tokenizer.json; take the tokenizer" in refusal()
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    (folder / "vocab.txt").write_text("film\nplot\n")
    assert "its special tokens [UNK], [CLS], [SEP], [PAD] are not in vocab.txt" in refusal()


@pytest.mark.parametrize("limit", [-1, 0, 1e30])
def test_a_tokenizer_without_a_limit_has_the_models(limit: float, folder: Path, tiny_task: Task) -> None:
    edit_json(folder / "tokenizer_config.json", model_max_length=limit)
    loaded = loading.load(str(folder), tiny_task)
    assert loaded.tokenizer.model_max_length == 16
    assert max(tiny_task.encode("dev", loaded.tokenizer)["length"]) <= 16


def test_an_index_names_files_beside_it_alone(folder: Path, refusal: Refusal, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    save_file({}, tmp_path / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    assert "names the file '../outside.safetensors', expected names of files beside it" in refusal()
