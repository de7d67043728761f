"""What a pod needs of published models: their files with SHA-256, their configurations, an image, and room."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optkit.core.errors import InputError
from optkit.engines import packed_weights
from optkit.engines import registry as engines
from optkit.engines.record import read_record
from optkit.graph import onnx_file
from optkit.pipeline import chart_sizing
from optkit.pipeline.chart_sizing import Sizing
from optkit.registry import layout, purpose
from optkit.registry.layout import CONFIG
from optkit.registry.text_pipeline import TEXT
from optkit.serving import config as configuration
from optkit.serving import containers, ensemble, native
from optkit.serving.command import CONTROL
from optkit.serving.repository import ENGINE

FLAVOURS = ("native", "python")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
"""What Kubernetes takes as the value of a label."""


@dataclass(frozen=True)
class Served:
    """The live version of a model, as pods serve it."""

    name: str
    version: int
    origin: Mapping[str, Any]
    """Its provenance."""
    record: Mapping[str, Any]
    """Its `engine.json`."""
    files: Mapping[str, tuple[str, str]]
    """Files by their place in the pod's repository: their place in the published one, and their SHA-256."""
    config: str | None
    """Text of `config.pbtxt`; None where it is among the files."""
    on_gpu: bool
    sizing: Sizing


@dataclass(frozen=True)
class Pool:
    """Pods of one kind: the same models from the same repository on nodes that are alike."""

    name: str
    """`cpu` or `gpu`."""
    repository: str
    image: str
    models: Sequence[Served]
    nodes: Mapping[str, str]
    """Labels of the nodes on which all engines run."""

    @property
    def arguments(self) -> list[str]:
        """The server's command line: models are fixed, and what would control it needs what nobody outside is told."""
        own = (engines.runtime(model.record["kind"]).server_options(model.record) for model in self.models)
        fixed = ("--model-control-mode=none", "--exit-timeout-secs=30")
        closed = f"--http-restricted-api={CONTROL}:optkit-pod=$(POD_UID)"
        return [*containers.OPTIONS, *fixed, closed, *dict.fromkeys(option for options in own for option in options)]

    @property
    def cores(self) -> int:
        """Cores of a replica: each engine was measured with all that it was given."""
        return max(model.sizing.cores for model in self.models)


def read(root: Path, name: str, flavour: str, checkpoints: Path) -> Served:
    """The live version of a published model.

    Args:
        root: the repository's folder.
        name: the model's.
        flavour: "native" or "python".
        checkpoints: where its load test may lie.

    Raises:
        InputError: there is no such model, it has a name that Kubernetes does not take, or no native backend runs it.
    """
    if not _LABEL.fullmatch(name):
        raise InputError(
            f"model {name!r}: its name is no label of Kubernetes: expected at most 63 letters, digits, -, _ or ."
        )
    model = layout.find(root, name)
    version = model / str(layout.live(model))
    origin, record = layout.provenance(version), read_record(version / ENGINE)
    on_gpu, places = native.on_gpu(record), _native if flavour == "native" else _python
    cores = chart_sizing.cores(origin, record, on_gpu)
    config, batching = None, origin["config"].get("queue_delay_us") is not None
    if flavour == "native":
        config = native.config(version / ENGINE, threads=None if on_gpu else cores)
        batching = configuration.parse(config).HasField("dynamic_batching")
    sizing = chart_sizing.of(origin, cores, batching, chart_sizing.load_of(origin, checkpoints))
    files = {place: (f"{name}/{version.name}/{file}", origin["files"][file]) for place, file in places(name, origin, record)}
    if odd := [place for place in files if len(place.split()) != 1]:
        raise InputError(f"model {name!r}: {odd[0]!r} is no file name that a chart takes. Publish the model again")
    return Served(name, int(version.name), origin, record, files, config, on_gpu, sizing)


