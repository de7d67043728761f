"""A part of train held out to choose settings by."""

import pytest
from datasets import Dataset

from optkit.core.errors import InputError
from optkit.tasks.held_out import held_out
from optkit.tasks.registry import load


def rows(*texts: str) -> str:
    return "sentence\tlabel\n" + "".join(f"{text}\t{number % 2}\n" for number, text in enumerate(texts))


def test_pieces_of_a_text_stay_with_it_and_dev_is_not_looked_at(write, tokenizer) -> None:
    texts = [f"{' '.join(f'word{number}{place}' for place in range(6))}" for number in range(20)]
    pieces = [" ".join(text.split()[1:5]) for text in texts]
    task = load("classification", write({"train.tsv": rows(*texts, *pieces), "dev.tsv": rows("x", "y")}))
    found = held_out(task, task.encode("train", tokenizer), 0.25)
    assert sorted([*found.rest, *found.held]) == list(range(40)) and len(found.held) == 10
    assert {row % 20 for row in found.held}.isdisjoint(row % 20 for row in found.rest)
    assert len(held_out(task, task.encode("train", tokenizer), 0.25, most=4).held) == 4


def test_windows_of_an_example_stay_on_one_side(write) -> None:
    task = load("classification", write({"train.tsv": rows(*map(str, range(10))), "dev.tsv": rows("x", "y")}))
    features = Dataset.from_dict({"example": [number // 3 for number in range(30)]})
    found = held_out(task, features, 0.5)
    assert len(found.held) == 15 and {index // 3 for index in found.held}.isdisjoint(index // 3 for index in found.rest)


def test_questions_on_a_passage_stay_together(write, squad_json, tokenizer) -> None:
    one = squad_json("a b c", ("1", "q", ["a"]), ("2", "r", ["b"]))
    other = squad_json("d e f", ("3", "q", ["d"]), ("4", "s", ["e"]))
    both = one[: one.rindex("]")] + "," + other[other.index("[") + 1 :]
    task = load("qa", write({"train.json": both, "dev.json": one}))
    found = held_out(task, task.encode("train", tokenizer), 0.5)
    assert {frozenset(found.rest.tolist()), frozenset(found.held.tolist())} == {frozenset({0, 1}), frozenset({2, 3})}


def test_one_group_is_no_choice(write, tokenizer) -> None:
    task = load("classification", write({"train.tsv": rows("a b c d e", "b c d"), "dev.tsv": rows("x", "y")}))
    with pytest.raises(InputError, match="2 training rows have no group of 10% of them or fewer"):
        held_out(task, task.encode("train", tokenizer))
