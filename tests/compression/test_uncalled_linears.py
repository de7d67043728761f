"""Linear modules that a model never calls on texts stay float, and everything else of it is quantised."""

from pathlib import Path

import pytest
import torch
from transformers import LukeConfig, LukeForSequenceClassification

from optkit.compression import checkpoint, kept, quantizers
from optkit.compression.context import Context
from optkit.compression.quantize import Calibrator, Quantize
from optkit.core.errors import InputError
from optkit.graph.audit import audit
from optkit.graph.export import export
from optkit.graph.trial_export import trial_export
from optkit.models.families import encoder_linears
from optkit.models.loading import LoadedModel
from optkit.tasks.classification import Classification

OF_ENTITIES = ("w2e_query", "e2w_query", "e2e_query")


@pytest.fixture
def luke(tiny_model: LoadedModel) -> LoadedModel:
    """LUKE, whose queries for entities nothing reads where a text has none."""
    sizes = {name: getattr(tiny_model.model.config, name) for name in ("vocab_size", "num_labels", "id2label", "label2id")}
    sizes |= {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    torch.manual_seed(0)
    config = LukeConfig(**sizes, entity_vocab_size=5, entity_emb_size=8, max_position_embeddings=40, pad_token_id=0)
    tiny_model.model = LukeForSequenceClassification(config).eval()
    return tiny_model


@pytest.mark.slow
@pytest.mark.parametrize("calibrator", ["max", "mse", "kl"])
def test_what_is_never_called_stays_float_by_name(
    calibrator: Calibrator, luke: LoadedModel, tiny_context: Context, tmp_path: Path
) -> None:
    stage = Quantize(calibrator=calibrator, calibration_examples=16)
    history = stage.apply(luke, tiny_context)
    uncalled = {name for name in encoder_linears(luke.model) if name.endswith(OF_ENTITIES)}
    assert len(uncalled) == 6 and kept.names(luke.model, kept.UNCALLED) == uncalled
    assert quantizers.by_linear(luke.model).keys() == encoder_linears(luke.model).keys() - uncalled
    (remark,) = luke.remarks
    assert remark.endswith(" stay float: the model never calls them on texts") and all(name in remark for name in uncalled)
    checkpoint.save(luke, [stage], history, tmp_path)
    again = checkpoint.load(tmp_path, tiny_context.task)
    stage.check(again.model, "when read")
    found = audit(export(again.model, tmp_path / "graph", 16, tiny_context.task))
    stage.check_graph(found, again.model)
    assert found.covered_gemms == found.encoder_gemms == 2 * 6


@pytest.mark.slow
def test_the_trial_before_training_takes_it(luke: LoadedModel) -> None:
    trial_export(luke.model.config, Classification, quantised=True)


def test_without_a_batch_nothing_is_calibrated(tiny_model: LoadedModel) -> None:
    quantizers.insert(tiny_model.model, Quantize())
    with pytest.raises(InputError, match="12 quantisers have no finite, positive amax"):
        quantizers.calibrate(tiny_model.model, lambda model: None)
