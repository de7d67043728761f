"""Asks a served model in words, over HTTP and, with --grpc, over gRPC, with NVIDIA's client: nothing of optkit is needed.

    pip install 'tritonclient[http,grpc]'
    python examples/client.py sample_qat_gelu10 "The plot is dull."
    python examples/client.py squad_qat_gelu10 "Who wrote it?" --context "It was written by Ada."

`tritonclient[http]` is enough for the HTTP half, `tritonclient[grpc]` for the other.
"""

import argparse

import numpy as np
import tritonclient.grpc
import tritonclient.http


def main() -> None:
    """Ask over each protocol, and print the answers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="name of the published model")
    parser.add_argument("text")
    parser.add_argument("--context", help="the passage with the answer, or the second text of a pair")
    parser.add_argument("--http", default="127.0.0.1:8000")
    parser.add_argument("--grpc", help="of a server with `optkit serve --grpc`, such as 127.0.0.1:8001")
    given = parser.parse_args()
    texts = [given.text] if given.context is None else [given.text, given.context]
    print("tritonclient.http", *ask(tritonclient.http, given.http, f"{given.model}_text", texts))
    if given.grpc is not None:
        print("tritonclient.grpc", *ask(tritonclient.grpc, given.grpc, f"{given.model}_text", texts))


def ask(protocol, url: str, pipeline: str, texts: list[str]) -> list[str]:
    """One request; both protocols' clients have the same functions.

    A classifier takes texts as [batch, 1], as many as the model's largest batch; a question is asked alone, as [1].
    """
    client = protocol.InferenceServerClient(url)
    try:
        metadata = client.get_model_metadata(pipeline, **({"as_json": True} if protocol is tritonclient.grpc else {}))
        batched = len(metadata["inputs"][0]["shape"]) > 1
        inputs = []
        for field, text in zip(metadata["inputs"], texts, strict=True):
            values = np.array([[text.encode()]] if batched else [text.encode()], dtype=object)
            tensor = protocol.InferInput(field["name"], list(values.shape), "BYTES")
            tensor.set_data_from_numpy(values)
            inputs.append(tensor)
        answer = client.infer(pipeline, inputs)
        return [f"{output['name']}={shown(answer.as_numpy(output['name']))}" for output in metadata["outputs"]]
    finally:
        client.close()


def shown(values: np.ndarray) -> str:
    """Text as text, numbers with up to three digits."""
    return ", ".join(one.decode() if isinstance(one, bytes) else f"{one:.3g}" for one in values.reshape(-1).tolist())


if __name__ == "__main__":
    main()
