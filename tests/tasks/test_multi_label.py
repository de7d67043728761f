"""Several labels: features, loss, distillation, thresholds, scores, doubts, and the served answer."""

import copy

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from optkit.core.errors import GateError, InputError
from optkit.evaluation.bootstrap import paired_bootstrap
from optkit.models import loading
from optkit.tasks.data.tables import Table
from optkit.tasks.multi_label import Labels, MultiLabel
from optkit.tasks.outcomes import of_draws, sets, value
from optkit.tasks.registry import load, task_of
from optkit.tasks.served import TextSettings
from optkit.training.losses import distillation
from tests.conftest import saved

NAMES = ["x", "y", "z"]


def table(labels: list) -> Table:
    texts = [f"row {index}" for index in range(len(labels))]
    return Table("rows", {"text": texts, "label": labels}, range(1, len(labels) + 1), "row")


def multi(labels: list) -> MultiLabel:
    return MultiLabel("multi_label", {"train": table(labels), "dev": table(labels)})


@pytest.fixture
def task() -> MultiLabel:
    return multi([["x", "y"], [], ["z"]])


def outcomes(count: int = 200, seed: int = 0, noise: float = 1.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    found = np.empty(count, sets(3))
    found["gold"] = random.random((count, 3)) < 0.3
    found["predicted"] = found["gold"] + noise * random.normal(size=(count, 3)) > 0.5
    found["lrap"] = 100 * random.random(count)
    return found


@pytest.mark.parametrize(("name", "average"), [("micro_f1", "micro"), ("macro_f1", "macro")])
def test_f1_is_scikit_learns(name: str, average: str) -> None:
    found = outcomes()
    assert value(found, name) == pytest.approx(100 * f1_score(found["gold"], found["predicted"], average=average))


@pytest.mark.parametrize("name", ["micro_f1", "macro_f1"])
def test_a_resample_is_the_metric_of_the_drawn_examples(name: str) -> None:
    found = outcomes(60)
    drawn = np.random.default_rng(1).integers(60, size=60)
    (computed,) = of_draws(found, name)(np.bincount(drawn, minlength=60)[None])
    assert computed == pytest.approx(value(found[drawn], name))


@pytest.mark.parametrize("name", ["micro_f1", "macro_f1"])
def test_an_interval_holds_the_difference(name: str) -> None:
    baseline, worse = outcomes(noise=0.3), outcomes(noise=1.0)
    low, high = paired_bootstrap(worse, baseline, name, resamples=400)
    assert low < value(worse, name) - value(baseline, name) < high < 0
    assert paired_bootstrap(baseline, baseline, name, resamples=100) == (0.0, 0.0)


def test_features_predictions_and_scores(task: MultiLabel, tokenizer) -> None:
    features = task.encode("dev", tokenizer)
    assert features["labels"][:] == [[0, 1], [], [2]]
    logits = [np.array(row, np.float32) for row in ([1, 2, -1], [-1, -2, -3], [-1, 0.5, 2])]
    predictions = task.predict(features.select([2, 0, 1]), [logits[2], logits[0], logits[1]])
    assert [one.labels for one in predictions] == [(0, 1), (), (1, 2)]
    assert [task.shown(one) for one in predictions] == ["x, y", "(none)", "y, z"]
    # right 3, gold 3, predicted 4; F1 of x 1, of y 2/3, of z 1
    assert task.score(predictions) == pytest.approx({"micro_f1": 600 / 7, "macro_f1": 800 / 9, "lrap": 100.0})
    strict = task.deciding([1.5, 1.5, 1.5]).predict(features, logits)
    assert [one.labels for one in strict] == [(1,), (), (2,)] and not task.same(strict[0], predictions[0])
    with pytest.raises(GateError, match="found NaN or infinity"):
        task.predict(features, [np.full(3, np.nan), *logits[1:]])


def test_the_loss_is_binary_cross_entropy(task: MultiLabel) -> None:
    logits = torch.tensor([[0.0, 2.0, -1.0], [1.0, 0.0, 0.0]])
    found = task.loss({"logits": logits}, {"labels": torch.tensor([[0, 1], [2, -100]])})
    right = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    shares = 1 / (1 + torch.exp(-logits))
    assert found == pytest.approx(float(-(right * shares.log() + (1 - right) * (1 - shares).log()).mean()))
    empty = task.loss({"logits": logits}, {"labels": torch.tensor([[], []])})  # a batch whose rows have no label
    assert empty == pytest.approx(float(-(1 - shares).log().mean()))


def test_distillation_is_that_of_each_labels_sigmoid(task: MultiLabel) -> None:
    student, teacher = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, -1.0]])
    ours, theirs = (1 / (1 + torch.exp(-side / 2)) for side in (student, teacher))
    expected = theirs * (theirs / ours).log() + (1 - theirs) * ((1 - theirs) / (1 - ours)).log()
    found = distillation(task.distributions(student), task.distributions(teacher), temperature=2.0)
    assert found == pytest.approx(float(4 * expected.mean()))


