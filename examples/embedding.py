"""Finds the passages nearest to a question by their vectors, with NVIDIA's client alone: nothing of optkit is needed.

pip install 'tritonclient[http]'
python examples/embedding.py embedding_ptq_int8 "Who wrote it?" "It was written by Ada." "It rained all day."
"""

import argparse

import numpy as np
import tritonclient.http


def main() -> None:
    """Print the passages, the nearest first, with their cosines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="name of the published model, whose vectors are float32 or int8")
    parser.add_argument("question")
    parser.add_argument("passages", nargs="+", metavar="passage")
    parser.add_argument("--http", default="127.0.0.1:8000")
    given = parser.parse_args()
    client = tritonclient.http.InferenceServerClient(given.http)
    try:
        (question,) = vectors(client, given.model, [given.question], "query")
        cosines = vectors(client, given.model, given.passages, "document") @ question
        for place in np.argsort(-cosines):
            print(f"{cosines[place]:.3f}  {given.passages[place]}")
    finally:
        client.close()


def vectors(client: tritonclient.http.InferenceServerClient, model: str, texts: list[str], prompt: str) -> np.ndarray:
    """Vectors of length 1, [texts, dimensions]; the model knows its prompt by name, where it has prompts."""
    pipeline = f"{model}_text"
    values = {"text": texts, "prompt": [prompt] * len(texts)}
    inputs = []
    for field in client.get_model_metadata(pipeline)["inputs"]:
        tensor = tritonclient.http.InferInput(field["name"], [len(texts), 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[value.encode()] for value in values[field["name"]]], dtype=object))
        inputs.append(tensor)
    found = client.infer(pipeline, inputs).as_numpy("embedding").astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
