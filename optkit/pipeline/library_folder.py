"""A folder of a recipe's graph that sentence-transformers loads, with its backend of ONNX Runtime."""

from pathlib import Path

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from optkit.compression import checkpoint
from optkit.core.atomic import write_json
from optkit.core.errors import InputError
from optkit.core.step_cache import writing
from optkit.graph import onnx_file
from optkit.pipeline.run_spec import RunSpec
from optkit.pipeline.steps.export_graph import exported
from optkit.recipe.recipe import Recipe

FLAVOUR = "sentence-transformers"
_OUTPUT, _AXIS = "last_hidden_state", "first_axis"
"""What the library's backend calls the tensor that it pools, and the axes that are added to make one of the vectors."""


def check(spec: RunSpec, target: Path) -> None:
    """Raise `InputError` if the task has no such folder, or something else lies in the target."""
    if not spec.task.has_library_folder:
        raise InputError(f"--flavour {FLAVOUR}: is for embeddings, the task is {spec.task.name!r}; leave it out")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"--out {target}: exists and is not empty. Remove it, or choose another folder")


def write(recipe: Recipe, spec: RunSpec, target: Path) -> str:
    """Write a recipe's graph, its tokenizer and what its task says of both.

    Args:
        recipe: which was trained and exported.
        spec: it was run on.
        target: the folder; made if it does not exist.

    Returns:
        The line of Python that loads it.
    """
    folder = spec.folder(recipe)
    loaded = checkpoint.load(folder, spec.task)
    with writing(target) as unfinished:
        (unfinished / "onnx").mkdir()
        model = onnx_file.load(exported(recipe, spec) / "model.onnx")
        onnx_file.save(_as_tokens(model), unfinished / "onnx" / "model.onnx")
        loaded.model.config.save_pretrained(unfinished)
        loaded.tokenizer.save_pretrained(unfinished)
        for name, content in spec.task.library_files(folder, loaded.tokenizer).items():
            (unfinished / name).parent.mkdir(exist_ok=True)
            write_json(unfinished / name, content)
    return f'SentenceTransformer("{target}", backend="onnx", model_kwargs={{"provider": "CPUExecutionProvider"}})'


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
