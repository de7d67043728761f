"""Graphs of tiny models, exported once per session."""

import pytest
from transformers import BertForQuestionAnswering, BertForSequenceClassification

from optkit.graph.export import export
from optkit.tasks.classification import Classification
from optkit.tasks.question_answering import QuestionAnswering

from .models import LENGTH, bert, quantised

HEADS = {
    "classification": (BertForSequenceClassification, Classification),
    "question_answering": (BertForQuestionAnswering, QuestionAnswering),
}


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """`(head, is_quantised) -> (model, path)`."""
    made = {}

    def get(head="classification", is_quantised=False):
        if (head, is_quantised) not in made:
            cls, task = HEADS[head]
            model = (quantised if is_quantised else bert)(cls)
            made[head, is_quantised] = model, export(model, tmp_path_factory.mktemp("graph"), LENGTH, task)
        return made[head, is_quantised]

    return get
