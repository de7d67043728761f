"""What a run says before it trains: rows, classes, lengths, what is cut, what stands twice."""

import logging
from pathlib import Path

import pytest

from optkit.core.errors import InputError
from optkit.models.loading import LoadedModel
from optkit.pipeline import start_summary
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.build_engines import say_longer
from optkit.recipe.training import Training
from optkit.tasks.registry import load

ROWS = f"text\tlabel\n{'film ' * 40}\tgood\na film\tgood\ndull\tpoor\ndull\tgood\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.tsv").write_text(ROWS)
    (tmp_path / "dev.tsv").write_text("text\tlabel\na film\tgood\nthe plot\tpoor\n")
    return tmp_path


def test_all_of_it_is_said(folder: Path, tiny_model: LoadedModel, caplog) -> None:
    with caplog.at_level(logging.INFO):
        spec = RunSpec(load("classification", folder, metric="f1"), None, 0, folder, {})
        start_summary.say(spec, tiny_model, Training(precision="fp32").for_task({}))
    messages = {record.getMessage(): record.levelname for record in caplog.records}
    parameters = sum(parameter.numel() for parameter in tiny_model.model.parameters())
    assert {
        "train: 4 rows, 4 tokens in the median, 16 at most; 2 classes: good 75.0%, poor 25.0%": "INFO",
        "train: 1 of 4 rows (25.0%) are cut at 16 tokens; the longest has 42": "WARNING",
        "dev: 2 rows, 4 tokens in the median, 4 at most; 2 classes: good 50.0%, poor 50.0%": "INFO",
        "train: 1 of 4 rows repeat the text of another": "WARNING",
        "train: 1 texts come with different labels": "WARNING",
        "dev: 1 of 2 rows (50.0%) are in train too; scores on them say how well a model remembers": "WARNING",
    }.items() <= messages.items()
    last = [message for message in messages if f"{parameters:,} parameters" in message]
    assert len(last) == 1 and last[0].endswith("fp32; scored by f1 of the class 'poor'")


def test_what_dev_shares_with_train_and_its_groups(tmp_path: Path, tiny_model: LoadedModel, caplog) -> None:
    long = "this story with a plot and the cast of a film"
    train = f"text\tlabel\tgroup\n{long}\tgood\tg\nfilm\tpoor\th\n"
    dev = f"text\tlabel\tgroup\n{long.replace('and', ',')}\tgood\tg\nthe cast of a film\tpoor\ti\nplot\tpoor\tj\n"
    (tmp_path / "train.tsv").write_text(train), (tmp_path / "dev.tsv").write_text(dev)
    with caplog.at_level(logging.INFO):
        spec = RunSpec(load("classification", tmp_path), None, 0, tmp_path, {})
        start_summary.say(spec, tiny_model, Training(precision="fp32").for_task({}))
    messages = [record.getMessage() for record in caplog.records]
    assert [message for message in messages if message.startswith("dev: 1 of 3 rows (33.3%) ")] == [
        "dev: 1 of 3 rows (33.3%) are of groups that train has rows of; split by group: optkit split",
        "dev: 1 of 3 rows (33.3%) are nearly equal to one of train: 80% of their words or more are the same",
        "dev: 1 of 3 rows (33.3%) share a text with train in another way: it is a piece of one there, is one for the most "
        "part, or is the same",
    ]
    assert "dev: intervals draw its 3 groups" in messages and any("3 groups are few" in message for message in messages)


def test_of_many_classes_the_ends_are_named() -> None:
    labels = [index for index in range(8) for _ in range(index + 1)]
    said = start_summary.shares(labels, "abcdefgh")
    assert said == "8 classes: h 22.2%, g 19.4%, f 16.7%, …, c 8.3%, b 5.6%, a 2.8%"


def test_a_length_that_the_model_does_not_take_is_refused(folder: Path, tiny_model: LoadedModel) -> None:
    with pytest.raises(InputError, match="--max-length 17: the model takes 16 tokens at most"):
        load("classification", folder, max_length=17).encode("dev", tiny_model.tokenizer)
    assert max(load("classification", folder, max_length=9).encode("train", tiny_model.tokenizer)["length"][:]) == 9


@pytest.mark.parametrize(("lengths", "warned"), [([100, 128, 500], False), ([90, 160, 500], True)])
def test_texts_longer_than_the_shapes_that_engines_are_chosen_at(lengths: list[int], warned: bool, caplog) -> None:
    say_longer(lengths, "qat")
    found = [message.partition(". ") for message in caplog.messages]
    said = "qat: engines are chosen at up to 128 tokens, and texts have 160 in the median"
    assert found == [(said, ". ", "For these: Recipe(workload=[(1, 160)])")] * warned
