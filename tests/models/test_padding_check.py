"""A model whose answer to a text moves with the padding behind it is refused wherever a model is taken."""

import pytest

from optkit.core.errors import InputError
from optkit.models import loading, padding_check
from optkit.tasks.classification import Classification
from tests.conftest import saved
from tests.graph.families import FAMILIES, classifier
from tests.models.last_place import xlm

MESSAGE = r"XLMForSequenceClassification is not supported: padding moves its logits by \d+\.\d%, so that a text would be"


def test_a_model_in_memory_is_refused(tiny_model, tiny_task):
    model = xlm(len(tiny_model.tokenizer))
    with pytest.raises(InputError, match=MESSAGE):
        loading.loaded_model(model, tiny_task, tiny_model.tokenizer)
    with pytest.raises(InputError, match=MESSAGE):
        loading.loaded_model(model)


def test_a_model_in_a_folder_is_refused(tiny_model, tiny_task, tmp_path):
    folder = saved(tiny_model, tmp_path / "xlm")
    xlm(len(tiny_model.tokenizer)).save_pretrained(folder)
    with pytest.raises(InputError, match=MESSAGE):
        loading.load(folder, tiny_task)


@pytest.mark.parametrize("name", FAMILIES)
def test_others_are_not(name):
    padding_check.check_config(classifier(name).config, Classification)
