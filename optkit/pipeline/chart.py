"""`optkit chart`: a Helm chart, and plain manifests, that serve published models on Kubernetes with Triton.

A pod fetches the files of the versions that were live when the chart was made, compares their SHA-256 with those in the
chart, and serves them: what is rolled out and back is a chart. The templates are Helm's own and always the same; what
differs lies in `values.yaml` and `files/`.
"""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from optkit.core.errors import InputError
from optkit.core.object_store import is_url
from optkit.core.step_cache import writing
from optkit.core.templates import template
from optkit.engines import registry as engines
from optkit.pipeline import dockerfile
from optkit.pipeline.chart_models import FLAVOURS, Pool, Served, pool, read, require_alike
from optkit.registry import remote, verify
from optkit.registry.signing import Trust
from optkit.serving import containers

TEMPLATES = Path(__file__).with_name("templates") / "chart"
MANIFESTS = "manifests.yaml"
_MARK, _NAME = "Chart.yaml", "name: optkit-models"
_REMOTES = {"s3": ":s3,env_auth=true:", "gs": ":gcs,env_auth=true:", "az": ":azureblob,env_auth=true:"}
"""Stores, as rclone calls them."""
_HTTPS = 443
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?=[^@]{{1,255}}(?:@|$))(?:{_LABEL}(?:\.{_LABEL})*(?::\d{{1,5}})?/)?{_PART}(?:/{_PART})*"
    r"(?::\w[\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
"""A reference of an image: host, path, tag, digest (the OCI distribution specification)."""


@dataclass(frozen=True)
class Asked:
    """What is to be served, and how.

    Raises:
        InputError: options that do not go together.
    """

    models: Sequence[str]
    repositories: Sequence[str]
    """Folders or URLs; each has all models, with engines for another kind of node."""
    flavour: str = "native"
    """"native" for Triton's backends in NVIDIA's image, "python" for optkit's in an image of the user's."""
    containers: Sequence[str] = ()
    """Tags of NVIDIA's containers, in the order of the repositories, with `=VERSION` where the table does not have one."""
    images: Sequence[str] = ()
    """Images with optkit, in that order."""
    checkpoints: Path = Path("checkpoints")
    trust: Trust | None = None

    def __post_init__(self) -> None:
        if self.flavour not in FLAVOURS:
            raise InputError(f"--flavour {self.flavour}: expected one of {', '.join(FLAVOURS)}")
        if not self.models or len({*self.models}) < len(self.models):
            raise InputError(f"models: found {', '.join(self.models) or 'none'}, expected at least one, each once")
        if len(self.containers) > len(self.repositories):
            raise InputError(f"--container: found {len(self.containers)}, expected one for each --repository at most")
        if self.flavour == "python" and (versions := [one for one in self.containers if "=" in one]):
            raise InputError(f"--container {versions[0]}: is the image's base with --flavour python; give its tag alone")
        for one in self.containers:
            containers.check_tag(one.partition("=")[0], one)
        wanted = len(self.repositories) if self.flavour == "python" else 0
        if len(self.images) != wanted:
            raise InputError(
                f"--image: found {len(self.images)}, expected {wanted}: the flavour python runs in an image with optkit, "
                "one for each --repository, which the chart's Dockerfile makes, and the flavour native in NVIDIA's"
            )
        if wrong := [image for image in self.images if not _IMAGE.fullmatch(image)]:
            raise InputError(f"--image {wrong[0]!r}: expected an image's name, as registry.example/team/optkit:1.0")


