"""The first phase of distillation: what of both models is compared, and that both are left as they were."""

import copy

import pytest
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from optkit.compression.relations import relation_loss
from optkit.compression.representations import Representations, last_vectors, representation_loss
from optkit.compression.student import student
from optkit.core.errors import InputError
from optkit.models.families import encoder_layers
from optkit.models.loading import LoadedModel
from optkit.training.losses import Batch, hidden_state_loss

from .encoders import OTHERS, encoder


@pytest.fixture
def feed(tiny_model: LoadedModel) -> dict[str, torch.Tensor]:
    texts = ["a lovely film", "this dull story with the poor cast"]
    return dict(tiny_model.tokenizer(texts, padding=True, return_tensors="pt"))


@pytest.fixture
def teacher(tiny_model: LoadedModel) -> PreTrainedModel:
    return tiny_model.model.eval()


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def hidden_states(model: PreTrainedModel, feed: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        return model(**feed, output_hidden_states=True).hidden_states


def queries(model: PreTrainedModel, feed: dict[str, torch.Tensor], kind: str) -> torch.Tensor:
    """Queries or the like of the last layer, from the hidden states that enter it."""
    last = model.bert.encoder.layer[-1].attention.self
    with torch.no_grad():
        return getattr(last, kind)(hidden_states(model, feed)[-2])


def test_a_copy_of_the_teacher_is_at_no_distance(teacher: PreTrainedModel, feed: dict[str, torch.Tensor]) -> None:
    pair = Representations(copy.deepcopy(teacher), teacher, [0, 1], 1.0, 1.0, 4).eval()
    assert pair(**feed).item() == pytest.approx(0.0, abs=1e-6)


def test_the_loss_is_that_of_the_layers_it_follows(teacher: PreTrainedModel, feed: dict[str, torch.Tensor]) -> None:
    made = student(teacher, 1, None).eval()
    theirs, ours = hidden_states(teacher, feed), hidden_states(made, feed)
    mask = feed["attention_mask"]
    hidden = [hidden_state_loss(ours[1], theirs[layer + 1], mask).item() for layer in (0, 1)]
    relations = [
        relation_loss(queries(made, feed, kind), queries(teacher, feed, kind), mask, 4).item()
        for kind in ("query", "key", "value")
    ]
    assert hidden[0] != pytest.approx(hidden[1], rel=0.01)
    for layer in (0, 1):
        pair = Representations(made, teacher, [layer], 0.5, 3.0, 4).eval()
        expected = 0.5 * hidden[layer] + 3.0 * sum(relations) / 3
        assert pair(**feed).item() == pytest.approx(expected, rel=1e-4)
        pair.release()


def test_several_layers_are_averaged(teacher: PreTrainedModel, feed: dict[str, torch.Tensor]) -> None:
    torch.manual_seed(1)
    made = type(teacher)(teacher.config).eval()
    theirs, ours = hidden_states(teacher, feed), hidden_states(made, feed)
    each = [hidden_state_loss(ours[i], theirs[i], feed["attention_mask"]).item() for i in (1, 2)]
    assert Representations(made, teacher, [0, 1], 1.0, 0.0, 4).eval()(**feed).item() == pytest.approx(
        sum(each) / 2, rel=1e-4
    )


def test_the_teacher_is_frozen_and_answers_without_dropout(tiny_model: LoadedModel, feed: dict[str, torch.Tensor]) -> None:
    teacher, made = tiny_model.model, student(tiny_model.model, 1, None)
    teacher.bert.embeddings.dropout.p = 0.9
    pair = Representations(made, teacher, [1], 1.0, 1.0, 4).train()
    assert made.training and not any(module.training for module in teacher.modules())
    pair(**feed).backward()
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    trained = {id(parameter) for parameter in pair.parameters() if parameter.requires_grad}
    assert trained == {id(parameter) for parameter in made.parameters()}
    assert all(parameter.grad is not None for parameter in made.parameters()), "several processes wait for each gradient"
    assert bool((made.bert.encoder.layer[0].output.dense.weight.grad != 0).any())
    assert pair(**feed).item() == pair(**feed).item()


def test_both_are_released(teacher: PreTrainedModel, feed: dict[str, torch.Tensor]) -> None:
    made = student(teacher, 1, None)
    pair = Representations(made, teacher, [1], 1.0, 1.0, 4)
    assert hooks(made) == 1 + 3 and hooks(teacher) == 2 + 3
    pair(**feed)
    assert not pair._vectors and not pair._layers["student"], "no activation is kept beyond its step"
    pair.release()
    assert hooks(made) == hooks(teacher) == 0
    assert set(made.state_dict()) == {name for name in teacher.state_dict() if ".layer.1." not in name}


def test_a_narrower_student_is_projected(teacher: PreTrainedModel, feed: dict[str, torch.Tensor]) -> None:
    made = student(teacher, 2, 16).eval()
    pair = Representations(made, teacher, [0, 1], 1.0, 0.0, 4)
    assert (
        isinstance(pair.projection, nn.Linear) and pair.projection.weight.shape == (32, 16) and pair.projection.bias is None
    )
    assert pair.projection.weight.requires_grad
    projected = [states @ pair.projection.weight.T for states in hidden_states(made, feed)[1:]]
    theirs = hidden_states(teacher, feed)[1:]
    each = [hidden_state_loss(a, b, feed["attention_mask"]).item() for a, b in zip(projected, theirs, strict=True)]
    assert pair.eval()(**feed).item() == pytest.approx(sum(each) / 2, rel=1e-4)


def test_a_student_as_wide_needs_no_projection(teacher: PreTrainedModel) -> None:
    pair = Representations(student(teacher, 1, None), teacher, [1], 1.0, 1.0, 4)
    assert not list(pair.projection.parameters())


def test_a_step_brings_the_student_closer(teacher: PreTrainedModel, feed: dict[str, torch.Tensor]) -> None:
    torch.manual_seed(1)
    pair = Representations(student(teacher, 1, 16), teacher, [1], 1.0, 1.0, 4)
    optimiser = torch.optim.AdamW([p for p in pair.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(30):
        losses.append(representation_loss(pair, Batch(feed, {}, [0, 1])))
        losses[-1].backward()
        optimiser.step()
        optimiser.zero_grad()
    assert losses[-1].item() < 0.7 * losses[0].item()


def test_relation_heads_must_divide_both_widths(teacher: PreTrainedModel) -> None:
    narrow = student(teacher, 1, 12)
    message = r"^relation_heads=8 does not divide the student's width of 12; give one of 1, 2, 4$"
    with pytest.raises(InputError, match=message):
        Representations(narrow, teacher, [1], 1.0, 1.0, 8)
    with pytest.raises(
        InputError, match=r"relation_heads=3 does not divide the teacher's width of 32; give one of 1, 2, 4$"
    ):
        Representations(narrow, teacher, [1], 1.0, 1.0, 3)


@pytest.mark.parametrize("family", ["Roberta", "Electra", "DistilBert"])
def test_relatives_of_bert_are_read_too(family: str) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    if family == "DistilBert":
        sizes = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64}
    config = getattr(transformers, f"{family}Config")(vocab_size=20, max_position_embeddings=18, **sizes)
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    assert [type(layer).__name__ for layer in encoder_layers(model)] == [type(encoder_layers(model)[0]).__name__] * 3
    assert list(last_vectors(model)) == ["query", "key", "value"]
    feed = {"input_ids": torch.arange(2, 10)[None], "attention_mask": torch.ones(1, 8, dtype=torch.long)}
    pair = Representations(copy.deepcopy(model), model, [0, 1, 2], 1.0, 1.0, 4).eval()
    assert pair(**feed).item() == pytest.approx(0.0, abs=1e-6)


def test_a_layer_without_queries_is_refused(teacher: PreTrainedModel) -> None:
    attention = teacher.bert.encoder.layer[1].attention.self
    attention.asked = attention.query
    del attention.query
    message = (
        r"its last layer has the Linear modules key, value, asked, dense; expected those of queries, keys and values\. Set"
    )
    with pytest.raises(InputError, match=message):
        last_vectors(teacher)


@pytest.mark.parametrize("name", OTHERS)
def test_other_structures_are_followed(name: str) -> None:
    teacher = encoder(name, **OTHERS[name])
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[1, 8:] = 0
    feed = {"input_ids": torch.arange(5, 29).reshape(2, 12), "attention_mask": mask}
    same = Representations(copy.deepcopy(teacher), teacher, [0, 1, 2, 3], 1.0, 1.0, 2).eval()
    assert same(**feed).item() == pytest.approx(0.0, abs=1e-6)
    assert not same._vectors and not same._layers["student"]
    same.release()
    pair = Representations(student(teacher, 2, 16), teacher, [0, 3], 1.0, 1.0, 2)
    loss = pair(**feed)
    loss.backward()
    assert loss.item() > 0.01


def test_thirds_of_a_fused_projection_are_queries_keys_and_values() -> None:
    for name in ("ModernBert", "Deberta"):
        model = encoder(name, **OTHERS[name])
        linear, parts = last_vectors(model)["query"][0], [part for _, part in last_vectors(model).values()]
        put_out = torch.arange(96.0).reshape(1, 1, 96)
        query, key, value = (part(put_out).flatten().tolist() for part in parts)
        assert linear.out_features == 96 and sorted([*query, *key, *value]) == list(range(96))
        assert (query[:8], key[:8]) == ([*range(8)], [*range(32, 40)] if name == "ModernBert" else [*range(8, 16)])


def test_vectors_are_those_of_tokens_not_of_positions() -> None:
    teacher = encoder("DebertaV2", **OTHERS["DebertaV2"])
    pair = Representations(copy.deepcopy(teacher), teacher, [0, 1, 2, 3], 1.0, 1.0, 2)
    teacher(input_ids=torch.arange(5, 17)[None])
    assert pair._vectors["teacher", "query"].shape == (1, 12, 32), "and not the table of relative positions"
    pair.release()
