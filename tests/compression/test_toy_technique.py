"""A technique of one's own is one class: it stands in a recipe, is trained, kept, read again and checked like optkit's."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, BertTokenizerFast, PreTrainedModel

from optkit import Quantize, Recipe, Stage, Training
from optkit.compression import checkpoint, quantizers
from optkit.compression.context import Context
from optkit.compression.registry import TECHNIQUES, ordered, stage_of
from optkit.core.errors import GateError, InputError
from optkit.core.settings import RecipeError
from optkit.models.families import encoder_linears
from optkit.models.loading import LoadedModel
from optkit.pipeline import preflight
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.train import trained
from optkit.recipe.stage import BASELINE, History
from optkit.tasks.base import Task

WEIGHT = "bert.encoder.layer.0.output.dense.weight"


class Clip(Stage):
    """No weight of the encoder larger than a bound."""

    technique: Literal["clip"] = "clip"
    order: ClassVar[int] = 25
    bound: float = Field(0.0625, gt=0)
    """Largest absolute value that a weight may have."""

    def preflight(self, model: PreTrainedModel, recipe: str) -> PreTrainedModel:
        if not encoder_linears(model):
            raise InputError("no Linear in the encoder: there is nothing to clip")
        return model

    def apply(self, loaded: LoadedModel, context: Context) -> History:
        with torch.no_grad():
            for linear in encoder_linears(loaded.model).values():
                linear.weight.clamp_(-self.bound, self.bound)
        return []

    def check(self, model: PreTrainedModel, when: str) -> None:
        for name, linear in encoder_linears(model).items():
            if (largest := float(linear.weight.detach().abs().max())) > self.bound:
                raise GateError(f"{name}: a weight of {largest:.3g} {when}, expected at most {self.bound:g}")


STAGES = [Clip(), Quantize(calibration_examples=16)]


@pytest.fixture
def known() -> Iterator[None]:
    """The technique by its name, as a script makes it known."""
    TECHNIQUES.register("clip", Clip)
    yield
    TECHNIQUES.forget("clip")


@pytest.fixture
def spec(tiny_task: Task, tiny_config: BertConfig, tiny_tokenizer: BertTokenizerFast, tmp_path: Path) -> RunSpec:
    """The tiny task on a pretrained model without a head."""
    torch.manual_seed(0)
    BertModel(tiny_config).save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    training = Training(epochs=0.25, learning_rate=3e-3, batch_size=16, precision="fp32")
    recipes = {
        BASELINE: Recipe(name=BASELINE, training=training),
        "clipped": Recipe(name="clipped", stages=STAGES[:1], training=training),
        "clipped_int8": Recipe(name="clipped_int8", stages=STAGES, training=training),
    }
    return RunSpec(tiny_task, str(tmp_path / "model"), 0, tmp_path / "checkpoints", recipes)


@pytest.mark.usefixtures("known")
def test_it_has_its_place_among_the_others() -> None:
    with pytest.raises(RecipeError, match="stages go quantize → clip: expected clip → quantize, since each"):
        Recipe(name="one", stages=STAGES[::-1])
    assert ordered(["quantize", "clip", "of_nobody", "distill"]) == ["distill", "clip", "quantize", "of_nobody"]


@pytest.mark.usefixtures("known")
def test_its_settings_are_settings_like_any() -> None:
    recipe = Recipe(name="one", stages=[Clip(bound=2)])
    assert recipe.resolved()["stages"] == [{"technique": "clip", "bound": 2.0}]
    assert stage_of(recipe.resolved()["stages"][0]) == recipe.stages[0]
    assert Recipe(**recipe.resolved()).stages == recipe.stages
    assert (recipe.is_quantised, recipe.sparsity, recipe.teachers, recipe.modules) == (False, None, (), (__name__,))
    with pytest.raises(RecipeError, match=r"2 mistakes:\n  - Clip\.bound is -1: .*\n.* no setting 'to'; it has bound$"):
        Recipe(name="one", stages=[Clip(bound=-1, to=1)])


@pytest.mark.usefixtures("known")
def test_it_looks_at_a_model_beforehand(tiny_model: LoadedModel, tiny_config: BertConfig) -> None:
    recipe = Recipe(name="one", stages=STAGES)
    preflight.check(recipe, tiny_model, lambda name: tiny_model)
    with torch.device("meta"):
        empty = type(tiny_model.model)(BertConfig(**{**tiny_config.to_dict(), "num_hidden_layers": 0}))
    with pytest.raises(InputError, match="no Linear in the encoder: there is nothing to clip"):
        preflight.check(recipe, replace(tiny_model, model=empty), lambda name: tiny_model)


@pytest.mark.slow
@pytest.mark.usefixtures("known")
def test_it_is_applied_kept_and_read_again(spec: RunSpec) -> None:
    folder = trained(spec.recipes["clipped_int8"], spec)
    assert checkpoint.stages_of(folder) == STAGES
    loaded = checkpoint.load(folder, spec.task)
    assert quantizers.quantisers(loaded.model)
    weights = load_file(spec.folder(spec.recipes["clipped"]) / "model.safetensors")
    assert torch.equal(loaded.model.get_parameter(WEIGHT), weights[WEIGHT]) and float(weights[WEIGHT].abs().max()) == 0.0625


@pytest.mark.slow
@pytest.mark.usefixtures("known")
def test_what_a_later_stage_breaks_is_refused(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(stage: Quantize, loaded: LoadedModel, context: Context) -> History:
        with torch.no_grad():
            loaded.model.get_parameter(WEIGHT)[0, 0] = 3
        quantizers.insert(loaded.model, stage)
        return []

    monkeypatch.setattr(Quantize, "apply", spoil)
    with pytest.raises(GateError, match=r"output\.dense: a weight of 3 after quantize, expected at most 0\.0625"):
        trained(spec.recipes["clipped_int8"], spec)
    assert not spec.folder(spec.recipes["clipped_int8"]).exists()


@pytest.mark.usefixtures("known")
def test_a_checkpoint_that_breaks_it_is_refused(spec: RunSpec) -> None:
    file = trained(spec.recipes["clipped"], spec) / "model.safetensors"
    tensors = load_file(file)
    tensors[WEIGHT][0, 0] = 3
    save_file(tensors, file)
    with pytest.raises(GateError, match=rf"a weight of 3 in {file}, expected at most 0\.0625"):
        checkpoint.load(file.parent, spec.task)


def test_a_checkpoint_of_a_technique_that_is_not_here_names_it(
    tiny_model: LoadedModel, tiny_task: Task, tmp_path: Path
) -> None:
    checkpoint.save(tiny_model, [], [], tmp_path)
    (tmp_path / "recipe.json").write_text(json.dumps([Clip().model_dump()]))
    with pytest.raises(InputError) as error:
        checkpoint.load(tmp_path, tiny_task)
    assert str(error.value) == (
        f"{tmp_path}/recipe.json: technique 'clip': there is none of that name; expected one of distill, sparsify, "
        f"product_quantize, quantize\nInstall what wrote these stages, or delete {tmp_path} to have it made again"
    )


def test_a_technique_without_a_name_is_refused_before_it_is_trained(tiny_model: LoadedModel) -> None:
    with pytest.raises(InputError, match="technique 'clip': there is none of that name; expected one of"):
        preflight.check(Recipe(name="one", stages=STAGES), tiny_model, lambda name: tiny_model)
