"""Students: which layers and channels they begin with, in several families, and which sizes cannot be."""

import copy
from dataclasses import replace

import pytest
import torch
import transformers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from optkit import Distill, Quantize
from optkit.compression.representations import Representations
from optkit.compression.student import check, check_teacher, chosen_layers, student
from optkit.core.errors import InputError
from optkit.models.families import layers_of
from optkit.models.loading import LoadedModel
from optkit.tasks.base import Task
from optkit.tasks.question_answering import QuestionAnswering
from optkit.training.losses import Batch, live

from .encoders import OTHERS, RELATIVE, encoder

FAMILIES = ("Bert", "Roberta", "Electra", "DistilBert")


def model(family: str, depth: int = 4, **sizes: int) -> PreTrainedModel:
    """A random classifier of width 32 with 4 heads and an inner width of 64."""
    torch.manual_seed(0)
    given = {"hidden_size": 32, "num_hidden_layers": depth, "num_attention_heads": 4, "intermediate_size": 64, **sizes}
    if family == "DistilBert":
        given = {"dim": 32, "n_layers": depth, "n_heads": 4, "hidden_dim": 64}
    if family == "Electra":
        given["embedding_size"] = 16
    config = getattr(transformers, f"{family}Config")(vocab_size=20, max_position_embeddings=18, **given)
    return getattr(transformers, f"{family}ForSequenceClassification")(config).eval()


@pytest.mark.parametrize(
    ("depth", "count", "chosen"),
    [
        (12, 6, [0, 2, 4, 7, 9, 11]),
        (12, 4, [0, 4, 7, 11]),
        (12, 3, [0, 6, 11]),
        (12, 2, [0, 11]),
        (12, 1, [11]),
        (6, 6, [0, 1, 2, 3, 4, 5]),
        (6, 4, [0, 2, 3, 5]),
    ],
)
def test_layers_are_evenly_spaced_from_the_first_to_the_last(depth: int, count: int, chosen: list[int]) -> None:
    assert chosen_layers(depth, count) == chosen


