"""A task is one file: this one holds a whole task, which is trained, exported, built, scored and served as any other.

It marks words of opinion, each token by itself, with a head, targets, logits and an answer that no task of optkit has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from optkit.tasks.base import OwnModel, Prediction, Split, Task
from optkit.tasks.collate import IGNORED, check_logits
from optkit.tasks.data.data_settings import DataSettings
from optkit.tasks.served import NOWHERE, OFFSETS, ServedForm, Tensors, TextSettings

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from optkit.pipeline.run_spec import RunSpec

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
OPINIONS = ("awful", "bright", "dull", "lovely")
OTHERS = ("a", "cast", "film", "plot", "story", "the", "this", "with")
SIZES: dict[Split, int] = {"train": 256, "dev": 48}


class Words(NamedTuple):
    """The served answer: the marked words."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.words)

    def shown(self) -> str:
        return "\n".join(self.words)


class ServedWords(ServedForm):
    """A batch of texts, and of each its marked words."""

    beside = (*OFFSETS, "text")

    def logits_shape(self, settings: TextSettings) -> tuple[int, ...]:
        return (-1, 2)

    def outputs(self, settings: TextSettings) -> Tensors:
        return {"words": ("STRING", (1,))}

    def answer(self, logits: np.ndarray, beside: Mapping[str, np.ndarray], settings: TextSettings) -> dict[str, np.ndarray]:
        texts = [text.decode() for text in beside["text"].reshape(-1)]
        rows = zip(texts, logits.argmax(-1), *(beside[name] for name in OFFSETS), strict=True)
        marked = [" ".join(_marked(*row)).encode() for row in rows]
        return {"words": np.array(marked, object)[:, None]}

    def decode(self, outputs: Mapping[str, np.ndarray], labels: Sequence[str]) -> list[Words]:
        return [Words(tuple(row[0].decode().split())) for row in outputs["words"]]


class ServedPassage(ServedWords):
    """One text, which may become several features."""

    has_windows = True


