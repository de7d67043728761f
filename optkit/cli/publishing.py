"""The commands around a model repository: publish, list, verify, rollback, prune, chart."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optkit.cli.option_groups import on_project
from optkit.cli.options import DEFAULT_REPOSITORY, Checkpoints, ModelName, Repository, Seed, TaskName, Trusted

if TYPE_CHECKING:
    from optkit.pipeline.projects import Source

Why = Annotated[str, typer.Option(help="the reason, which is recorded", metavar="TEXT")]
Url = Annotated[
    str | None, typer.Option(help="running server that serves the repository and is to follow", metavar="HOST:PORT")
]
Wait = Annotated[float, typer.Option(help="seconds to wait for another publisher", min=0)]
WAIT_S = 60.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (on_project(publish), list_models, verify, rollback, prune, chart):
        app.command("list" if command is list_models else None)(command)


def publish(
    recipe: Annotated[
        str, typer.Argument(help="name of the recipe, or best: the fastest that passed its gate", metavar="RECIPE")
    ],
    task: TaskName,
    project: "tuple[str | None, Source]",
    repository: Repository = DEFAULT_REPOSITORY,
    seed: Seed = 0,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or int8, where the recipe has several")] = None,
    force: Annotated[bool, typer.Option("--force", help="although the gate says no; needs --why")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="although the live version is of another task, labels or data; needs --why")
    ] = False,
    why: Why = "",
    url: Url = None,
    shadow: Annotated[
        str | None, typer.Option(help="server whose live model is compared with the new version first", metavar="HOST:PORT")
    ] = None,
    requests: Annotated[
        Path | None, typer.Option(help="what both are asked: one JSON body per line [default: dev examples]", metavar="FILE")
    ] = None,
    max_disagreement: Annotated[
        float, typer.Option(help="share of predictions that may differ from the live model's")
    ] = 0.05,
    wait: Wait = WAIT_S,
    cache: Annotated[
        bool, typer.Option("--cache", help="let a server with --cache-mb answer the same request again from its cache")
    ] = False,
    warmup: Annotated[
        str | None, typer.Option(help="batch x tokens that are answered before it is ready: 1x16,8x128", metavar="SHAPES")
    ] = None,
    sign: Annotated[
        Path | None, typer.Option(help="private key (PEM, elliptic curve) to sign the version with", metavar="KEY")
    ] = None,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> None:
    """Put an engine that passed its gate into the model repository as the next version, live; print its folder.

    Where the live version is this engine already, that is said and nothing is published. Exit status 1: the gate, a probe
    or the shadow says no; nothing has changed.

    Example: optkit publish qat_gelu10 --task sample --url 127.0.0.1:8000
    """
    from optkit.pipeline import projects
    from optkit.pipeline.publish import Options
    from optkit.pipeline.publish import publish as publish_engine
    from optkit.registry import remote
    from optkit.registry.signing import Signer
    from optkit.serving.config import shapes

    first = () if warmup is None else shapes(warmup)
    signer = None if sign is None else Signer(sign)
    options = Options(force, why, url, shadow, requests, max_disagreement, wait, cache, first, replace, signer)
    home = projects.find(checkpoints, task, *project)
    with remote.changing(repository, f"publishing {home.model(recipe)}", wait, url) as folder:
        version = publish_engine(recipe, task, checkpoints, folder, seed, precision, options, home.name)
    print(remote.named(version, folder, repository))


def list_models(
    repository: Repository = DEFAULT_REPOSITORY,
    form: Annotated[str, typer.Option("--format", help="table or json", metavar="FORMAT")] = "table",
) -> None:
    """Print the models of a repository with their versions, and which are live.

    Example: optkit list --format json
    """
    from optkit.registry import listing, remote

    with remote.reading(repository) as folder:
        sys.stdout.write(listing.render(listing.versions(folder), form))


def verify(repository: Repository = DEFAULT_REPOSITORY, trust: Trusted = None) -> None:
    """Compute all SHA-256 of a repository anew; print each file that differs, is missing or does not belong there.

    With --trust, each version has to be signed by one of the keys too. Exit status 1: something was printed.

    Example: optkit verify --repository model_repository
    """
    from optkit.registry import remote
    from optkit.registry.signing import Trust
    from optkit.registry.verify import verify as complaints_about

    trusted = Trust(trust) if trust else None
    with remote.reading(repository) as folder:
        complaints = [*complaints_about(folder, trusted), *remote.complaints(repository)]
    if complaints:
        print(remote.named("\n".join(complaints), folder, repository))
        raise typer.Exit(1)
    print(f"{repository}: every file is as it was published" + (", and signed" if trusted else ""))


def rollback(
    model: ModelName,
    repository: Repository = DEFAULT_REPOSITORY,
    to: Annotated[int | None, typer.Option(help="version to go to [default: the next lower one]", min=1)] = None,
    why: Why = "",
    url: Url = None,
    wait: Wait = WAIT_S,
) -> None:
    """Make an earlier version of a model live again; print its number.

    Example: optkit rollback sample_qat_gelu10 --to 1 --url 127.0.0.1:8000
    """
    from optkit.registry import remote
    from optkit.registry.rollback import rollback as go_back

    with remote.changing(repository, f"rolling back {model}", wait, url) as folder:
        version = go_back(folder, model, to, url, why, wait)
    print(version)


def prune(
    model: ModelName,
    keep: Annotated[int, typer.Option(help="how many of the newest versions stay", min=1)],
    repository: Repository = DEFAULT_REPOSITORY,
    wait: Wait = WAIT_S,
) -> None:
    """Remove a model's old versions that are not live; print their numbers.

    Example: optkit prune sample_qat_gelu10 --keep 3
    """
    from optkit.registry import remote
    from optkit.registry.rollback import prune as remove_old

    with remote.changing(repository, f"pruning {model}", wait) as folder:
        removed = remove_old(folder, model, keep, wait)
    for version in removed:
        print(version)


def chart(
    models: Annotated[list[str], typer.Argument(help="names of published models", metavar="MODEL…")],
    out: Annotated[Path, typer.Option(help="folder of the chart; an earlier one is replaced", metavar="DIR")],
    repository: Annotated[
        list[str] | None,
        typer.Option(
            help=f"model repository; a second one with the same models for the other kind of node, CPU or GPU "
            f"[default: {DEFAULT_REPOSITORY}]",
            metavar="DIR",
        ),
    ] = None,
    flavour: Annotated[
        str, typer.Option(help="native: Triton's backends in NVIDIA's image; python: optkit's in yours, which take text too")
    ] = "native",
    container: Annotated[
        list[str] | None,
        typer.Option(
            help="container of NVIDIA's, with the version of the engines' runtime in it where optkit does not know it; one "
            "for each repository, in their order",
            metavar="TAG[=VERSION]",
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            help="with --flavour python: what you call the image of the chart's Dockerfile; likewise", metavar="NAME"
        ),
    ] = None,
    trust: Trusted = None,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> None:
    """Write a Helm chart that serves the live versions of published models on Kubernetes with Triton, and plain manifests.

    Replicas are sized, and started, by what optkit load measured: of the same engine in --checkpoints, or published with it.

    Example: optkit chart sst2_qat_gelu10 --repository s3://models/text --container TAG=1.31 --out chart
    """
    from optkit.core.printable import say
    from optkit.pipeline.chart import Asked, write
    from optkit.registry.signing import Trust

    asked = Asked(
        models, repository or [DEFAULT_REPOSITORY], flavour, container or (), image or (), checkpoints,
        Trust(trust) if trust else None,
    )  # fmt: skip
    for sentence in write(asked, out):
        say(sentence)
    print(out)
