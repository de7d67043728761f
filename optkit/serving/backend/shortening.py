"""Texts of any length are cut before they are tokenised, where their features stay exactly those of the whole texts.

A text is cut at a blank between two ASCII letters or digits. Where a tokenizer splits there, the tokens before it are made
of the characters before it alone: normalizers do not look across it, and the model sees one piece after the other.
"""

import re
from typing import NamedTuple

from tokenizers import Encoding, Tokenizer

LONGEST = 2**17
"""Characters that are tokenised of a text that cannot be cut earlier."""
MOST = 4 * LONGEST
"""Characters that are tokenised of all long texts of a request together, those looked at twice counted twice."""
_LONG = 2**12
"""Characters from which a text is a long one."""
QUICK = 8
"""Characters per token up to which a text is tokenised as it is."""
_WORST = 32
"""Characters per token of a text that has hardly any words."""
_BLANK = re.compile(r"(?<=[0-9A-Za-z]) (?=[0-9A-Za-z])")
_NEAR = 4096
"""Characters in which a blank is looked for."""


class TooLongError(Exception):
    """A text is too long, and where it may be cut is not known."""


class Beginning(NamedTuple):
    """A text, or what it begins with."""

    text: str
    tokens: int
    """How many it has, without special ones."""
    whole: bool
    """Whether it is all of the text."""


class Shortener:
    """Cuts texts for a tokenizer.

    Args:
        tokenizer: neither truncates nor pads.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._splits = _splits_at_blanks(tokenizer)
        self._spent = 0

    def begin(self) -> None:
        """Begin with a request: what is tokenised of its long texts is limited for all of them together."""
        self._spent = 0

    def beginning(self, text: str, tokens: int) -> Beginning:
        """Return a beginning that has at least so many tokens, or all of a text that has fewer.

        Raises:
            TooLongError: there is no such beginning that is short.
        """
        for limit in (QUICK * tokens, max(LONGEST, _WORST * tokens)):
            piece = self._piece(text, limit)
            if piece is not None:
                found = self._up_to(piece, tokens)
                if found.tokens >= tokens or len(piece) == len(text):
                    return found._replace(whole=len(found.text) == len(text))
        raise TooLongError

    def pair(self, first: str, second: str, tokens: int) -> tuple[str, str]:
        """Return two texts that are truncated to so many tokens together, the longer one first, as the given ones are.

        Raises:
            TooLongError: both are too long.
        """
        texts = first, second
        counted = [self._counted(text) for text in texts]
        short, long = (1, 0) if counted[0].tokens > counted[1].tokens else (0, 1)
        if not counted[short].whole:
            raise TooLongError  # it may be the longer one
        # Truncation looks at which one is longer, and at their lengths up to what both may have.
        less = self.beginning(texts[short], tokens + 1)
        more = self.beginning(texts[long], max(tokens, less.tokens) + 1)
        return (more.text, less.text) if long == 0 else (less.text, more.text)

    def _up_to(self, piece: str, tokens: int) -> Beginning:
        """Return what is before the first blank behind so many tokens, or all of a piece where there is none."""
        encoding = self._encoded(piece)
        if len(encoding) > tokens and self._splits:
            blank = _BLANK.search(piece, encoding.offsets[tokens - 1][1])
            if blank is not None:
                before = sum(end <= blank.start() for _, end in encoding.offsets)
                return Beginning(piece[: blank.start()], before, False)
        return Beginning(piece, len(encoding), True)

    def _counted(self, text: str) -> Beginning:
        """Return as much of a text as may be tokenised."""
        piece = self._piece(text, LONGEST)
        if piece is None:
            raise TooLongError
        return Beginning(piece, len(self._encoded(piece)), len(piece) == len(text))

    def _encoded(self, piece: str) -> Encoding:
        if len(piece) > _LONG:
            self._spent += len(piece)
        if self._spent > MOST:
            raise TooLongError
        return self._tokenizer.encode(piece, add_special_tokens=False)

    def _piece(self, text: str, limit: int) -> str | None:
        """Return a text, or what it begins with up to the last blank before a limit."""
        if len(text) <= limit:
            return text
        blanks = list(_BLANK.finditer(text, max(0, limit - _NEAR), limit)) if self._splits else []
        return text[: blanks[-1].start()] if blanks else None


def _splits_at_blanks(tokenizer: Tokenizer) -> bool:
    """Whether no token has a part on both sides of a blank between words."""
    if tokenizer.pre_tokenizer is None or any(
        " " in token.content for token in tokenizer.get_added_tokens_decoder().values()
    ):
        return False
    words = "a b" if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str("a b")
    return len(tokenizer.pre_tokenizer.pre_tokenize_str(words)) > 1
