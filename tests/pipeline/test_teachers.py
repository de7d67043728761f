"""Teachers: recipes and folders of fine-tuned models, their logits computed once, and weak ones told of."""

import copy
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertModel, BertTokenizerFast

from optkit import Distill, Recipe, Training
from optkit.compression import checkpoint
from optkit.core import step_cache
from optkit.core.errors import InputError, MachineError
from optkit.models.loading import LoadedModel, inference
from optkit.models.tokenizers import fingerprint
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.train import trained
from optkit.pipeline.teachers import Teachers
from optkit.recipe.stage import BASELINE
from optkit.tasks import registry
from optkit.tasks.base import Task
from optkit.tasks.collate import run
from tests.conftest import saved
from tests.models.last_place import xlm


@pytest.fixture
def folder(tiny_model: LoadedModel, tmp_path: Path) -> Path:
    """A fine-tuned model as `save_pretrained` leaves it."""
    return saved(tiny_model, tmp_path / "big")


@pytest.fixture
def teachers(tiny_model: LoadedModel, tiny_task: Task, tmp_path: Path) -> Teachers:
    """The teachers of a spec whose baseline is the tiny model as it is."""

    def saved_once(recipe: Recipe, spec: RunSpec) -> Path:
        place = spec.folder(recipe)
        step_cache.step(place, {"recipe": recipe.name}, lambda unfinished: checkpoint.save(tiny_model, [], [], unfinished))
        return place

    return Teachers(RunSpec(tiny_task, None, 0, tmp_path / "checkpoints", {BASELINE: Recipe(name=BASELINE)}), saved_once)


def answers(loaded: LoadedModel, teachers: Teachers) -> np.ndarray:
    features, collator = teachers.spec.features("train", loaded.tokenizer), teachers.spec.collator(loaded.tokenizer)
    return np.stack(run(inference(loaded.model, teachers.spec.task), features, 32, collator))


def test_a_recipe_and_its_logits(teachers: Teachers, tiny_model: LoadedModel) -> None:
    assert np.array_equal(np.stack(teachers.logits(BASELINE)), answers(tiny_model, teachers))
    assert torch.equal(teachers.load(BASELINE).model.classifier.weight, tiny_model.model.classifier.weight)
    place = teachers.spec.folder(teachers.spec.baseline)
    assert teachers.key(BASELINE) == step_cache.content_at(place)
    assert (place / "teacher" / "logits.npz").is_file()


def test_a_recipe_of_another_seed(teachers: Teachers) -> None:
    """It lies in the folder of that seed, and its logits beside it."""
    other = f"{BASELINE}@3"
    assert np.array_equal(np.stack(teachers.logits(other)), np.stack(teachers.logits(BASELINE)))
    place = replace(teachers.spec, seed=3).folder(teachers.spec.baseline)
    assert (place / "teacher" / "logits.npz").is_file() and place.name == "seed-3"
    assert teachers.key(other) == step_cache.content_at(place)
    assert teachers.load(other).model.config.num_hidden_layers == 2
    assert teachers.key(f"{BASELINE}@0") == teachers.key(BASELINE)