@pytest.mark.parametrize("depth", range(1, 25))
def test_no_layer_is_chosen_twice(depth: int) -> None:
    for count in range(1, depth + 1):
        chosen = chosen_layers(depth, count)
        assert len(set(chosen)) == count and chosen == sorted(chosen) and chosen[-1] == depth - 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shallower_student_has_the_teachers_chosen_layers(family: str) -> None:
    teacher = model(family)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    made = student(teacher, 2, None)
    assert type(made) is type(teacher)
    assert made.config.num_hidden_layers == 2 and teacher.config.num_hidden_layers == 4
    theirs, ours = teacher.state_dict(), made.state_dict()
    number = layers_of(made).number
    for name, tensor in ours.items():
        source = name.replace(".1.", ".3.") if number(name) == 1 else name  # layers 0 and 3 of the four
        assert torch.equal(tensor, theirs[source]), name
        assert tensor.data_ptr() != theirs[source].data_ptr()
    assert {number(name) for name in ours} == {None, 0, 1}
    assert all(torch.equal(tensor, before[name]) for name, tensor in theirs.items()), "the teacher stays as it is"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_of_the_teachers_size_is_the_teacher(family: str) -> None:
    teacher = model(family)
    feed = {"input_ids": torch.arange(2, 12)[None], "attention_mask": torch.ones(1, 10, dtype=torch.long)}
    with torch.no_grad():
        assert torch.equal(student(teacher, None, None).eval()(**feed).logits, teacher(**feed).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_narrower_student_answers(family: str) -> None:
    made = student(model(family), 3, 16).eval()
    assert (made.config.num_hidden_layers, made.config.hidden_size) == (3, 16)
    inner = getattr(made.config, "intermediate_size", None) or made.config.hidden_dim
    assert inner == 32, "the feed-forward narrows by the same ratio"
    assert made.get_input_embeddings().weight.shape[1] == (8 if family == "Electra" else 16)
    with torch.no_grad():
        logits = made(input_ids=torch.arange(2, 12)[None]).logits
    assert bool(torch.isfinite(logits).all())


def test_a_narrower_student_takes_the_first_channels_of_every_head() -> None:
    teacher = model("Bert")
    made = student(teacher, 1, 16)  # heads of 8 become heads of 4
    theirs, ours = teacher.bert.encoder.layer[3], made.bert.encoder.layer[0]
    heads = torch.tensor([0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27])
    for kind in ("query", "key", "value"):
        own, full = getattr(ours.attention.self, kind), getattr(theirs.attention.self, kind)
        assert torch.equal(own.weight, full.weight[heads][:, :16])
        assert torch.equal(own.bias, full.bias[heads])
    assert torch.equal(ours.attention.output.dense.weight, theirs.attention.output.dense.weight[:16][:, heads])
    assert torch.equal(ours.attention.output.dense.bias, theirs.attention.output.dense.bias[:16])
    assert torch.equal(ours.intermediate.dense.weight, theirs.intermediate.dense.weight[:32, :16])
    assert torch.equal(ours.output.dense.weight, theirs.output.dense.weight[:16, :32])
    assert torch.equal(made.bert.embeddings.word_embeddings.weight, teacher.bert.embeddings.word_embeddings.weight[:, :16])
    assert torch.equal(made.classifier.weight, teacher.classifier.weight[:, :16])


def test_distilberts_heads_are_cut_like_berts() -> None:
    teacher = model("DistilBert")
    theirs, ours = teacher.distilbert.transformer.layer[3], student(teacher, 1, 16).distilbert.transformer.layer[0]
    heads = torch.tensor([0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27])
    assert torch.equal(ours.attention.q_lin.weight, theirs.attention.q_lin.weight[heads][:, :16])
    assert torch.equal(ours.attention.out_lin.weight, theirs.attention.out_lin.weight[:16][:, heads])
    assert torch.equal(ours.ffn.lin1.weight, theirs.ffn.lin1.weight[:32, :16])


def test_on_the_meta_device_no_weight_is_made() -> None:
    with torch.device("meta"):
        teacher = BertForSequenceClassification(BertConfig())
    made = student(teacher, 6, 384)
    assert all(parameter.is_meta for parameter in made.parameters())
    assert made.bert.encoder.layer[5].attention.self.query.weight.shape == (384, 384)


def test_a_student_deeper_than_its_teacher() -> None:
    with pytest.raises(InputError, match=r"^a student of 6 layers is deeper than its teacher of 4; give at most 4$"):
        student(model("Bert"), 6, None)


def test_a_student_wider_than_its_teacher() -> None:
    with pytest.raises(InputError, match=r"^a student 64 wide is wider than its teacher of 32; give at most 32$"):
        student(model("Bert"), None, 64)


@pytest.mark.parametrize(("width", "advice"), [(18, "give 16 or 20"), (3, "give 4")])
def test_a_width_that_the_heads_do_not_divide(width: int, advice: str) -> None:
    with pytest.raises(InputError) as error:
        check(BertConfig(hidden_size=32, num_attention_heads=4), None, width)
    assert str(error.value) == f"hidden_size={width} is not divided by the 4 attention heads of the teacher; {advice}"


def test_a_teacher_of_another_vocabulary(tiny_model: LoadedModel) -> None:
    words = [*tiny_model.tokenizer.get_vocab(), "extra"]
    words[-2], words[-1] = words[-1], words[-2]
    other = transformers.BertTokenizerFast(vocab={word: index for index, word in enumerate(words)})
    with pytest.raises(InputError) as error:
        check_teacher(tiny_model, replace(tiny_model, tokenizer=other), "./big")
    ours, theirs = tiny_model.tokenizer.get_vocab(), other.get_vocab()
    differing = sorted(word for word in theirs if ours.get(word) != theirs[word])
    assert str(error.value) == (
        f"teacher './big' has a vocabulary of {len(theirs)} tokens, the student one of {len(ours)}, and "
        f"{len(differing)} tokens differ ({', '.join(map(repr, differing[:3]))}); expected the same. Choose a teacher "
        "that was trained with the student's tokenizer"
    )
    assert len(theirs) == len(ours) + 1 and "extra" in differing


def test_a_teacher_shallower_than_the_student(tiny_model: LoadedModel) -> None:
    check_teacher(tiny_model, tiny_model, "./equal")
    shallow = replace(tiny_model, model=student(copy.deepcopy(tiny_model.model), 1, None))
    with pytest.raises(InputError, match=r"a student of 2 layers is deeper than its teacher './small' of 1; give fewer"):
        check_teacher(tiny_model, shallow, "./small")


STORED = Distill(layers=1, representation_epochs=0)
LIVE = Distill(layers=1, representation_epochs=0, augment=0.3)


def with_tokenizer(loaded: LoadedModel, **changes: object) -> LoadedModel:
    tokenizer = copy.deepcopy(loaded.tokenizer)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return replace(loaded, tokenizer=tokenizer)


@pytest.mark.parametrize("live", [LIVE, Distill(layers=1, representation_epochs=1)])
def test_a_teacher_of_other_tokens_teaches_by_stored_logits_alone(
    live: Distill, tiny_model: LoadedModel, tiny_task: Task
) -> None:
    vocabulary = tiny_model.tokenizer.get_vocab()
    cased = transformers.BertTokenizerFast(vocab=vocabulary, do_lower_case=False, model_max_length=16)
    other = replace(tiny_model, tokenizer=cased)
    check_teacher(tiny_model, other, "./big", STORED, tiny_task)
    message = r"teacher './big' reads texts otherwise than the student: their tokenizers differ in normalizer"
    with pytest.raises(InputError, match=message):
        check_teacher(tiny_model, other, "./big", live, tiny_task)


def test_of_several_teachers_the_first_alone_shows_its_representations(tiny_model: LoadedModel, tiny_task: Task) -> None:
    """Another one may read other tokens, and be shallower."""
    cased = transformers.BertTokenizerFast(vocab=tiny_model.tokenizer.get_vocab(), do_lower_case=False, model_max_length=16)
    other = LoadedModel(student(tiny_model.model, 1, None), cased)
    stage = Quantize(epochs=1, representation_epochs=1, teacher=["./first", "./second"])
    check_teacher(tiny_model, other, "./second", stage, tiny_task)
    with pytest.raises(InputError, match=r"teacher './first' reads texts otherwise than the student"):
        check_teacher(tiny_model, other, "./first", stage, tiny_task)


def test_a_teacher_of_fewer_tokens(tiny_model: LoadedModel, tiny_task: Task) -> None:
    short = with_tokenizer(tiny_model, model_max_length=8)
    check_teacher(tiny_model, short, "./short", STORED, tiny_task)
    check_teacher(short, tiny_model, "./long", LIVE, tiny_task)
    with pytest.raises(InputError, match=r"teacher './short' reads at most 8 tokens, the student 16; expected no fewer"):
        check_teacher(tiny_model, short, "./short", LIVE, tiny_task)


def test_a_teacher_of_fewer_tokens_than_were_asked_for(tiny_model: LoadedModel, tiny_task: Task) -> None:
    task = copy.copy(tiny_task)
    task.limit_length(16)
    with pytest.raises(InputError, match=r"^teacher './short': --max-length 16: the model takes 8 tokens at most"):
        check_teacher(tiny_model, with_tokenizer(tiny_model, model_max_length=8), "./short", STORED, task)


def test_a_teacher_of_inputs_that_the_student_lacks(tiny_model: LoadedModel, tiny_task: Task) -> None:
    lacking = with_tokenizer(tiny_model, model_input_names=["input_ids", "attention_mask"])
    check_teacher(lacking, tiny_model, "./big", LIVE, tiny_task)  # one text is the first segment
    pairs = copy.copy(tiny_task)
    pairs.text_columns = ("sentence1", "sentence2")
    check_teacher(lacking, tiny_model, "./big", STORED, pairs)
    check_teacher(tiny_model, lacking, "./big", LIVE, pairs)
    with pytest.raises(
        InputError, match=r"teacher './big' takes token_type_ids, which the student's tokenizer does not give"
    ):
        check_teacher(lacking, tiny_model, "./big", LIVE, pairs)


def test_logits_of_tokens_need_the_same_tokens(tiny_model: LoadedModel) -> None:
    cased = transformers.BertTokenizerFast(vocab=tiny_model.tokenizer.get_vocab(), do_lower_case=False, model_max_length=16)
    with pytest.raises(InputError, match="reads texts otherwise than the student"):
        check_teacher(tiny_model, replace(tiny_model, tokenizer=cased), "./big", STORED, QuestionAnswering)
    with pytest.raises(InputError, match="reads at most 16 tokens, the student 8; expected as many"):
        short = with_tokenizer(tiny_model, model_max_length=8)
        check_teacher(short, tiny_model, "./big", STORED, QuestionAnswering)


def test_a_live_teacher_gets_its_own_inputs(tiny_model: LoadedModel, tiny_task: Task) -> None:
    """A student that reads segments, and a teacher that cannot take them."""
    config = transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64, vocab_size=30)
    teacher = transformers.DistilBertForSequenceClassification(config).eval()
    tokens = tiny_model.tokenizer(["a lovely film"], return_tensors="pt")
    assert "token_type_ids" in tokens
    names = ["input_ids", "attention_mask"]
    with torch.no_grad():
        expected = teacher(**{name: tokens[name] for name in names}).logits
        pair = Representations(tiny_model.model, teacher, [0, 1], 1.0, 1.0, 4, names)
        assert torch.isfinite(pair(**tokens))
    assert torch.equal(live(teacher, tiny_task, names)(Batch(tokens, {}, [0])), expected)


