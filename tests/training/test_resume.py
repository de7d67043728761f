"""A training that was interrupted goes on from its last snapshot, and ends with the weights it would have had."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from optkit.compression.augment import Neighbours
from optkit.compression.context import Context
from optkit.compression.representations import Representations, representation_loss
from optkit.models.loading import LoadedModel
from optkit.tasks.classification import Classification
from optkit.training import losses
from optkit.training.loop import train
from optkit.training.losses import Batch
from optkit.training.resume import Snapshots

pytestmark = pytest.mark.slow

task_loss = losses.task_loss(Classification)


class KilledError(Exception):
    """Error that stands in for a signal."""


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot whenever one may be taken."""
    monkeypatch.setattr(Snapshots, "every_s", 0.0)


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "snapshots", "a key")


def fit(
    loaded: LoadedModel,
    context: Context,
    snapshots: Snapshots | None = None,
    until: int = 1000,
    **settings: Any,
) -> list[Any]:
    """Three epochs of 16 steps, or the budget given, with dropout and other words, interrupted at a step."""
    loaded.model.bert.embeddings.dropout.p = 0.3
    steps = 0

    def loss(model: Any, batch: Batch) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps > until:
            raise KilledError
        return task_loss(model, batch)

    batches = context.batches(16, Neighbours(loaded, 0.3))
    own = context.training.model_copy(update={"epochs": 3, **settings})
    return [train(loaded.model, batches, loss, own, 0, context.logs, "it", snapshots=snapshots), steps]


def same(first: LoadedModel, second: LoadedModel) -> bool:
    ours, theirs = first.model.state_dict(), second.model.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize(
    ("settings", "in_all"),
    [({}, 48), ({"precision": "bf16"}, 48), ({"ema": 0.9}, 48), ({"epochs": None, "steps": 37, "schedule": "cosine"}, 37)],
)
def test_an_interrupted_training_ends_as_one_that_was_not(
    settings: dict[str, Any], in_all: int, tiny_model: LoadedModel, tiny_context: Context, snapshots: Snapshots
) -> None:
    straight, again = copy.deepcopy(tiny_model), copy.deepcopy(tiny_model)
    history, _ = fit(straight, tiny_context, **settings)
    with pytest.raises(KilledError):
        fit(tiny_model, tiny_context, snapshots, until=25, **settings)
    assert not same(tiny_model, straight)
    resumed, steps = fit(again, tiny_context, Snapshots(snapshots.folder, "a key"), **settings)
    assert steps == in_all - 20, "the last snapshot was after 20 steps"
    assert same(again, straight) and resumed == history


def test_a_finished_phase_is_hardly_done_again(tiny_model: LoadedModel, tiny_context: Context, snapshots: Snapshots) -> None:
    start = copy.deepcopy(tiny_model)
    fit(tiny_model, tiny_context, snapshots)
    assert fit(start, tiny_context, snapshots)[1] == 8 and same(start, tiny_model)


def test_a_student_beside_its_teacher(tiny_model: LoadedModel, tiny_context: Context, snapshots: Snapshots) -> None:
    """The teacher's weights are not kept with the student's."""
    settings = tiny_context.training.model_copy(update={"epochs": 1})
    batches = tiny_context.batches(16)
    pair = Representations(copy.deepcopy(tiny_model.model), tiny_model.model, range(2), 1.0, 1.0, 4)
    train(pair, batches, representation_loss, settings, 0, tiny_context.logs, "it", snapshots=snapshots)
    state = snapshots.load("it")
    assert state and state["done"] == 10
    names: dict[bool, set[str]] = {True: set(), False: set()}
    for name, part in pair.named_parameters():
        names[part.requires_grad].add(name)
    kept = set(state["tensors"])
    assert names[True] <= kept and names[False] and not names[False] & kept


def test_another_step_or_phase_does_not_find_it(snapshots: Snapshots) -> None:
    snapshots.save_when_due("it", lambda: {"done": 1})
    assert snapshots.load("it") == {"done": 1}
    assert snapshots.load("another") is None
    assert Snapshots(snapshots.folder, "another key").load("it") is None
    snapshots.clear()
    assert snapshots.load("it") is None and not snapshots.folder.exists()


def test_not_too_often(snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Snapshots, "every_s", 60.0)
    snapshots.save_when_due("it", lambda: pytest.fail("not due"))
    assert snapshots.load("it") is None


def test_a_broken_one_is_left_alone(snapshots: Snapshots, caplog: pytest.LogCaptureFixture) -> None:
    snapshots.save_when_due("it", lambda: {"done": 1})
    (path,) = snapshots.folder.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    assert snapshots.load("it") is None
    assert f"{path} cannot be read" in caplog.text and "begins anew" in caplog.text


def test_nothing_is_run_that_one_contains(snapshots: Snapshots, caplog: pytest.LogCaptureFixture) -> None:
    snapshots.save_when_due("it", lambda: {"done": Path("a class that is not plain data")})
    assert snapshots.load("it") is None and "cannot be read" in caplog.text


def test_training_goes_on_where_the_disk_refuses(snapshots: Snapshots, caplog: pytest.LogCaptureFixture) -> None:
    snapshots.folder.write_text("a file in its place")
    snapshots.save_when_due("it", lambda: {"done": 1})
    assert "no snapshot of the training" in caplog.text and snapshots.load("it") is None
