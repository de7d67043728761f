"""Asks a served tagger for the entities in texts, with NVIDIA's client: nothing of optkit is needed.

pip install 'tritonclient[http]'
python examples/token_classification.py sample_token_classification_ptq_int8 "The polite cook denied that the soup was good."
"""

import argparse

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput


def main() -> None:
    """Ask about one text after the other, each of any length, and print its entities."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="name of the published model")
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--url", default="127.0.0.1:8000")
    given = parser.parse_args()
    with InferenceServerClient(given.url) as client:
        for text in given.texts:
            tensor = InferInput("text", [1], "BYTES")
            tensor.set_data_from_numpy(np.array([text.encode()], dtype=object))
            answer = client.infer(f"{given.model}_text", [tensor])
            found = zip(*(answer.as_numpy(name) for name in ("type", "score", "span")), strict=True)
            print(text)
            for kind, score, (start, end) in found:
                print(f"{kind.decode()}\t{score:.3f}\t{start}-{end}\t{text[start:end]}")


if __name__ == "__main__":
    main()
