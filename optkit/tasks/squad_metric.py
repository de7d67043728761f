"""Exact match and F1 of an answer as SQuAD's official `evaluate-v1.1.py` and, for no answer, `evaluate-v2.0.py` define them.

Written out here because bootstraps need F1 question by question; `torchmetrics` gives the mean alone.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_PIECES = 8
"""Pieces of a passage, evenly distributed, that `chance_f1` looks at."""
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalized(text: str) -> str:
    """Lower case without punctuation, articles and extra whitespace."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def told(answers: Mapping[str, Any]) -> list[str]:
    """Return the right answers of a question that may have none: those with words, or `[""]` for none."""
    return [text for text in answers["text"] if normalized(text)] or [""]


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction equals one of the answers after normalisation, else 0."""
    return float(normalized(prediction) in {normalized(answer) for answer in answers})


def f1(prediction: str, answers: Sequence[str]) -> float:
    """The best F1 over the answers of the words in common, from 0 to 1; 0 where no words are left to compare, and 1 where
    none is right and none is given."""
    words = normalized(prediction).split()
    if list(answers) == [""]:
        return float(not words)
    return max(_f1(words, normalized(answer).split()) for answer in answers)


def chance_f1(prediction: str, answers: Sequence[str], passage: str) -> float:
    """Return the mean F1, from 0 to 1, of pieces of a passage that have as many words as the prediction has."""
    words, length = passage.split(), len(prediction.split())
    last = len(words) - length
    starts = {round(step * last / (_PIECES - 1)) for step in range(_PIECES)} if last > 0 else {0}
    return fmean(f1(" ".join(words[start : start + length]), answers) for start in starts)


def _f1(prediction: Sequence[str], answer: Sequence[str]) -> float:
    """2 · precision · recall / (precision + recall), which is 2 · common / (words of both)."""
    common = sum((Counter(prediction) & Counter(answer)).values())
    return 2.0 * common / (len(prediction) + len(answer)) if common else 0.0
