"""What a folder of sentence-transformers says: taken as its own library takes it, or refused by name."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from sentence_transformers import SentenceTransformer
from transformers import BertModel

from optkit.core.errors import InputError
from optkit.graph import reference
from optkit.graph.export_onnx import export_onnx
from optkit.models import loading
from optkit.tasks import sentence_folder
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.registry import load, of_settings, task_of

from .sentence_models import encoder, sentence_model, write

TEXTS = ["the cat sat on the mat", "a dog ran", "red"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    rows = [
        "sentence1,sentence2,score",
        f"{TEXTS[0]},{TEXTS[1]},0.5",
        f"{TEXTS[1]},{TEXTS[2]},0",
        f"{TEXTS[2]},{TEXTS[0]},1",
    ]
    for split in ("train", "dev"):
        (folder / f"{split}.csv").write_text("\n".join(rows))
    return folder


def vectors(model: loading.LoadedModel, texts: list[str]) -> np.ndarray:
    return loading.inference(model.model, model.task)(dict(model.tokenizer(texts, padding=True, return_tensors="np")))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_vectors_and_graph_are_those_of_sentence_transformers(
    data: Path, tmp_path: Path, pooling: str, normalize: bool
) -> None:
    folder = sentence_model(tmp_path / "model", pooling, normalize)
    model = loading.load(folder, load("embedding", data))
    assert model.fine_tuned and model.tokenizer.model_max_length == 24
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    assert np.allclose(vectors(model, TEXTS), expected, atol=1e-6)
    graph = export_onnx(model, tmp_path / "graph")
    feed = dict(model.tokenizer(TEXTS, padding="max_length", max_length=24, return_tensors="np"))
    assert np.allclose(reference.infer(reference.load(graph), feed), expected, atol=1e-5)
    (output,) = onnx.load(str(graph)).graph.output
    assert [one.dim_value or one.dim_param for one in output.type.tensor_type.shape.dim] == ["batch", 32]
    operators = {node.op_type for node in onnx.load(str(graph)).graph.node}
    assert ("ReduceL2" in operators) == normalize and not operators & {"IsNaN", "Where", "If"}


def test_the_first_dimensions_are_those_that_sentence_transformers_cuts(data: Path, tmp_path: Path) -> None:
    folder = sentence_model(tmp_path / "model")
    task = of_settings("embedding", DataSettings(str(data), options={"dimensions": "16"}))
    model = loading.load(folder, task)
    expected = SentenceTransformer(str(folder), device="cpu", truncate_dim=16).encode(TEXTS, normalize_embeddings=True)
    assert np.allclose(vectors(model, TEXTS), expected, atol=1e-6)


def test_a_folder_may_state_how_many_dimensions_are_kept(data: Path, tmp_path: Path) -> None:
    folder = sentence_model(tmp_path / "model", truncate_dim=16)
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, normalize_embeddings=True)
    assert expected.shape[1] == 16
    assert np.allclose(vectors(loading.load(folder, load("embedding", data)), TEXTS), expected, atol=1e-6)
    whole = of_settings("embedding", DataSettings(str(data), options={"dimensions": "32"}))
    assert vectors(loading.load(folder, whole), TEXTS).shape[1] == 32


def test_vectors_that_are_compared_by_dot_products_are_cut_after_their_normalisation(data: Path, tmp_path: Path) -> None:
    folder = sentence_model(tmp_path / "model", truncate_dim=16, similarity_fn_name="dot")
    model = loading.load(folder, load("embedding", data))
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    assert (np.linalg.norm(expected, axis=1) < 0.99).all()
    assert np.allclose(vectors(model, TEXTS), expected, atol=1e-6)
    assert sentence_folder.by_dot(model.tokenizer)
    graph = export_onnx(model, tmp_path / "graph")
    feed = dict(model.tokenizer(TEXTS, padding="max_length", max_length=24, return_tensors="np"))
    assert np.allclose(reference.infer(reference.load(graph), feed), expected, atol=1e-5)


def test_a_folder_of_the_newest_library_is_read(data: Path, tmp_path: Path) -> None:
    """With all the settings that it writes by itself."""
    SentenceTransformer(str(sentence_model(tmp_path / "model")), device="cpu").save_pretrained(str(tmp_path / "again"))
    model = loading.load(tmp_path / "again", load("embedding", data))
    assert model.model.config.sentence_embedding["normalize"] and sentence_folder.prompts_of(model.tokenizer) == {}


def test_modules_of_others_are_refused(data: Path, tmp_path: Path) -> None:
    folder = sentence_model(tmp_path / "model")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "custom_st.Pooling"
    write(folder / "modules.json", modules)
    with pytest.raises(InputError, match=r"'custom_st.Pooling' is none of sentence-transformers' own"):
        loading.load(folder, load("embedding", data))


def test_prompts_that_are_empty_may_be_left_out_of_the_pooling(data: Path, tmp_path: Path) -> None:
    folder = sentence_model(tmp_path / "model", prompts={"query": "", "document": ""})
    write(folder / "1_Pooling" / "config.json", {"pooling_mode": "mean", "include_prompt": False})
    assert loading.load(folder, load("embedding", data)).fine_tuned
    task = of_settings("embedding", DataSettings(str(data), options={"query": "query: "}))
    with pytest.raises(InputError, match="include_prompt is false"):
        loading.load(folder, task)


def test_older_folders_name_their_pooling_by_flags(tmp_path: Path) -> None:
    folder = sentence_model(tmp_path / "model")
    write(folder / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    assert sentence_folder.read(folder).pooling == "cls"


@pytest.mark.parametrize(
    ("prompts", "default"),
    [
        ({"query": "query: ", "document": "passage: "}, "query"),
        ({"title": "title: "}, "title"),
        ({"query": "query: "}, None),
    ],
)
def test_prompts_are_found_as_sentence_transformers_finds_them(
    prompts: dict[str, str], default: str | None, data: Path, tmp_path: Path
) -> None:
    folder = sentence_model(tmp_path / "model", prompts=prompts, default_prompt_name=default)
    model = loading.load(folder, load("embedding", data))
    prompts = sentence_folder.prompts_of(model.tokenizer)
    theirs = SentenceTransformer(str(folder), device="cpu")
    for role, encode in (("query", theirs.encode_query), ("document", theirs.encode_document), ("", theirs.encode)):
        ours = vectors(model, [sentence_folder.prompt(prompts, role) + text for text in TEXTS])
        assert np.allclose(ours, encode(TEXTS), atol=1e-6), role


def test_a_folder_of_a_graph_has_the_prompts_of_its_model(data: Path, tmp_path: Path) -> None:
    stated = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "query", "similarity_fn_name": "dot"}
    folder = sentence_model(tmp_path / "model", normalize=False, **stated)
    model = loading.load(folder, load("embedding", data))
    files = sentence_folder.files(32, model.tokenizer)
    assert files["config_sentence_transformers.json"] == stated
    assert files["sentence_bert_config.json"]["max_seq_length"] == 24


def test_a_folder_of_a_graph_names_the_prompts_that_the_library_looks_for(data: Path, tmp_path: Path) -> None:
    folder = sentence_model(tmp_path / "model", prompts={"query": "query: ", "passage": "passage: "})
    model = loading.load(folder, load("embedding", data))
    stated = sentence_folder.files(32, model.tokenizer)["config_sentence_transformers.json"]
    assert stated["prompts"] == {"query": "query: ", "passage": "passage: ", "document": "passage: "}


def test_an_encoder_alone_is_trained_first(data: Path, tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model")
    task = of_settings("embedding", DataSettings(str(data), options={"pooling": "cls"}))
    model = loading.load(folder, task)
    assert not model.fine_tuned and model.model.config.sentence_embedding["pooling"] == "cls"
    assert isinstance(model.model.base_model, BertModel)
    with pytest.raises(InputError, match="no task has its head"):
        task_of(model.model)
    model.model.save_pretrained(tmp_path / "own")
    model.tokenizer.save_pretrained(tmp_path / "own")
    again = loading.load(tmp_path / "own", task)
    assert again.fine_tuned and task_of(again.model) is type(task)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"1_Pooling/config.json": {"pooling_mode": "max"}}, "its pooling is max; expected one of mean, cls, last"),
        ({"1_Pooling/config.json": {"pooling_mode": ["cls", "mean"]}}, "its pooling is cls and mean"),
        ({"1_Pooling/config.json": {"pooling_mode": 3}}, "expected text"),
        (
            {"config_sentence_transformers.json": {"similarity_fn_name": "euclidean"}},
            "is 'euclidean', expected one of cosine, dot",
        ),
        ({"config_sentence_transformers.json": {"model_type": "SparseEncoder"}}, "model_type is 'SparseEncoder'"),
        (
            {"config_sentence_transformers.json": {"prompts": {"a": "b"}, "default_prompt_name": "c"}},
            "default_prompt_name is 'c', which is none of its prompts (a)",
        ),
        (
            {
                "config_sentence_transformers.json": {"prompts": {"query": "query: "}},
                "1_Pooling/config.json": {"pooling_mode": "mean", "include_prompt": False},
            },
            "include_prompt is false",
        ),
        ({"sentence_bert_config.json": {"query_length": 8}}, "query_length is 8, which graphs do not compute"),
        ({"sentence_bert_config.json": {"processing_kwargs": {"text": {"max_length": 8}}}}, "processing_kwargs is {'text'"),
        ({"sentence_bert_config.json": {"max_seq_length": -1}}, "max_seq_length is -1, expected 8 tokens or more"),
        ({"sentence_bert_config.json": {"max_seq_length": 2}}, "max_seq_length is 2, expected 8 tokens or more"),
        ({"config_sentence_transformers.json": {"truncate_dim": 0}}, "truncate_dim is 0, expected 1 or more"),
        ({"config_sentence_transformers.json": {"tasks": ["a"]}}, "tasks is ['a'], which graphs do not compute"),
    ],
)
def test_what_a_graph_does_not_compute_is_refused(data: Path, tmp_path: Path, change: dict, message: str) -> None:
    folder = sentence_model(tmp_path / "model")
    for name, content in change.items():
        write(folder / name, content)
    task = load("embedding", data)
    with pytest.raises(InputError) as caught:
        loading.load(folder, task)
    assert message in str(caught.value)


def test_texts_in_small_letters_are_what_the_tokenizer_makes_of_them(data: Path, tmp_path: Path) -> None:
    folder = sentence_model(tmp_path / "model")
    write(folder / "sentence_bert_config.json", {"do_lower_case": True})
    assert loading.load(folder, load("embedding", data)).fine_tuned
    settings = json.loads((folder / "tokenizer.json").read_text())
    settings["normalizer"]["lowercase"] = False
    write(folder / "tokenizer.json", settings)
    write(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": 32},
    )
    with pytest.raises(InputError, match="do_lower_case is true, and its tokenizer tells capitals apart"):
        loading.load(folder, load("embedding", data))


@pytest.mark.parametrize(
    ("kind", "path", "message"),
    [
        ("Dense", "1_Dense", "its modules are Transformer, Pooling, Dense; expected"),
        ("Normalize", "", None),
    ],
)
def test_modules_are_known_or_refused(data: Path, tmp_path: Path, kind: str, path: str, message: str | None) -> None:
    folder = sentence_model(tmp_path / "model", normalize=False)
    modules = json.loads((folder / "modules.json").read_text())
    write(
        folder / "modules.json",
        [*modules, {"idx": 2, "name": "2", "path": path, "type": f"sentence_transformers.models.{kind}"}],
    )
    if message is None:
        assert loading.load(folder, load("embedding", data)).model.config.sentence_embedding["normalize"]
        return
    with pytest.raises(InputError, match=message):
        loading.load(folder, load("embedding", data))


def test_paths_stay_within_the_folder(tmp_path: Path) -> None:
    folder = sentence_model(tmp_path / "model")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = "../other"
    write(folder / "modules.json", modules)
    with pytest.raises(InputError, match="leads out of the folder"):
        sentence_folder.read(folder)
    modules[1]["path"], modules[0]["path"] = "1_Pooling", "0_Transformer"
    write(folder / "modules.json", modules)
    with pytest.raises(InputError, match="its Transformer lies in 0_Transformer/"):
        sentence_folder.read(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "cls"}, "pooling=cls: .* says mean; leave it out"),
        ({"dimensions": "64"}, "dimensions=64: vectors of .* have 32; give fewer"),
        ({"dimensions": "12", "vectors": "binary"}, "12 dimensions are no multiple of 8"),
        ({"dimensions": "0"}, "dimensions=0: expected a whole number from 1 on"),
        ({"pooling": "max"}, "--task-option pooling=max: expected vectors=float32 or int8 or binary"),
        ({"vector": "int8"}, "--task-option vector=int8: expected"),
    ],
)
def test_options_that_do_not_fit_are_refused(data: Path, tmp_path: Path, options: dict, message: str) -> None:
    folder = sentence_model(tmp_path / "model")
    with pytest.raises(InputError, match=message):
        loading.load(folder, of_settings("embedding", DataSettings(str(data), options=options)))
