"""Asks a served regression model for the value of texts, or of pairs, with NVIDIA's client: nothing of optkit is needed.

pip install 'tritonclient[http]'
python examples/regression.py sample_regression_ptq_int8 "The soup was very good." "The plot was dull."
python examples/regression.py stsb_ptq_int8 --pair "A man eats." "Somebody is eating."
"""

import argparse

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput


def main() -> None:
    """Ask about all texts in one request, and print the value of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="name of the published model")
    parser.add_argument("texts", nargs="+", help="as many as the model's largest batch; with --pair two for each value")
    parser.add_argument("--pair", action="store_true", help="the model takes pairs")
    parser.add_argument("--url", default="127.0.0.1:8000")
    given = parser.parse_args()
    columns = {"text": given.texts[::2], "text_pair": given.texts[1::2]} if given.pair else {"text": given.texts}
    inputs = []
    for name, texts in columns.items():
        inputs.append(InferInput(name, [len(texts), 1], "BYTES"))
        inputs[-1].set_data_from_numpy(np.array([[text.encode()] for text in texts], dtype=object))
    with InferenceServerClient(given.url) as client:
        values = client.infer(f"{given.model}_text", inputs).as_numpy("value")
    for texts, value in zip(zip(*columns.values(), strict=True), values[:, 0], strict=True):
        print(*texts, f"{value:.4g}", sep="\t")


if __name__ == "__main__":
    main()