HEADS = torch.tensor([0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27])
"""The first four channels of each of four heads of eight."""


@pytest.mark.parametrize("name", OTHERS)
def test_students_of_other_structures_answer_and_those_of_the_teachers_size_are_the_teacher(name: str) -> None:
    teacher = encoder(name, **OTHERS[name])
    feed = {"input_ids": torch.arange(5, 25)[None], "attention_mask": torch.ones(1, 20, dtype=torch.long)}
    with torch.no_grad():
        assert torch.equal(student(teacher, None, None).eval()(**feed).logits, teacher(**feed).logits)
        for made in (student(teacher, 2, None), student(teacher, 2, 16), student(teacher, 1, 16)):
            assert bool(made.eval()(**feed).logits.isfinite().all())


def test_a_fused_projection_is_cut_in_each_third_and_head() -> None:
    teacher = encoder("ModernBert")
    theirs, ours = teacher.model.layers[3], student(teacher, 2, 16).model.layers[1]
    rows = torch.cat([HEADS, 32 + HEADS, 64 + HEADS])
    assert torch.equal(ours.attn.Wqkv.weight, theirs.attn.Wqkv.weight[rows][:, :16])
    assert torch.equal(ours.attn.Wo.weight, theirs.attn.Wo.weight[:16][:, HEADS])
    halves = torch.cat([torch.arange(24), 48 + torch.arange(24)])
    assert torch.equal(ours.mlp.Wi.weight, theirs.mlp.Wi.weight[halves][:, :16])


