"""What the server is told of a model is what its own tokenizer gives: more than two types of tokens, too."""

import copy
import re

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from optkit.core.errors import InputError
from optkit.engines import registry as engines
from optkit.evaluation.through_server import model_config
from optkit.graph.export import export
from optkit.models import loading
from optkit.models.loading import inference
from optkit.serving import repository
from optkit.serving.client import Client
from optkit.serving.server import Server
from optkit.tasks.collate import Collator


@pytest.fixture
def three_types(tiny_config, tiny_tokenizer, tiny_task):
    """A model of three types of tokens, whose tokenizer gives each [CLS] the last of them, as Funnel's does."""
    stored = tiny_tokenizer.backend_tokenizer.to_str()
    first = re.compile(r'"SpecialToken":{"id":"\[CLS\]","type_id":0}')
    assert len(first.findall(stored)) == 2
    other = type(tiny_tokenizer.backend_tokenizer).from_str(first.sub('"SpecialToken":{"id":"[CLS]","type_id":2}', stored))
    names = tiny_tokenizer.model_input_names
    special = {role: str(token) for role, token in tiny_tokenizer.special_tokens_map.items()}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=other, model_max_length=16, model_input_names=names, **special)
    config = copy.deepcopy(tiny_config)
    config.type_vocab_size = 3
    return loading.new(config, tokenizer, tiny_task)


def test_only_more_types_than_two_are_told(three_types, answering, tmp_path, tiny_task):
    (tmp_path / "engine.json").write_text(
        '{"kind": "onnxruntime", "precision": "fp32", "variant": "fp32", "inputs": ["input_ids"], "cpu_features": []}'
    )
    assert model_config("m", tmp_path, three_types, tiny_task, 16).token_types == 3
    assert model_config("m", tmp_path, answering["fp32"].loaded, tiny_task, 16).token_types is None


@pytest.mark.server
def test_a_model_of_three_types_of_tokens_is_served(three_types, tiny_task, tmp_path):
    graph, engine = export(three_types.model, tmp_path / "graph", 16, tiny_task), tmp_path / "engine"
    engine.mkdir()
    engines.runtime("onnxruntime").build(graph, "fp32", engine)
    features = tiny_task.encode("dev", three_types.tokenizer)
    feed = Collator(three_types.tokenizer, 16).feed(features.select_columns(three_types.tokenizer.model_input_names)[:4])
    assert feed["token_type_ids"].max() == 2
    repository.place(tmp_path / "models", engine, model_config("three", engine, three_types, tiny_task, 16))
    with Server(tmp_path / "models", tmp_path / "logs", ["three"]) as server, Client(server.url, "three") as client:
        expected = inference(three_types.model, tiny_task)(feed)
        np.testing.assert_allclose(client.infer(feed), expected, atol=1e-5)
        with pytest.raises(InputError, match="token_type_ids: found values from 0 to 3, expected 0 to 2"):
            client.infer({**feed, "token_type_ids": np.minimum(feed["token_type_ids"] * 2, 3)})
