"""Sorts documents by their relevance to a query, by a served reranking model and with NVIDIA's client alone.

pip install 'tritonclient[http]'
python examples/reranking.py reviews_ptq_int8 "superb soup" "the soup was dull" "the soup was very good"
"""

import argparse

import numpy as np
import tritonclient.http

BATCH = 64
"""Documents in a request; the server takes no more. Scores of several requests may be compared."""


def main() -> None:
    """Ask, and print the documents, the best first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="name of the published model")
    parser.add_argument("query")
    parser.add_argument("documents", nargs="+")
    parser.add_argument("--url", default="127.0.0.1:8000")
    given = parser.parse_args()
    with tritonclient.http.InferenceServerClient(given.url) as client:
        scores = rerank(client, f"{given.model}_text", given.query, given.documents)
    for place in np.argsort(-scores, kind="stable"):
        print(f"{scores[place]:.4f}  {given.documents[place]}")


def rerank(client: tritonclient.http.InferenceServerClient, pipeline: str, query: str, documents: list[str]) -> np.ndarray:
    """Return the relevance of each document, from 0 to 1."""
    scores = []
    for first in range(0, len(documents), BATCH):
        batch = documents[first : first + BATCH]
        inputs = [tensor("query", [query] * len(batch)), tensor("document", batch)]
        scores.append(client.infer(pipeline, inputs).as_numpy("score")[:, 0])
    return np.concatenate(scores)


def tensor(name: str, texts: list[str]) -> tritonclient.http.InferInput:
    """Return texts as an input [batch, 1]."""
    made = tritonclient.http.InferInput(name, [len(texts), 1], "BYTES")
    made.set_data_from_numpy(np.array([[text.encode()] for text in texts], dtype=object))
    return made


if __name__ == "__main__":
    main()