def pool(repository: str, models: Sequence[Served], flavour: str, container: str | None, image: str | None) -> Pool:
    """Put the models of a repository on pods, whose image is checked to run their engines.

    Args:
        repository: a folder or a URL.
        models: of it.
        flavour: "native" for an image of NVIDIA's, "python" for one with optkit in it.
        container: tag of NVIDIA's container, with `=VERSION` where the table does not have it.
        image: with optkit.

    Raises:
        InputError: the models need several images, or GPUs for some only.
        MachineError: no image runs an engine, or not the one that was named.
    """
    if len({model.on_gpu for model in models}) > 1:
        shown = ", ".join(f"{model.name} {model.record['kind']}" for model in models)
        raise InputError(f"{repository}: some engines run on a GPU and others do not ({shown}); make a chart of each kind")
    if flavour == "native":
        image = _image(repository, models, container)
    for model in models:
        engines.runtime(model.record["kind"]).containers(model.record)  # refuses what no machine runs
    return Pool("gpu" if models[0].on_gpu else "cpu", repository, str(image), models, _nodes(repository, models))


def require_alike(pools: Sequence[Pool]) -> None:
    """Refuse pools that could not stand behind one name.

    Raises:
        InputError: two pools are of the same kind, or their models take or give something else.
    """
    first, *others = pools
    for other in others:
        if other.name == first.name:
            raise InputError(
                f"{first.repository} and {other.repository}: both have engines for a {first.name.upper()}, and a chart has "
                "one pool of each kind. Name one of them, or publish engines for the other kind"
            )
        for ours, theirs in zip(first.models, other.models, strict=True):
            found = purpose.differences(theirs.origin, ours.origin)
            for what in ("inputs", "logits"):
                if theirs.origin["config"][what] != ours.origin["config"][what]:
                    found.append(f"{what} {ours.origin['config'][what]}, and this has {theirs.origin['config'][what]}")
            if found:
                raise InputError(
                    f"model {ours.name!r}: in {first.repository} it is for {'; '.join(found)} ({other.repository})"
                )


def _image(repository: str, models: Sequence[Served], container: str | None) -> str:
    kinds = sorted({model.record["kind"] for model in models})
    tags = {containers.container(model.record, container) for model in models}
    if len(kinds) > 1 or len(tags) > 1:
        raise InputError(
            f"{repository}: its engines are {' and '.join(kinds)} for the containers {', '.join(sorted(tags))}, and a pod "
            "has one image, found by one kind. Make a chart of each kind, or serve all by --flavour python"
        )
    return containers.image(tags.pop())


def _nodes(repository: str, models: Sequence[Served]) -> dict[str, str]:
    found: dict[str, str] = {}
    for model in models:
        for name, value in engines.runtime(model.record["kind"]).node_labels(model.record).items():
            if found.setdefault(name, value) != value:
                raise InputError(
                    f"{repository}: its plans were built on different cards ({name} is {found[name]} and {value}), and a "
                    "pod has one. Build them on one, or with --option hardware=ampere_plus"
                )
    return found


def _native(name: str, origin: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Place and file of all that Triton's native backend needs."""
    for artefact in engines.runtime(record["kind"]).artefacts:
        if f"{ENGINE}/{artefact}{packed_weights.PACKED}" in origin["files"]:
            raise InputError(
                f"model {name!r}: its {artefact} is published packed, and Triton's own backends read none; serve it by "
                "optkit's: --flavour python"
            )
        for file in (f"{ENGINE}/{artefact}", f"{ENGINE}/{artefact}{onnx_file.DATA}"):
            if file in origin["files"]:
                yield f"{name}/{origin['version']}/{Path(file).name}", file


def _python(name: str, origin: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Place and file of all that optkit's backends need, the text pipeline's included."""
    if CONFIG not in origin["files"]:
        raise InputError(f"model {name!r}: was published by an older optkit, which kept no {CONFIG}. Publish it again")
    own = {f"{TEXT}/{folder}/": f"{folder}/" for folder in ensemble.names(name)}
    own |= {f"{ENGINE}/": f"{name}/{origin['version']}/{ENGINE}/", "model.py": f"{name}/{origin['version']}/model.py"}
    own[CONFIG] = f"{name}/{CONFIG}"
    for file in origin["files"]:
        for begin, place in own.items():
            if file == begin or (begin.endswith("/") and file.startswith(begin)):
                yield place + file.removeprefix(begin), file
