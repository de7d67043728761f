"""A folder of a recipe's graph that sentence-transformers or transformers load, with ONNX Runtime or OpenVINO beneath."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from optkit.compression import checkpoint
from optkit.core.atomic import write_json
from optkit.core.errors import InputError
from optkit.core.json_door import read_json
from optkit.core.step_cache import writing
from optkit.graph import onnx_file
from optkit.models import thresholds_file
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.export_graph import exported
from optkit.recipe.recipe import Recipe

_BY_SENTENCE_TRANSFORMERS = '{name}("{folder}", backend="openvino", device="cpu")  # or backend="onnx"'
_BY_OPTIMUM = 'OV{name}.from_pretrained("{folder}", subfolder="openvino", device="cpu")  # or ORT{name}, subfolder="onnx"'
FLAVOURS = {"sentence-transformers": _BY_SENTENCE_TRANSFORMERS, "optimum": _BY_OPTIMUM}
"""How each library loads its folder, in Python."""
_POOLS = "SentenceTransformer"
"""The class that pools what a graph gives."""
_OUTPUT, _AXIS = "last_hidden_state", "first_axis"
"""What it calls the tensor that is pooled, and the axes that are added to make one of the vectors."""


def check(
    flavour: str, target: Path | None, kinds: Sequence[str] = (), container: str | None = None, text: bool = False
) -> None:
    """Find what cannot work before anything is built.

    Args:
        flavour: of `FLAVOURS`.
        target: the folder that was asked for.
        kinds: of engine that were asked for.
        container: that was asked for.
        text: whether a server is to take text.

    Raises:
        InputError: no folder or one that is not empty, or an engine, a container or text for what holds a graph alone.
    """
    if target is None:
        raise InputError(f"--flavour {flavour}: needs a folder: --out DIR")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"--out {target}: exists and is not empty. Remove it, or choose another folder")
    if kinds or container is not None or text:
        given = f"--engine {kinds[0]}" if kinds else "--text" if container is None else f"--container {container}"
        raise InputError(
            f"{given}: a folder of the flavour {flavour} holds the graph for ONNX Runtime and OpenVINO; leave it out"
        )


def check_task(flavour: str, spec: RunSpec) -> None:
    """Raise `InputError` if the library has no class for the task."""
    if flavour not in spec.task.library_classes:
        possible = " and ".join(spec.task.library_classes) or "no library"
        raise InputError(f"--flavour {flavour}: has no class for the task {spec.task.name!r}; {possible} loads its folders")


def write(recipe: Recipe, spec: RunSpec, flavour: str, target: Path) -> str:
    """Write a recipe's graph in both forms, its tokenizer and what its task says of them.

    Args:
        recipe: is trained and exported where it is not.
        spec: it is run on.
        flavour: of `FLAVOURS`.
        target: the folder; made if it does not exist.

    Returns:
        The line of Python that loads it.
    """
    graph, folder = onnx_file.load(exported(recipe, spec) / "model.onnx"), spec.folder(recipe)
    loaded, name = checkpoint.load(folder, spec.task), spec.task.library_classes[flavour]
    with writing(target) as unfinished:
        _write_graphs(_as_tokens(graph) if name == _POOLS else graph, unfinished)
        loaded.model.config.save_pretrained(unfinished)
        loaded.tokenizer.save_pretrained(unfinished)
        name_tokenizer(unfinished / "tokenizer_config.json")
        thresholds_file.write(unfinished, loaded.thresholds)
        for path, content in spec.task.library_files(folder, loaded.tokenizer).items():
            (unfinished / path).parent.mkdir(exist_ok=True)
            write_json(unfinished / path, content)
    return FLAVOURS[flavour].format(name=name, folder=target)


def name_tokenizer(path: Path) -> None:
    """Give a tokenizer of no class of its own the name that the libraries' transformers, 4 and 5, both know."""
    settings = read_json(path)
    if settings.get("tokenizer_class") == "TokenizersBackend":
        write_json(path, {**settings, "tokenizer_class": "PreTrainedTokenizerFast"})


def _write_graphs(model: ModelProto, folder: Path) -> None:
    """Write a graph where the libraries look for ONNX's form and for OpenVINO's."""
    import openvino

    (folder / "onnx").mkdir()
    onnx_file.save(model, folder / "onnx" / "model.onnx")
    converted = openvino.Core().read_model(str(folder / "onnx" / "model.onnx"))
    openvino.save_model(converted, str(folder / "openvino" / "openvino_model.xml"), compress_to_fp16=False)


def _as_tokens(model: ModelProto) -> ModelProto:
    """Return a graph whose vector of a text is that of its only token, [batch, 1, dimensions], which pooling takes whole."""
    graph = model.graph
    (vectors,) = graph.output
    batch, size = vectors.type.tensor_type.shape.dim
    shape = [batch.dim_param, 1, size.dim_value]
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), _AXIS))
    graph.node.append(helper.make_node("Unsqueeze", [vectors.name, _AXIS], [_OUTPUT]))
    graph.output.append(helper.make_tensor_value_info(_OUTPUT, vectors.type.tensor_type.elem_type, shape))
    graph.output.remove(vectors)
    return model
