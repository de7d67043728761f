"""Which texts are pieces of others: equal word by word, whatever the case and the punctuation."""

import re
from collections.abc import Iterable, Sequence

Words = tuple[str, ...]
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|\w+")
"""Words; of Chinese and Japanese, which set no blanks, single characters."""
_BEGIN = 4
"""Words by which a text is looked for within others."""
LEAST = 3
"""Words of a piece: shorter texts stand in any other, and say nothing of it."""


def words_of(text: str) -> Words:
    """Return the words of a text; a text without any is one word itself."""
    return tuple(_WORD.findall(text.casefold())) or (text.strip(),)


class Pieces:
    """Texts that are looked for within others, in time that grows with these others' length alone."""

    def __init__(self, texts: Iterable[Words]) -> None:
        """Take in the texts of at least `LEAST` words.

        Args:
            texts: their words.
        """
        self._by_begin: dict[Words, dict[int, set[Words]]] = {}
        for words in texts:
            if len(words) >= LEAST:
                self._by_begin.setdefault(words[:_BEGIN], {}).setdefault(len(words), set()).add(words)

    def within(self, words: Words) -> set[Words]:
        """Return the texts that stand in another one, which may be one of them."""
        found = set()
        for start in range(len(words) - LEAST + 1):
            for size in range(LEAST, _BEGIN + 1):
                for length, texts in self._by_begin.get(words[start : start + size], {}).items():
                    piece = words[start : start + length]
                    if piece in texts:
                        found.add(piece)
        return found


def sentences_of(texts: Sequence[str]) -> list[list[int]]:
    """Return the sentences that each text belongs to: itself, or the whole texts that it is a piece of.

    Args:
        texts: of the rows.

    Returns:
        Numbers of sentences, for each text one or more, by first appearance. Equal texts have the same.
    """
    rows = [words_of(text) for text in texts]
    known = list(dict.fromkeys(rows))
    pieces = Pieces(known)
    within = {words: pieces.within(words) - {words} for words in known}
    parts = set().union(*within.values())
    sentences: dict[Words, list[int]] = {}
    for number, whole in enumerate(words for words in known if words not in parts):
        for words in (whole, *within[whole]):
            sentences.setdefault(words, []).append(number)
    return [sentences[words] for words in rows]