def write(asked: Asked, out: Path) -> list[str]:
    """Write the chart.

    Args:
        asked: what is to be served.
        out: the chart's folder; an earlier chart in it is replaced.

    Returns:
        What has to be known of it, as sentences.

    Raises:
        InputError: a model is not there or not as it was published, pools do not fit together, or the folder holds something
            else.
        MachineError: no image runs an engine, or the folder cannot be written.
    """
    if out.exists() and not _is_ours(out) and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: exists and holds no chart of optkit's. Remove it, or choose another folder")
    pools = [_pool(asked, number) for number in range(len(asked.repositories))]
    require_alike(pools)
    with writing(out) as unfinished:
        shutil.copytree(TEMPLATES, unfinished, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.jinja"))
        _fill(unfinished, pools, asked)
        said = _render(unfinished)
    return [*_said(pools, asked), *said]


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds a chart that was written here."""
    path = folder / _MARK
    return path.is_file() and _NAME in path.read_text(encoding="utf-8", errors="replace").splitlines()


def _pool(asked: Asked, number: int) -> Pool:
    repository = asked.repositories[number]
    container, image = _given(asked.containers, number), _given(asked.images, number)
    with remote.reading(repository) as folder:
        verify.require(folder, asked.trust)
        models = [read(folder, name, asked.flavour, asked.checkpoints) for name in asked.models]
        return pool(repository, models, asked.flavour, container, image)


def _fill(chart: Path, pools: Sequence[Pool], asked: Asked) -> None:
    """Write what differs from chart to chart."""
    served = [", ".join(f"{model.name}={model.version}" for model in one.models) for one in pools]
    shown = served if len(pools) == 1 else [f"{one.name} {text}" for one, text in zip(pools, served, strict=True)]
    _write(chart, _MARK, versions="; ".join(shown), optkit=version("optkit"))
    _write(chart, "values.yaml", pools=pools, sources=[_source(one.repository) for one in pools], flavour=asked.flavour)
    for number, one in enumerate(pools):
        _fill_pool(chart / "files" / one.name, one)
        if len(pools) > 1:
            _write(chart, "values-POOL.yaml", one.name, pool=one, pools=pools)
        if asked.flavour == "python":
            base = containers.image(_given(asked.containers, number) or containers.NEWEST)
            dockerfile.write(chart / f"Dockerfile.{one.name}", one.image, base, sorted({*map(_install, one.models)}))


def _fill_pool(folder: Path, one: Pool) -> None:
    """Write what the pods of a pool fetch, and the configurations that are not among it."""
    folder.mkdir(parents=True)
    files = {place: file for model in one.models for place, file in model.files.items()}
    lines = [f"{sha} {source} {place}\n" for place, (source, sha) in files.items()]
    (folder / "files.txt").write_text("".join(lines), encoding="utf-8")
    for model in one.models:
        if model.config is not None:
            (folder / f"{model.name}.pbtxt").write_text(model.config, encoding="utf-8")


def _given(values: Sequence[str], number: int) -> str | None:
    return values[number] if number < len(values) else None


def _write(chart: Path, name: str, of_pool: str = "", **values: Any) -> None:
    """Write a file from its template; a pool's has its name in place of POOL."""
    made = template(__package__, f"chart/{name}.jinja").render(**values)
    (chart / name.replace("POOL", of_pool)).write_text(made, encoding="utf-8")


def _install(model: Served) -> str:
    """The command that installs the version of a runtime that built an engine, without a build's own name."""
    return engines.runtime(model.record["kind"]).install(containers.built_version(model.record))


def _source(repository: str) -> dict[str, str | int]:
    """Where pods find the repository: what rclone is told, a claim, and the store's address, port and provider."""
    if not is_url(repository):
        return {"remote": "/repository", "claim": "model-repository", "endpoint": "", "provider": "", "port": _HTTPS}
    scheme, _, path = repository.partition("://")
    endpoint = os.environ.get("AWS_ENDPOINT", "") if scheme == "s3" else ""
    provider = {"s3": "Other" if endpoint else "AWS"}.get(scheme, "")
    address = urlsplit(endpoint)
    port = address.port or (80 if address.scheme == "http" else _HTTPS)
    remote_path = _REMOTES[scheme] + path.strip("/")
    return {"remote": remote_path, "claim": "", "endpoint": endpoint, "provider": provider, "port": port}


def _render(chart: Path) -> list[str]:
    """Write the plain manifests, by Helm itself; returns what to do where it is not installed."""
    if find_spec("helm_python") is None:
        return [
            f"{MANIFESTS} was not written, as Helm is not installed: pip install 'optkit[chart]' and run this again, or: "
            f"helm template models DIR > {MANIFESTS}"
        ]
    import helm_python

    with helm_python.Chart.load(chart) as loaded:
        made = loaded.render(name="models", namespace="default")
    texts = [text.strip().removeprefix("---") for name, text in sorted(made.items()) if name.endswith(".yaml")]
    (chart / MANIFESTS).write_text("".join(f"---\n{text.strip()}\n" for text in texts if text), encoding="utf-8")
    return []


def _said(pools: Sequence[Pool], asked: Asked) -> Iterator[str]:
    for one in pools:
        for model in one.models:
            who, sizing = f"pool {one.name}: {model.name} version {model.version} ({model.record['kind']})", model.sizing
            yield f"{who}, another replica from a queue of {sizing.signal:g} times the engine's time: {sizing.basis}"
            if (features := model.record["cpu_features"]) and not model.on_gpu:
                yield f"{who} was built on a CPU with {', '.join(features)}; give it nodes that have them"
        if endpoint := _source(one.repository)["endpoint"]:
            yield f"pool {one.name}: pods ask the store at {endpoint}; elsewhere: pools.{one.name}.repository.endpoint"
        if not is_url(one.repository):
            yield f"pool {one.name}: set pools.{one.name}.repository.claim to the volume claim that holds {one.repository}"
    if asked.flavour == "native":
        yield "text pipelines are not served: Triton's own backends take tokens; --flavour python serves text too"
