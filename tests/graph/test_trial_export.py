"""A trial on a tiny random copy says in seconds whether an architecture can be exported and quantised."""

import pytest
import transformers

from optkit.core.errors import InputError
from optkit.graph.trial_export import trial_export
from optkit.tasks.classification import Classification
from optkit.tasks.question_answering import QuestionAnswering


@pytest.mark.slow
@pytest.mark.parametrize("family", ["Bert", "ModernBert", "DebertaV2"])
@pytest.mark.parametrize("task", [Classification, QuestionAnswering])
def test_what_can_be_exported_passes(family, task):
    trial_export(getattr(transformers, f"{family}Config")(), task, quantised=True)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("Funnel", "model type 'funnel' is not supported: it pools its tokens"),
        ("Longformer", "model type 'longformer' is not supported: its attention slides over chunks"),
        ("XLNet", "model type 'xlnet' is not supported"),
        ("Mra", "model type 'mra' is not supported: its attention is computed by a CUDA kernel"),
        ("Xmod", "model type 'xmod' is not supported: it chooses among adapters by each text's language"),
        ("LayoutLM", "model type 'layoutlm' is not supported: it reads the place of each word"),
        ("T5", "model type 't5' is not supported: it has a decoder beside its encoder"),
        ("Bart", "model type 'bart' is not supported: it has a decoder beside its encoder"),
        ("GPT2", "GPT2ForSequenceClassification is not supported: its tokens see those before them only"),
        ("Qwen3", "Qwen3ForSequenceClassification is not supported: its tokens see those before them only"),
    ],
)
def test_what_cannot_is_one_sentence(family, message):
    with pytest.raises(InputError, match=message):
        trial_export(getattr(transformers, f"{family}Config")(), Classification)


def test_an_encoder_of_convolutions_has_a_baseline_alone():
    trial_export(transformers.SqueezeBertConfig(), Classification)
    with pytest.raises(
        InputError, match="SqueezeBertForSequenceClassification has no Linear modules in its encoder's layers"
    ):
        trial_export(transformers.SqueezeBertConfig(), Classification, quantised=True)


def test_a_family_without_the_head_is_named():
    with pytest.raises(InputError, match="a tiny copy of model type 'eurobert' cannot be made: Unrecognized configuration"):
        trial_export(transformers.EuroBertConfig(), QuestionAnswering)