def test_thresholds_are_fitted_kept_and_used(task: MultiLabel, tokenizer) -> None:
    features = task.encode("train", tokenizer)
    logits = [np.array(row, np.float32) for row in ([-1, 2, -3], [-2, -1, -3], [-2, -1, -1])]
    own = task.deciding(task.fit_thresholds(features, logits))
    assert own.thresholds == (-1.5, 0.5, -2.0)
    assert own.score(own.predict(features, logits))["micro_f1"] == 100.0
    assert task.thresholds == () and task.score(task.predict(features, logits))["micro_f1"] == 50.0
    settings = own.text_settings(tokenizer)
    assert settings.more == {"thresholds": [-1.5, 0.5, -2.0]} and task.text_settings(tokenizer).more == {}
    row = np.array([[-1.2, 0.2, -1.0]])
    assert MultiLabel.decider(own.thresholds)(row, None).tolist() == [True, False, True]
    assert MultiLabel.decisions(row).tolist() == [False, True, False]


def test_the_served_answer_is_the_prediction(task: MultiLabel, tokenizer) -> None:
    own, logits = task.deciding([-1.5, 0.5, -2.0]), np.array([[-1.0, 0.2, 1.0], [-3.0, -3.0, -3.0]], np.float32)
    settings = own.text_settings(tokenizer)
    outputs = own.served.answer(logits, {}, settings)
    assert outputs["labels"].tolist() == [[b"z", b"x", b""], [b"", b"", b""]]
    assert outputs["probability"][0] == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1)), 0.0])
    assert {name: array.shape[1:] for name, array in outputs.items()} == {
        name: shape for name, (_, shape) in own.served.outputs(settings).items()
    }
    first, second = own.served.decode(outputs, own.labels)
    features = own.encode("dev", tokenizer).select([0, 1])
    assert [str(first), str(second)] == [own.shown(one) for one in own.predict(features, list(logits))] == ["x, z", "(none)"]
    assert first.shown() == "* z  0.731\n  y  0.550\n* x  0.269"
    assert first == Labels(("x", "z"), first.probabilities)


def test_settings_without_thresholds_choose_what_is_more_probable_than_not(task: MultiLabel) -> None:
    settings = TextSettings("multi_label", ("text",), {}, 8, labels=tuple(NAMES))
    assert task.served.answer(np.array([[0.1, -0.1, 0.2]]), {}, settings)["labels"].tolist() == [[b"z", b"x", b""]]


def test_doubts() -> None:
    random = np.random.default_rng(0)
    gold = random.random((300, 3)) < [0.6, 0.3, 0.2]
    task = multi([[name for name, own in zip(NAMES, row, strict=True) if own] for row in gold])
    features = {"example": list(range(300))}

    def doubt(logits: np.ndarray) -> str | None:
        found = task.degenerate(task.predict(Dataset(features), list(logits)))
        return found and f"{found.verdict}: {found.reason}"

    class Dataset(dict):
        def __len__(self) -> int:
            return 300

    assert doubt(gold - 0.5 + 0.3 * random.normal(size=gold.shape)) is None
    assert doubt(np.tile([1.0, -1.0, -1.0], (300, 1))).startswith("fail: answers 'x' to each of the 300 examples")
    assert doubt(np.tile([-1.0, -1.0, -1.0], (300, 1))).startswith("fail: answers no label to each")
    shuffled = doubt(random.permutation(gold) - 0.5)
    assert shuffled.startswith("fail: has a micro F1 of") and "always answering 'x' would have" in shuffled


def test_a_bad_teacher(task: MultiLabel, tokenizer) -> None:
    task = multi([["x"], ["x"], ["y"]])
    features = task.encode("train", tokenizer)
    assert task.weakness(features, [np.array([1.0, 0.0]), np.array([1.0, 0.0]), np.array([0.0, 1.0])]) is None
    found = task.weakness(features, [np.array([0.0, 1.0])] * 3)
    assert "average precision of 66.7; by how frequent they are it would be 83.3" in found


def test_thresholds_follow_the_head(task: MultiLabel, tiny_config, tiny_tokenizer, tmp_path) -> None:
    """A model whose head has the classes in another order is sorted with its thresholds; another task's is refused."""
    config = copy.deepcopy(tiny_config)
    config.update({"id2label": {0: "z", 1: "x", 2: "y"}, "label2id": {"z": 0, "x": 1, "y": 2}, **task.config})
    folder = saved(loading.new(config, tiny_tokenizer, task), tmp_path)
    (folder / "thresholds.json").write_text("[3.0, 1.0, 2.0]")
    found = loading.load(folder, task)
    assert found.fine_tuned and found.thresholds == (1.0, 2.0, 3.0)
    assert issubclass(task_of(found.model), MultiLabel)
    (folder / "thresholds.json").write_text("[3.0]")
    with pytest.raises(InputError, match=r"thresholds.json: found 1 thresholds, expected 3 finite numbers"):
        loading.load(folder, task)
    for split in ("train", "dev"):
        (tmp_path / f"{split}.csv").write_text("text,label\na,x\nb,y\nc,z\n")
    with pytest.raises(InputError, match="says problem_type 'multi_label_classification' and 3 classes, which is not for"):
        loading.load(folder, load("classification", tmp_path))
