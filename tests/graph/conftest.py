"""Graphs of tiny models, exported once per session."""

import pytest
from transformers import BertForQuestionAnswering, BertForSequenceClassification

from optkit.graph.export import export
from optkit.tasks.classification import Classification
from optkit.tasks.question_answering import QuestionAnswering

from .models import LENGTH, bert, per_tensor, quantised

HEADS = {
    "classification": (BertForSequenceClassification, Classification),
    "question_answering": (BertForQuestionAnswering, QuestionAnswering),
}


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """`(head, is_quantised, weights) -> (model, path)`."""
    made = {}

    def get(head="classification", is_quantised=False, weights="per_channel"):
        key = head, is_quantised, weights
        if key not in made:
            cls, task = HEADS[head]
            make = {"per_channel": quantised, "per_tensor": per_tensor}[weights] if is_quantised else bert
            model = make(cls)
            made[key] = model, export(model, tmp_path_factory.mktemp("graph"), LENGTH, task)
        return made[key]

    return get
