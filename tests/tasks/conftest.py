"""Small files and a small tokenizer for the tests of tasks."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import BertTokenizerFast

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?!'"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes files into an empty folder, text as UTF-8, and gives the folder: `write({"train.tsv": "…"})`."""

    def write_all(files: dict[str, str | bytes]) -> Path:
        for name, content in files.items():
            (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path

    return write_all


@pytest.fixture(scope="session")
def tokenizer() -> BertTokenizerFast:
    """WordPiece whose every letter is a token: `cab` gives `c`, `##a`, `##b`; reads 64 tokens."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    return BertTokenizerFast(vocab={piece: i for i, piece in enumerate(pieces)}, model_max_length=64)


@pytest.fixture
def squad_json() -> Callable[..., str]:
    """A file in SQuAD's JSON of `(id, question, answers)` on one passage; an answer is a text or `(text, start)`."""

    def make(context: str, *questions: tuple) -> str:
        asked = [
            {
                "id": name,
                "question": question,
                "answers": [
                    {"text": answer, "answer_start": context.index(answer)}
                    if isinstance(answer, str)
                    else {"text": answer[0], "answer_start": answer[1]}
                    for answer in answers
                ],
            }
            for name, question, answers in questions
        ]
        return json.dumps({"version": "1.1", "data": [{"paragraphs": [{"context": context, "qas": asked}]}]})

    return make