def test_texts_without_labels_are_answered_after_the_training_examples(
    teachers: Teachers, tiny_model: LoadedModel, tiny_data: Path, tmp_path: Path
) -> None:
    before = teachers.logits(BASELINE)
    (tmp_path / "more.txt").write_text("the plot\na dull film")
    task = registry.load("classification", tiny_data, unlabelled=str(tmp_path / "more.txt"))
    found = replace(teachers, spec=replace(teachers.spec, task=task)).logits(BASELINE)
    assert len(found) == len(before) + 2 and np.array_equal(np.stack(found[: len(before)]), np.stack(before))
    tokens = tiny_model.tokenizer(["the plot", "a dull film"], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = tiny_model.model.eval()(**tokens).logits.numpy()
    assert np.allclose(np.stack(found[-2:]), expected, atol=1e-5)


def test_a_folder_and_its_logits_once_for_all(teachers: Teachers, folder: Path, tiny_model: LoadedModel) -> None:
    first = teachers.logits(str(folder))
    assert np.allclose(np.stack(first), answers(tiny_model, teachers), atol=1e-6)
    (place,) = (teachers.spec.root / "classification" / ".teachers").glob("big-*")
    written = (place / "logits.npz").stat().st_mtime_ns
    assert np.array_equal(np.stack(teachers.logits(str(folder))), np.stack(first))
    assert (place / "logits.npz").stat().st_mtime_ns == written
    assert not (folder / "record.json").exists(), "nothing is written into the user's folder"


def test_another_model_in_the_folder_is_another_teacher(teachers: Teachers, folder: Path, tiny_model: LoadedModel) -> None:
    key, first = teachers.key(str(folder)), teachers.logits(str(folder))
    other = copy.deepcopy(tiny_model.model)
    torch.nn.init.constant_(other.classifier.bias, 3.0)
    other.save_pretrained(folder)
    assert teachers.key(str(folder)) != key
    assert np.allclose(np.stack(teachers.logits(str(folder))), np.stack(first) + 3, atol=1e-5)


def test_another_length_is_another_answer(teachers: Teachers, folder: Path) -> None:
    whole, task = np.stack(teachers.logits(str(folder))), copy.copy(teachers.spec.task)
    task.limit_length(4)
    cut = replace(teachers, spec=replace(teachers.spec, task=task))
    assert not np.allclose(np.stack(cut.logits(str(folder))), whole)
    assert np.array_equal(np.stack(teachers.logits(str(folder))), whole)


def test_a_model_of_the_hub_is_told_by_its_commit(teachers: Teachers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(teachers.spec.root.parent)
    with pytest.raises(MachineError, match="--model nobody/nothing: not a folder here, and the hub does not give it"):
        teachers.key("nobody/nothing")


def test_names_of_one_model_are_told(teachers: Teachers, folder: Path, tiny_model: LoadedModel) -> None:
    """Two seeds are one where nothing was trained, and so is a folder with these weights."""
    same = f"teachers '{BASELINE}', '{BASELINE}@1', '{folder}' are one model, which counts 3 times"
    bias(folder.with_name("other"), tiny_model, [1.0, 0.0])
    other = str(folder.with_name("other"))
    assert teachers.copies([BASELINE, other, f"{BASELINE}@1", str(folder)]) == [same]
    assert teachers.copies([BASELINE, other]) == teachers.copies([BASELINE]) == []


def test_a_spec_of_another_seed_is_one(teachers: Teachers, tiny_model: LoadedModel) -> None:
    other = teachers.spec.of_seed(3)
    assert other is teachers.spec.of_seed(3) and other == replace(teachers.spec, seed=3)
    assert teachers.spec.of_seed(0) is teachers.spec
    assert other.features("train", tiny_model.tokenizer) is teachers.spec.features("train", tiny_model.tokenizer)


def test_two_folders_of_one_name_are_kept_apart(
    teachers: Teachers, folder: Path, tiny_model: LoadedModel, tmp_path: Path
) -> None:
    other = copy.deepcopy(tiny_model.model)
    torch.nn.init.constant_(other.classifier.bias, 3.0)
    other.save_pretrained(tmp_path / "elsewhere" / "big")
    tiny_model.tokenizer.save_pretrained(tmp_path / "elsewhere" / "big")
    both = [np.stack(teachers.logits(str(place))) for place in (folder, tmp_path / "elsewhere" / "big", folder)]
    assert np.array_equal(both[0], both[2]) and not np.allclose(both[0], both[1])
    assert len(list((teachers.spec.root / "classification" / ".teachers").glob("big-*/logits.npz"))) == 2


def test_a_folder_whose_answers_depend_on_padding(teachers: Teachers, folder: Path, tiny_model: LoadedModel) -> None:
    xlm(len(tiny_model.tokenizer)).save_pretrained(folder)
    with pytest.raises(InputError) as error:
        teachers.load(str(folder))
    assert str(error.value).startswith(
        f"teacher {str(folder)!r}: XLMForSequenceClassification is not supported: padding moves"
    )


def test_a_folder_without_a_head(teachers: Teachers, folder: Path, tiny_model: LoadedModel) -> None:
    BertModel(tiny_model.model.config).save_pretrained(folder)
    with pytest.raises(InputError) as error:
        teachers.load(str(folder))
    assert str(error.value) == f"teacher {str(folder)!r} has no head for classification; give one that was fine-tuned for it"


def test_a_folder_that_is_not_there(teachers: Teachers) -> None:
    with pytest.raises(InputError, match=r"^teacher '\./nowhere': no such folder"):
        teachers.load("./nowhere")


def bias(folder: Path, tiny_model: LoadedModel, value: list[float]) -> None:
    """Let the model in the folder answer with one class, whatever it reads."""
    model = copy.deepcopy(tiny_model.model)
    torch.nn.init.zeros_(model.classifier.weight)
    model.classifier.bias.data = torch.tensor(value)
    model.save_pretrained(folder)


def test_a_teacher_weaker_than_the_most_frequent_class(
    teachers: Teachers, folder: Path, tiny_model: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    features = teachers.spec.features("train", tiny_model.tokenizer)
    labels = features["labels"][:]
    good, bad = ([row for row, label in enumerate(labels) if label == wanted] for wanted in (1, 0))
    teachers.spec._encoded["train", fingerprint(tiny_model.tokenizer)] = features.select(sorted([*good[:96], *bad[:24]]))
    bias(folder, tiny_model, [1.0, 0.0])
    teachers.logits(str(folder))
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"teacher {folder} is right on 20.0 % of the training examples; always answering with the most frequent class "
        "would be on 80.0 %. Its students will learn its mistakes: train it for longer, or take another teacher"
    ]
    caplog.clear()
    bias(folder, tiny_model, [0.0, 1.0])
    teachers.logits(str(folder))
    assert not [record for record in caplog.records if record.levelno == logging.WARNING], "as good as it is good enough"


def test_a_teacher_reads_texts_by_its_own_tokenizer_and_length(
    teachers: Teachers, folder: Path, tiny_model: LoadedModel
) -> None:
    """Its words stand in another order, and it reads eight tokens."""
    teachers.spec.features("train", tiny_model.tokenizer)  # the student's are there already
    words = [word for word, _ in sorted(tiny_model.tokenizer.get_vocab().items(), key=lambda pair: pair[1])]
    turned = [*words[:5], *reversed(words[5:])]
    tokenizer = BertTokenizerFast(vocab={word: index for index, word in enumerate(turned)}, model_max_length=8)
    model = copy.deepcopy(tiny_model.model)
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table.copy_(table[[words.index(word) for word in turned]].clone())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    found = np.stack(teachers.logits(str(folder)))
    texts = teachers.spec.task.examples("train")["sentence"][:]
    feed = tiny_model.tokenizer(texts, truncation=True, max_length=8, padding=True, return_tensors="np")
    assert np.allclose(found, inference(tiny_model.model, teachers.spec.task)(feed), atol=1e-5)


def test_a_teacher_with_segments_gets_them(teachers: Teachers, folder: Path, tiny_model: LoadedModel) -> None:
    student = copy.deepcopy(tiny_model.tokenizer)
    student.model_input_names = ["input_ids", "attention_mask"]
    assert "token_type_ids" not in teachers.spec.features("train", student).column_names
    assert np.allclose(np.stack(teachers.logits(str(folder))), answers(tiny_model, teachers), atol=1e-6)
    assert "token_type_ids" in teachers.spec.features("train", teachers.load(str(folder)).tokenizer).column_names


def test_a_teacher_whose_classes_stand_in_another_order(teachers: Teachers, folder: Path, tiny_model: LoadedModel) -> None:
    expected = answers(tiny_model, teachers)
    tiny_model.model.config.id2label = {0: "GOOD", 1: "BAD"}
    tiny_model.model.config.save_pretrained(folder)
    assert np.allclose(np.stack(teachers.logits(str(folder))), expected[:, ::-1], atol=1e-6)
    tiny_model.model.config.id2label = {0: "x", 1: "y"}
    tiny_model.model.config.save_pretrained(folder)
    with pytest.raises(InputError, match=r"^teacher '\S+': .*the names do not tell which is which.*as for a teacher$"):
        teachers.load(str(folder))


@pytest.mark.slow
def test_a_student_of_two_seeds_and_of_texts_without_labels(
    tiny_data: Path, tiny_model: LoadedModel, tmp_path: Path
) -> None:
    """The other seed is trained when it is asked for; texts make another student, and leave the baseline as it is."""
    encoder = saved(replace(tiny_model, model=BertModel(tiny_model.model.config)), tmp_path / "encoder")
    baseline = Recipe(name=BASELINE, training=Training(steps=8, learning_rate=1e-3))
    stage = Distill(layers=1, steps=4, representation_epochs=0, teacher=[f"{BASELINE}@0", f"{BASELINE}@1"])
    student = Recipe(name="student", stages=[stage], training=baseline.training)
    (tmp_path / "more.txt").write_text("".join(f"the plot {n}\na dull film {n}\n" for n in range(20)))
    contents = []
    for more in (None, str(tmp_path / "more.txt")):
        task = registry.load("classification", tiny_data, unlabelled=more)
        spec = RunSpec(task, str(encoder), 0, tmp_path / "checkpoints", {BASELINE: baseline, "student": student})
        contents.append((step_cache.content_at(trained(student, spec)), step_cache.content_at(spec.folder(baseline))))
    assert {path.name for path in spec.folder(baseline).parent.iterdir()} >= {"seed-0", "seed-1"}
    assert contents[0][0] != contents[1][0] and contents[0][1] == contents[1][1]
    first, second = (np.stack(Teachers(spec, trained).logits(name)) for name in stage.teachers)
    assert len(first) == 256 + 40 and not np.allclose(first, second)
    assert not checkpoint.load(spec.folder(student), task).remarks
    twice = Recipe(name="twice", stages=[stage.model_copy(update={"teacher": (BASELINE, f"{BASELINE}@0")})])
    remarks = checkpoint.load(trained(twice.trained_with(baseline.training), spec), task).remarks
    assert remarks == [f"distill: teachers '{BASELINE}', '{BASELINE}@0' are one model, which counts 2 times"]
