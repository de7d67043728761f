"""Vectors of many texts by a served model, as arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optkit.core.errors import InputError
from optkit.serving.text_client import TextClient
from optkit.tasks.vectors import Vector


def encode(texts: Sequence[str], model: str, url: str = "127.0.0.1:8000", prompt: str | None = None) -> NDArray[Any]:
    """Ask a served embedding model for the vectors of texts.

        queries = optkit.encode(["who wrote it?"], "embedding_ptq_int8", prompt="query")
        documents = optkit.encode(passages, "embedding_ptq_int8", prompt="document")

    Args:
        texts: one or more.
        model: name of the published model.
        url: `host:port` of the server's HTTP protocol.
        prompt: name of the prompt that goes before the texts, such as "query" or "document"; None for the model's default.

    Returns:
        Vectors as the model serves them: float32 or int8 [texts, dimensions], or bits as uint8 [texts, dimensions / 8].

    Raises:
        InputError: the server has no such model, it has no prompts or not this one, or it answers no vectors; or no texts.
        MachineError: the server is gone, or does not answer in time.
    """
    with TextClient(url, model) as client:
        size = client.largest_batch()
        requests = [(text,) if prompt is None else (text, prompt) for text in texts]
        found = [answer for start in range(0, len(requests), size) for answer in client.ask(requests[start : start + size])]
    vectors = [answer for answer in found if isinstance(answer, Vector)]
    if not vectors or len(vectors) < len(found):
        got = type(found[0]).__name__ if found else "nothing, as there are no texts"
        raise InputError(f"model {model!r} on {url}: answers {got}, expected vectors of one text or more")
    return np.stack([vector.values for vector in vectors])