class Toy(Task):
    """Texts in which words of opinion are to be marked."""

    head = "toy"
    axes = ("batch", "token", "class")
    choice = "class"
    targets = ("marks",)
    head_modules = ("classifier.",)
    served = ServedWords()
    metric = "exact"
    class_names = ("other", "opinion")
    text_columns = ("text",)

    @classmethod
    def load(cls, name: str, data: DataSettings) -> Task:
        from datasets import Dataset

        random = Random(0)
        texts = {split: [_text(random) for _ in range(size)] for split, size in SIZES.items()}
        return cls(name, {split: Dataset.from_dict({"text": rows}) for split, rows in texts.items()}, max_length=16)

    def encode(self, split: Split, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        from datasets import Dataset

        rows = self.examples(split)["text"][:]
        encoded = tokenizer(rows, truncation=True, max_length=self.max_length, return_offsets_mapping=True)
        marks = [
            [int(text[first:last] in OPINIONS) if first < last else IGNORED for first, last in offsets]
            for text, offsets in zip(rows, encoded["offset_mapping"], strict=True)
        ]
        columns = {name: encoded[name] for name in tokenizer.model_input_names}
        offsets = [[pair if pair[0] < pair[1] else (NOWHERE, NOWHERE) for pair in row] for row in encoded["offset_mapping"]]
        more = {"example": list(range(len(rows))), "length": [len(row) for row in marks], "offsets": offsets}
        return Dataset.from_dict({**columns, "marks": marks, **more})

    def own_model(self) -> OwnModel:
        from transformers import BertConfig, BertTokenizerFast

        vocab = {word: index for index, word in enumerate((*SPECIAL, *OPINIONS, *OTHERS))}
        config = BertConfig(
            vocab_size=len(vocab), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
            max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.1,
            id2label=dict(enumerate(self.class_names)),
        )  # fmt: skip
        tokenizer = BertTokenizerFast(vocab=vocab, model_max_length=16)
        training = {"epochs": 4, "learning_rate": 3e-3, "batch_size": 16, "precision": "fp32"}
        return OwnModel(config, tokenizer, lambda model: None, training)

    @staticmethod
    def auto_class() -> Any:
        from transformers import AutoModelForTokenClassification

        return AutoModelForTokenClassification

    @staticmethod
    def logits(output: Any) -> torch.Tensor:
        return output["logits"]

    @staticmethod
    def loss(output: Any, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        marks = targets["marks"]  # as long as the longest feature, which the batch may be padded beyond
        return cross_entropy(output["logits"][:, : marks.shape[1]].float().flatten(0, 1), marks.flatten())

    def predict(self, features: Dataset, logits: Sequence[np.ndarray]) -> list[Prediction]:
        check_logits(features, logits)
        texts = self.examples("dev")["text"][:]
        found: list[Prediction] = [None] * len(texts)
        for example, row, offsets in zip(features["example"][:], logits, features["offsets"][:], strict=True):
            found[example] = " ".join(_marked(texts[example], row.argmax(-1), *np.array(offsets).T))
        return found

    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        return {"exact": float(self.outcomes(predictions).mean())}

    def outcomes(self, predictions: Sequence[Prediction]) -> np.ndarray:
        self.check_count(predictions)
        pairs = zip(predictions, self.examples("dev")["text"][:], strict=True)
        return np.array([100.0 * (found == " ".join(_opinions(text))) for found, text in pairs])


class LongToy(Toy):
    """The same for long texts, in windows."""

    head = "long_toy"
    served = ServedPassage()


def _marked(text: str, classes: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[str]:
    """Words whose token is of the second class."""
    rows = zip(classes, starts, ends, strict=False)
    return [text[first:last] for one, first, last in rows if one == 1 and first != NOWHERE]


def _opinions(text: str) -> list[str]:
    return [word for word in text.split() if word in OPINIONS]


def _text(random: Random) -> str:
    return " ".join(random.choices((*OPINIONS, *OTHERS), k=random.randint(2, 12)))


@pytest.fixture(scope="module")
def toy() -> Iterator[Task]:
    """The task, by its name."""
    from optkit.tasks import registry

    registry.TASKS.register("toy", Toy)
    yield registry.load("toy")
    registry.TASKS.forget("toy")


@pytest.fixture(scope="module")
def spec(toy: Task, tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    """A baseline, and a student of one layer that it teaches, with engines of ONNX Runtime."""
    from optkit import Distill, Recipe
    from optkit.pipeline.run_spec import RunSpec
    from optkit.recipe.stage import BASELINE

    student = Recipe(name="student", stages=[Distill(layers=1, representation_epochs=0, epochs=4)])
    recipes = {BASELINE: Recipe(name=BASELINE), "student": student}
    root = tmp_path_factory.mktemp("checkpoints")
    return RunSpec(toy, None, 0, root, recipes, engines=("onnxruntime",), seconds=0.05)


def test_it_is_known_by_name(toy: Task) -> None:
    from optkit.core.errors import InputError
    from optkit.tasks import registry

    assert isinstance(toy, Toy) and toy.logits_shape == (-1, 2)
    assert registry.form("toy") is Toy.served
    with pytest.raises(InputError, match=r"task 'toi': no such task; expected one of sample, .*toy\. Did you mean 'toy'\?"):
        registry.load("toi")
    with pytest.raises(InputError, match=r"head 'none': none of the tasks sample, .*toy has it\. Install the package"):
        registry.form("none")


def test_what_a_prediction_depends_on_leaves_padding_out() -> None:
    import torch

    logits = np.arange(12.0).reshape(2, 3, 2) * np.array([1.0, -1.0])
    mask = np.array([[1, 1, 1], [1, 0, 0]])
    assert Toy.decisions(logits, mask).tolist() == [0, 0, 0, 0]
    rows = Toy.distributions(torch.from_numpy(logits), torch.from_numpy(mask))
    assert rows is not None and rows.tolist() == [*logits[0].tolist(), logits[1, 0].tolist()]


def test_a_teacher_and_its_student_are_trained(spec: RunSpec) -> None:
    from optkit.evaluation.artifacts import STAGE_SCORES, read_scores
    from optkit.pipeline.steps.train import trained

    scores = read_scores(trained(spec.recipes["student"], spec) / STAGE_SCORES)
    assert {stage: values.mean() for stage, values in scores.items()} == {"baseline_fp32": 100.0, "distill": 100.0}


def test_graph_and_engine_score_as_the_model(spec: RunSpec) -> None:
    from optkit.core.json_door import read_json
    from optkit.evaluation import parity
    from optkit.pipeline.steps.build_engines import converted

    folder = converted(spec.baseline, spec)
    loaded = spec.start()
    features = spec.task.encode("dev", loaded.tokenizer)
    logits = parity.at_engine(folder / "fp32", features, spec.collator(loaded.tokenizer))
    assert [len(row) for row in logits] == features["length"][:]
    (rung,) = parity.rungs(spec.task, features, {"engine": logits})
    assert rung.scores == {"exact": 100.0}
    (chosen,) = (one for one in read_json(folder / "conversion.json")["candidates"] if one["chosen"])
    assert chosen["prediction_flips"] == 0 and chosen["predictions"] > sum(features["length"][:])


def test_text_goes_in_and_words_come_out(spec: RunSpec, tmp_path: Path) -> None:
    """The two steps around the engine, without a server."""
    from optkit.engines import registry as engines
    from optkit.evaluation.text_sample import write
    from optkit.evaluation.through_server import model_config
    from optkit.pipeline.steps.build_engines import converted
    from optkit.serving import ensemble
    from optkit.serving.backend.answering import answer
    from optkit.serving.backend.encoding import Encoder, encoded

    tokenizer, engine = spec.start().tokenizer, converted(spec.baseline, spec) / "fp32"
    write(spec.task, tokenizer, {}, tmp_path)
    config = model_config("toy", engine, spec.start(), spec.task, 16)
    ensemble.stage(tmp_path, tmp_path / "text", "toy", config)
    before, after = (tmp_path / step / "1" for step in ensemble.steps("toy"))
    texts = ["this lovely cast", "a plot", "dull dull the awful story"]
    request = {"text": np.array([[text.encode()] for text in texts], object)}
    tokens = encoded(Encoder(before), request, [*config.inputs, *OFFSETS])
    assert isinstance(tokens, dict)
    logits = engines.load(engine).infer({name: tokens[name] for name in config.inputs})
    outputs = answer({**tokens, **request, "logits": logits}, Toy.served, TextSettings.read(after))
    assert isinstance(outputs, dict)
    assert [str(words) for words in Toy.served.decode(outputs, ())] == ["lovely", "", "dull dull awful"]


def test_a_single_text_may_have_windows(spec: RunSpec, tmp_path: Path) -> None:
    from optkit.serving.backend.encoding import Encoder, encoded
    from optkit.tasks import registry

    tokenizer = spec.start().tokenizer
    settings = replace(spec.task.text_settings(tokenizer), head="long_toy", max_length=6, stride=1)
    settings.write(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    registry.TASKS.register("long_toy", LongToy)
    try:
        text = "this lovely cast a plot dull film"
        request = {"text": np.array([text.encode()], object)}
        found = encoded(Encoder(tmp_path), request, ["input_ids", *OFFSETS])
        assert isinstance(found, dict)
        windows = zip(found["input_ids"], *(found[name] for name in OFFSETS), strict=True)
        words = [_marked(text, np.ones(len(ids)), starts, ends) for ids, starts, ends in windows]
        assert words == [text.split()[first : first + 4] for first in (0, 3)]
    finally:
        registry.TASKS.forget("long_toy")


@pytest.mark.server
def test_a_server_answers_it(spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes find the task by an entry point, as that of an installed package."""
    from optkit.core.json_door import read_json
    from optkit.evaluation.artifacts import EVIDENCE, TEXT
    from optkit.evaluation.through_server import model_config
    from optkit.pipeline.steps.build_engines import converted
    from optkit.pipeline.steps.score import scored
    from optkit.serving import ensemble, install, repository
    from optkit.serving.server import Server
    from optkit.serving.text_client import TextClient

    (info := tmp_path / "packages" / "toys-1.0.dist-info").mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[optkit.tasks]\ntoy = {__name__}:Toy\n")
    folders = [str(info.parent), *install._import_folders()]
    monkeypatch.setattr(install, "_import_folders", lambda: folders)
    served, engine = scored(spec.baseline, spec), converted(spec.baseline, spec) / "fp32"
    ladder = read_json(served / EVIDENCE)["precisions"]["fp32"]["ladder"]
    assert {values["value"] for values in ladder.values()} == {100.0}
    root, config = tmp_path / "models", model_config("toy", engine, spec.start(), spec.task, 16)
    repository.place(root, engine, config)
    ensemble.stage(root, served / TEXT, "toy", config)
    with Server(root, tmp_path / "logs", [ensemble.pipeline("toy")]) as server, TextClient(server.url, "toy") as client:
        assert [str(words) for words in client.ask([("a dull film",), ("lovely",), ("plot",)])] == ["dull", "lovely", ""]
