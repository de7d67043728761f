"""A family that optkit has never heard of works with one record; one of usual names in an unusual place works with none."""

import copy
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import SequenceClassifierOutput

from optkit.compression import pruning, quantizers
from optkit.compression.quantize import Quantize
from optkit.compression.representations import Representations, last_vectors
from optkit.compression.student import student
from optkit.core.errors import InputError
from optkit.engines.tensorrt import model_check
from optkit.graph.audit import audit
from optkit.graph.export import export
from optkit.graph.products import LAYERS_KEY, layers_of
from optkit.graph.tensorrt import variants
from optkit.models import families
from optkit.models.families import FAMILIES
from optkit.models.family import Family
from optkit.models.gelu import ClippedGELU
from optkit.pipeline.run_spec import RunSpec
from optkit.tasks.base import Task
from optkit.tasks.classification import Classification

pytestmark = pytest.mark.slow

LENGTH = 12


class Block(nn.Module):
    """A post-LayerNorm layer; `names` of queries, keys, values, output, and the two feed-forward products."""

    def __init__(self, width: int, inner: int, heads: int, names: list[str]) -> None:
        super().__init__()
        self.heads, self.names = heads, names
        sizes = [(width, width)] * 4 + [(width, inner), (inner, width)]
        for name, size in zip(names, sizes, strict=True):
            self.add_module(name, nn.Linear(*size))
        self.bend = ACT2FN["gelu"]
        self.norms = nn.ModuleDict({"first": nn.LayerNorm(width), "second": nn.LayerNorm(width)})

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        query, key, value, output, up, down = (self.get_submodule(name) for name in self.names)
        cut = [part(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value)]
        scores = cut[0] @ cut[1].transpose(2, 3) / cut[0].shape[-1] ** 0.5 + mask
        mixed = (scores.softmax(-1) @ cut[2]).transpose(1, 2).flatten(2)
        hidden = self.norms["first"](hidden + output(mixed))
        return self.norms["second"](hidden + down(self.bend(up(hidden))))


def additive(mask: torch.Tensor) -> torch.Tensor:
    """The mask [batch, 1, 1, sequence] that is added to scores, from one [batch, sequence] of ones and zeros or as it is."""
    return (1.0 - mask[:, None, None].float()) * -1e4 if mask.dim() == 2 else mask


class ToyConfig(PretrainedConfig):
    model_type = "toy"

    def __init__(self, blocks: int = 2, channels: int = 32, n_head: int = 4, inside: int = 64, **more: object) -> None:
        self.blocks, self.channels, self.n_head, self.inside = blocks, channels, n_head, inside
        self.words, self.vocab_size, self.places, self.bend = 14, 20, LENGTH, "gelu"
        super().__init__(**more)


class Toy(PreTrainedModel):
    """Its embeddings hold more products than its two blocks, so that the record has to say which list is the encoder's."""

    config_class = ToyConfig
    base_model_prefix = "toy"

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.words, self.places = nn.Embedding(config.vocab_size, config.channels), nn.Embedding(LENGTH, config.channels)
        self.norm = nn.LayerNorm(config.channels)
        self.tags = nn.ModuleList(nn.Linear(config.channels, config.channels) for _ in range(config.words))
        names = ["ask", "answer", "tell", "mix", "up", "down"]
        self.blocks = nn.ModuleList(
            Block(config.channels, config.inside, config.n_head, names) for _ in range(config.blocks)
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        hidden = self.words(ids) + self.places(positions)
        for tag in self.tags:
            hidden = hidden + tag(hidden)
        hidden = self.norm(hidden)
        for block in self.blocks:
            hidden = block(hidden, mask)
        return hidden


class ToyForSequenceClassification(PreTrainedModel):
    config_class = ToyConfig
    base_model_prefix = "toy"

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.toy = Toy(config)
        self.classifier = nn.Sequential(
            nn.Linear(config.channels, config.channels), nn.Tanh(), nn.Linear(config.channels, 2)
        )
        self.post_init()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor | None = None
    ) -> SequenceClassifierOutput:
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1])[None]
        hidden = self.toy(input_ids, additive(attention_mask), position_ids)
        return SequenceClassifierOutput(logits=self.classifier(hidden[:, 0]))


