"""Whatever lies in the place of tokens and tags is read, or refused by its name; and whatever is read can be encoded."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizerFast

from optkit.core.errors import OptkitError
from optkit.tasks.collate import IGNORED
from optkit.tasks.data.iob import entities
from optkit.tasks.registry import load
from tests import damage

ROWS = [{"tokens": ["ada", "in", "bonn"], "tags": ["B-per", "O", "B-loc"]}, {"tokens": ["b."], "tags": ["O"]}]
CONLL = "".join("".join(map("{}\t{}\n".format, row["tokens"], row["tags"])) + "\n" for row in ROWS)
TAGS = ("O", "B-per", "I-per", "B-loc", "I-loc")
tokens = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4) | st.sampled_from(
    ["ada", "bonn", ".", "u.s.", "東京"]
)
sentences = st.lists(st.tuples(tokens, st.sampled_from(TAGS)), min_size=1, max_size=12)


def row(sentence: list[tuple[str, str]]) -> dict[str, list[str]]:
    """A sentence with well-formed tags."""
    tags = [tag for _, tag in sentence]
    for kind, first, _ in entities(tags):
        tags[first] = f"B-{kind}"
    return {"tokens": [token for token, _ in sentence], "tags": tags}


def told(folder: Path, error: OptkitError) -> bool:
    return damage.is_told(
        error, *(folder / f"{split}.{ending}" for split in ("train", "dev") for ending in ("conll", "jsonl"))
    )


@pytest.mark.slow
@pytest.mark.doors
@given(content=damage.damaged(CONLL.encode()) | damage.misfits(ROWS), ending=st.sampled_from(["conll", "jsonl"]))
def test_any_file_is_read_or_refused_by_its_name(
    content: bytes, ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tags")
    (folder / "dev.conll").write_text(CONLL)
    (folder / f"train.{ending}").write_bytes(content)
    try:
        task = load("token_classification", folder)
    except OptkitError as error:
        assert told(folder, error)
    else:
        assert len(task.fingerprint()) == 64


@pytest.mark.slow
@pytest.mark.doors
@given(rows=st.lists(sentences, min_size=1, max_size=4), pieces=st.sampled_from(["first", "all"]))
def test_whatever_is_read_is_found_again(
    rows: list, pieces: str, tmp_path_factory: pytest.TempPathFactory, tokenizer: BertTokenizerFast
) -> None:
    """Right logits give the tags of the data, whatever characters tokens are made of."""
    folder = tmp_path_factory.mktemp("tags")
    for split in ("train", "dev"):
        (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(row(one)) for one in rows))
    try:
        task = load("token_classification", folder, options={"pieces": pieces}, max_length=12)
        features = task.encode("dev", tokenizer)
    except OptkitError as error:
        assert told(folder, error)
        return
    logits = [np.eye(len(task.labels))[np.where(np.array(own) == IGNORED, 1, own)] for own in features["labels"][:]]
    found = task.predict(features, logits)
    assert [list(one.tags) for one in found] == task.examples("dev")["tags"][:]
    for one, text in zip(found, task.examples("dev")["text"][:], strict=True):
        assert all(text[entity.start : entity.end] == entity.text and entity.text.strip() for entity in one.found)
