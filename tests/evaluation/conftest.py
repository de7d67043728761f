"""A tiny model that answers its task, in float and in INT8, with its graphs."""

import copy
from types import SimpleNamespace

import pytest
import torch

from optkit import Quantize
from optkit.compression.context import Context
from optkit.graph.export import export
from optkit.models import loading
from optkit.recipe.training import Training
from optkit.tasks.collate import Collator
from optkit.training.loop import train
from optkit.training.losses import task_loss
from tests.conftest import nobody


@pytest.fixture(scope="session")
def answering(tiny_config, tiny_task, tiny_tokenizer, tmp_path_factory):
    """`{precision: (model, graph, features)}` of a BERT of two layers of width 32, trained for four epochs."""
    folder = tmp_path_factory.mktemp("answering")
    training = Training(precision="fp32", epochs=4).for_task({"learning_rate": 3e-3, "batch_size": 16})
    features, collator = tiny_task.encode("train", tiny_tokenizer), Collator(tiny_tokenizer, tiny_task.max_length)
    context = Context(
        tiny_task, features, collator, training, 0, folder / "logs", teacher_logits=nobody, teacher_model=nobody
    )
    made = {}
    for precision in ("fp32", "int8"):
        torch.manual_seed(0)
        loaded = loading.new(copy.deepcopy(tiny_config), tiny_tokenizer, tiny_task)
        train(loaded.model, context.batches(16), task_loss(tiny_task), training, 0, context.logs)
        if precision == "int8":
            Quantize(calibrator="mse").apply(loaded, context)
        graph = export(loaded.model, folder / precision, 16, tiny_task)
        made[precision] = SimpleNamespace(loaded=loaded, graph=graph, features=tiny_task.encode("dev", tiny_tokenizer))
    return made