RECORD = Family(
    layers="toy.blocks",
    query=("ask",),
    key=("answer",),
    value=("tell",),
    attention_output=("mix",),
    depth=("blocks",),
    width=("channels",),
    heads=("n_head",),
    inner=("inside",),
    positions=("places",),
    activation=("bend",),
)
FEED = {"input_ids": torch.arange(1, 11).reshape(2, 5), "attention_mask": torch.tensor([[1] * 5, [1, 1, 1, 0, 0]])}


@pytest.fixture
def toy() -> Iterator[PreTrainedModel]:
    FAMILIES.register("toy", RECORD)
    torch.manual_seed(0)
    yield ToyForSequenceClassification(ToyConfig(initializer_range=0.2)).eval()
    FAMILIES.forget("toy")


def calibrated(model: PreTrainedModel, stage: Quantize) -> PreTrainedModel:
    quantizers.insert(model, stage)
    quantizers.calibrate(model, lambda quantised: quantised(**FEED))
    return model


def test_its_linears_and_sizes(toy: PreTrainedModel) -> None:
    expected = [f"toy.blocks.{n}.{part}" for n in (0, 1) for part in ("ask", "answer", "tell", "mix", "up", "down")]
    assert list(families.encoder_linears(toy)) == list(families.prunable(toy)) == expected
    assert families.encoder_layers(toy) == list(toy.toy.blocks)
    assert families.longest_input(toy) == LENGTH
    saved = toy.config.to_dict()
    assert (families.depth(saved), families.width(saved), families.heads(saved)) == (2, 32, 4)
    assert model_check.of_config(saved)[0].found.startswith("8 wide")


def test_its_students(toy: PreTrainedModel) -> None:
    shallow = student(toy, 1, None)
    assert shallow.config.blocks == 1 and len(shallow.toy.blocks) == 1
    assert torch.equal(shallow.toy.blocks[0].up.weight, toy.toy.blocks[1].up.weight)
    narrow = student(toy, None, 16)
    assert (narrow.config.channels, narrow.config.inside) == (16, 32)
    heads = torch.tensor([0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27])
    ours, theirs = narrow.toy.blocks[0], toy.toy.blocks[0]
    assert torch.equal(ours.ask.weight, theirs.ask.weight[heads][:, :16])
    assert torch.equal(ours.mix.weight, theirs.mix.weight[:16][:, heads])
    assert torch.equal(ours.up.weight, theirs.up.weight[:32, :16])
    assert narrow(**FEED).logits.isfinite().all()


def test_its_representations_are_followed(toy: PreTrainedModel) -> None:
    last = toy.toy.blocks[1]
    assert {kind: linear for kind, (linear, _) in last_vectors(toy).items()} == {
        "query": last.ask,
        "key": last.answer,
        "value": last.tell,
    }
    pair = Representations(copy.deepcopy(toy), toy, [0, 1], 1.0, 1.0, 4).eval()
    assert pair(**FEED).item() == pytest.approx(0.0, abs=1e-6)
    pair.release()
    loss = Representations(student(toy, 1, 16), toy, [1], 1.0, 1.0, 4)(**FEED)
    loss.backward()
    assert loss.item() > 0.01


def test_its_quantised_graph_is_covered(toy: PreTrainedModel, tmp_path: Path) -> None:
    path = export(calibrated(toy, Quantize(gelu_clip=10)), tmp_path, LENGTH, Classification)
    assert isinstance(toy.toy.blocks[1].bend, ClippedGELU)
    FAMILIES.forget("toy")  # whoever reads the file may not know it
    found = audit(path)
    found.check_quantised()
    assert (found.encoder_gemms, found.covered_gemms, found.attention_products) == (12, 12, 4)
    assert layers_of(onnx.load(path).graph).lists == {"toy.blocks"}
    written = variants.write(path, variants.INT8["fp16"], tmp_path / "int8.onnx")
    assert {product.layer for product in written.products} == {0, 1, None} and not written.sparse
    assert (written.longest, written.audit["residuals"], written.audit["quantized_residuals"]) == (LENGTH, 4, 4)