def test_debertas_fused_projection_is_cut_in_each_head_and_third() -> None:
    teacher = encoder("Deberta", **RELATIVE)
    theirs, ours = (m.deberta.encoder.layer[3].attention.self for m in (teacher, student(teacher, None, 16)))
    rows = torch.arange(96).reshape(4, 3, 8)[:, :, :4].flatten()
    assert torch.equal(ours.in_proj.weight, theirs.in_proj.weight[rows][:, :16])
    assert torch.equal(ours.q_bias, theirs.q_bias[HEADS])
    assert torch.equal(ours.pos_proj.weight, theirs.pos_proj.weight[HEADS][:, :16])


def test_shared_keys_are_cut_in_each_of_their_own_heads() -> None:
    teacher = encoder("EuroBert", num_key_value_heads=2)
    theirs, ours = teacher.model.layers[0].self_attn, student(teacher, None, 16).model.layers[0].self_attn
    assert torch.equal(ours.q_proj.weight, theirs.q_proj.weight[HEADS][:, :16])
    assert torch.equal(ours.k_proj.weight, theirs.k_proj.weight[HEADS[:8]][:, :16])


def test_a_students_layers_are_of_the_kind_of_those_that_they_come_from() -> None:
    teacher = encoder(
        "ModernBert", layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    )
    made = student(teacher, 3, None)
    assert made.config.layer_types == ["full_attention", "sliding_attention", "full_attention"]
    assert torch.equal(made.model.layers[2].mlp.Wo.weight, teacher.model.layers[3].mlp.Wo.weight)


def test_layers_in_parts_side_by_side_are_taken_together() -> None:
    teacher = encoder("XLM")
    for index, norm in enumerate(teacher.transformer.layer_norm2):
        norm.weight.data.fill_(index)
    made = student(teacher, 2, None).transformer
    assert [float(norm.weight[0]) for norm in made.layer_norm2] == [0, 3]
    assert torch.equal(made.ffns[1].lin1.weight, teacher.transformer.ffns[3].lin1.weight)


def test_layers_that_share_their_weights_become_fewer() -> None:
    teacher = encoder("Albert", embedding_size=16)
    made = student(teacher, 2, None)
    assert made.config.num_hidden_layers == 2
    assert all(torch.equal(made.state_dict()[name], tensor) for name, tensor in teacher.state_dict().items())


def test_what_is_computed_and_not_learned_is_the_students_own() -> None:
    made = student(encoder("RoFormer", embedding_size=16), None, 16).roformer.encoder.embed_positions.weight
    angles = torch.arange(64)[:, None] / 10000 ** (torch.arange(0, 4, 2) / 4)
    assert torch.allclose(made, torch.cat([angles.sin(), angles.cos()], 1), atol=1e-5)


def test_heads_of_an_odd_size_cannot_be_rotated() -> None:
    with pytest.raises(InputError, match="hidden_size=12 makes heads of 3 channels, an odd number, which cannot be rotated"):
        student(encoder("ModernBert"), None, 12)
