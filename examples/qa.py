"""Asks a served model a question on a passage, with NVIDIA's client: nothing of optkit is needed.

pip install 'tritonclient[http]'
python examples/qa.py sample_qa_ptq_int8 "Any praise?" "The soup was dull. The room was very nice."
"""

import argparse

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput


def main() -> None:
    """Ask one question, and print its answers, the best first, with their scores and places in the passage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="name of the published model")
    parser.add_argument("question")
    parser.add_argument("passage", help="of any length: the server cuts it into windows")
    parser.add_argument("--url", default="127.0.0.1:8000")
    given = parser.parse_args()
    inputs = []
    for name, text in (("question", given.question), ("context", given.passage)):
        inputs.append(InferInput(name, [1], "BYTES"))
        inputs[-1].set_data_from_numpy(np.array([text.encode()], dtype=object))
    with InferenceServerClient(given.url) as client:
        answer = client.infer(f"{given.model}_text", inputs)
    # a model of SQuAD 2.0 has "" among its answers, for none; it comes first where the passage holds no answer
    for text, score, span in zip(*map(answer.as_numpy, ("answer", "score", "span")), strict=True):
        print(text.decode() or "(no answer)", f"{score:.3f}", *span, sep="\t")


if __name__ == "__main__":
    main()
