"""Graphs of tiny models, exported once per session."""

import pytest
from transformers import BertForQuestionAnswering, BertForSequenceClassification

from optkit.graph.export import export

from .models import LENGTH, bert, quantised

HEADS = {"classification": BertForSequenceClassification, "question_answering": BertForQuestionAnswering}


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """`(head, is_quantised) -> (model, path)`."""
    made = {}

    def get(head="classification", is_quantised=False):
        if (head, is_quantised) not in made:
            model = (quantised if is_quantised else bert)(HEADS[head])
            made[head, is_quantised] = model, export(model, tmp_path_factory.mktemp("graph"), LENGTH)
        return made[head, is_quantised]

    return get
