"""Asks a served multi-label model, with NVIDIA's client: nothing of optkit is needed.

pip install 'tritonclient[http]'
python examples/multi_label.py sample_multi_label_ptq_int8 "The soup was good." "The plot was not bad."
"""

import argparse

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput


def main() -> None:
    """Ask about all texts in one request, and print the labels of each with their probabilities."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="name of the published model")
    parser.add_argument("texts", nargs="+", help="as many as the model's largest batch")
    parser.add_argument("--url", default="127.0.0.1:8000")
    given = parser.parse_args()
    tensor = InferInput("text", [len(given.texts), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[text.encode()] for text in given.texts], dtype=object))
    with InferenceServerClient(given.url) as client:
        answer = client.infer(f"{given.model}_text", [tensor])
    # the labels above their thresholds come first, the most probable at the front; "" fills up the rest
    for text, labels, shares in zip(given.texts, answer.as_numpy("labels"), answer.as_numpy("probability"), strict=True):
        chosen = [f"{label.decode()} {share:.3f}" for label, share in zip(labels, shares, strict=True) if label]
        print(f"{text}\t{', '.join(chosen) or 'no label'}")


if __name__ == "__main__":
    main()
