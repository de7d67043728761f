"""Loads a folder with the class of another library, in that library's environment, and prints what it answers as JSON.

Arguments: the class, the backend ("onnx" or "openvino"), the folder.
"""

import json
import sys

TEXTS = ["the soup was superb", "the lying critic said that the film was dreadful"]


def answers(name: str, backend: str, folder: str) -> list[list[float]]:
    """What the class gives for `TEXTS`."""
    if name.startswith("ModelFor"):
        return _logits(name, backend, folder)
    import sentence_transformers

    kwargs = {"provider": "CPUExecutionProvider"} if backend == "onnx" else {}
    model = getattr(sentence_transformers, name)(folder, backend=backend, device="cpu", model_kwargs=kwargs)
    if name == "CrossEncoder":
        return [[score] for score in model.predict([(TEXTS[0], text) for text in TEXTS]).tolist()]
    return model.encode(TEXTS).tolist()


def _logits(name: str, backend: str, folder: str) -> list[list[float]]:
    """What a model of optimum gives, without the second text's padding."""
    from optimum import intel, onnxruntime
    from transformers import AutoTokenizer

    library, prefix = (intel, "OV") if backend == "openvino" else (onnxruntime, "ORT")
    model = getattr(library, prefix + name).from_pretrained(folder, subfolder=backend)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [model(**tokenizer(text, return_tensors="pt")).logits.flatten().tolist() for text in TEXTS]


if __name__ == "__main__":
    print(json.dumps(answers(*sys.argv[1:])))