def test_its_weights_become_sparse(toy: PreTrainedModel, tmp_path: Path) -> None:
    linears = families.prunable(toy)
    pruning.prune(toy, "magnitude", lambda model: model(**FEED))
    found = audit(export(toy, tmp_path, LENGTH, Classification))
    found.check_sparse(linears)
    assert found.sparse and found.sparse_groups_kept["classifier.0"] < 0.5


def test_its_record_is_in_the_key_of_every_result(toy: PreTrainedModel, tiny_task: Task, tmp_path: Path) -> None:
    spec = RunSpec(tiny_task, str(tmp_path), 0, tmp_path, {})
    assert spec.source["families"]["toy"]["layers"] == "toy.blocks"
    FAMILIES.forget("toy")
    assert "families" not in RunSpec(tiny_task, str(tmp_path), 0, tmp_path, {}).source


def test_without_its_record_it_is_refused_in_words(toy: PreTrainedModel) -> None:
    FAMILIES.forget("toy")
    with pytest.raises(
        InputError, match=r"ToyConfig: num_hidden_layers is None.* register an optkit\.models\.families\.Family"
    ):
        student(toy, 1, None)


class TowerConfig(PretrainedConfig):
    model_type = "tower"

    def __init__(
        self, num_hidden_layers: int = 2, hidden_size: int = 32, intermediate_size: int = 64, **more: object
    ) -> None:
        self.num_hidden_layers, self.hidden_size, self.intermediate_size = num_hidden_layers, hidden_size, intermediate_size
        self.num_attention_heads, self.vocab_size = 4, 20
        super().__init__(**more)


class Stage(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.attention = Block(width, inner, 4, ["query", "key", "value", "out_proj", "up", "down"])
        self.ffn = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.ffn(self.attention(hidden, mask))


class Tower(nn.Module):
    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        stages = (Stage(config.hidden_size, config.intermediate_size) for _ in range(config.num_hidden_layers))
        self.stages = nn.ModuleList(stages)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        for stage in self.stages:
            hidden = stage(hidden, mask)
        return hidden


class Trunk(nn.Module):
    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.words, self.tower = nn.Embedding(config.vocab_size, config.hidden_size), Tower(config)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.tower(self.words(ids), mask)


class TowerForSequenceClassification(PreTrainedModel):
    """The layers are in `model.tower.stages`, and of each the feed-forward block is a Sequential; so is the head."""

    config_class = TowerConfig
    base_model_prefix = "model"

    def __init__(self, config: TowerConfig) -> None:
        super().__init__(config)
        self.model, width = Trunk(config), config.hidden_size
        self.classifier = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.words

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SequenceClassifierOutput:
        hidden = self.model(input_ids, additive(attention_mask))
        return SequenceClassifierOutput(logits=self.classifier(hidden[:, 0]))


def test_usual_names_in_an_unusual_place_need_no_record(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TowerForSequenceClassification(TowerConfig(initializer_range=0.2)).eval()
    linears = families.encoder_linears(model)
    assert len(linears) == 2 * 8 and all(name.startswith("model.tower.stages.") for name in linears)
    assert families.encoder_layers(model) == list(model.model.tower.stages)
    narrow = student(model, 1, 16)
    assert narrow(**FEED).logits.isfinite().all()
    assert Representations(narrow, model, [1], 1.0, 1.0, 4)(**FEED).isfinite()
    pruning.prune(model, "magnitude", lambda model: model(**FEED))
    path = export(calibrated(model, Quantize()), tmp_path, LENGTH, Classification)
    found = audit(path)
    found.check_quantised()
    found.check_sparse(linears)
    assert found.encoder_gemms == found.covered_gemms == 16 and found.sparse
    assert LAYERS_KEY not in {entry.key for entry in onnx.load(path).graph.metadata_props}
