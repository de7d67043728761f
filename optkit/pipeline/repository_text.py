"""Text pipelines of a repository that is built: around each engine the models that take text and give the task's answers."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from optkit.core.atomic import flush_tree
from optkit.core.errors import InputError
from optkit.engines import registry as engines
from optkit.engines.record import read_record
from optkit.evaluation import text_sample
from optkit.models import class_order
from optkit.models.loading import LoadedModel
from optkit.pipeline import dockerfile
from optkit.serving import containers, ensemble, repository
from optkit.serving.config import OUTPUT, ModelConfig
from optkit.tasks.base import Task

FILE = "optkit.Dockerfile"
IMAGE = "tritonserver-optkit"


@contextmanager
def beside(target: Path, models: Sequence[ModelConfig], task: Task, loaded: LoadedModel) -> Iterator[None]:
    """Stage the text pipelines of models that are placed in the block, and put them beside these at its end.

    Args:
        target: the repository; made if it does not exist.
        models: as the pipelines see them.
        task: which they were trained for.
        loaded: their checkpoint.

    Raises:
        InputError: the tokenizer is not fast, or does not fit the engine.
        MachineError: the repository cannot be written.
    """
    labels = class_order.names_of(loaded.model.config) if task.labels else ()
    with repository.staging(target, "text") as staged:
        staged.mkdir(parents=True)
        words, task = staged.with_name("words"), task.deciding(loaded.thresholds)
        if text_sample.write_settings(task, loaded.tokenizer, words, labels, models[0].logits) is None:
            raise InputError("--text: the model's tokenizer has no tokenizer.json, and no text can be served; leave it out")
        for model in models:
            ensemble.stage(staged, words, model.name, model)
        yield
        flush_tree(staged)
        for model in models:
            for name in ensemble.names(model.name):
                (staged / name).rename(target / name)


def around_native(config: ModelConfig, engine: Path) -> ModelConfig:
    """A model as its pipeline sees it where a native backend runs the engine.

    Args:
        config: of the engine in optkit's backend.
        engine: its folder.

    Raises:
        InputError: the backend names tensors otherwise, or takes one length or shorter texts alone.
    """
    record = read_record(engine)
    runtime = engines.runtime(record["kind"])
    tensors, longest = runtime.tensors(engine), runtime.longest_input(record)
    found = {one["name"]: (one["dtype"], list(one["shape"])) for one in tensors["inputs"]}
    found |= {one["name"]: (one["dtype"], []) for one in tensors["outputs"]}
    expected = dict.fromkeys(config.inputs, ("int64", [-1, -1])) | {OUTPUT: ("float32", [])}
    if found != expected:
        raise InputError(
            f"--text: Triton's backend of {record['kind']} has the tensors {found} for this engine, expected {expected} as "
            "the tokenizer gives them. Leave it out, or serve the engine by --flavour python"
        )
    if longest is not None and longest < config.max_sequence:
        raise InputError(
            f"--text: the engine takes {longest} tokens, and texts have up to {config.max_sequence}. Build it for these: "
            f"--option sequence=1,{longest},{config.max_sequence}"
        )
    return replace(config, max_batch_size=runtime.largest_batch(record) or config.max_batch_size)


def docker_command(target: Path, record: Mapping[str, Any], tag: str) -> str:
    """The command that makes the image which serves text too, and serves a repository with it; its Dockerfile is written.

    Args:
        target: the repository, which gets the Dockerfile.
        record: an engine's `engine.json`.
        tag: of NVIDIA's container.
    """
    image = f"{IMAGE}:{tag}"
    dockerfile.write(target / FILE, image, containers.image(tag))
    build = f"docker build -f {shlex.quote(str(target / FILE))} -t {image} ."
    run = containers.docker_command(target, record, with_optkit=image)
    return f"{build} && {run}  # in a folder with optkit's wheel: pip wheel --no-deps -w . PATH/TO/optkit"
