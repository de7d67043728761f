"""Publishing: an engine that passed its gate becomes the live version of a model in a model repository."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from optkit.benchmark import tuned
from optkit.core.errors import GateError, InputError
from optkit.core.json_door import read_json
from optkit.core.step_cache import verify
from optkit.evaluation.artifacts import EVIDENCE, SAMPLE, TEXT, TEXT_SAMPLE, read_sample
from optkit.evaluation.results import Row
from optkit.models import thresholds_file
from optkit.pipeline import projects, row_choice, rows
from optkit.recipe.stage import BASELINE
from optkit.registry import layout, provenance, smoke_test, trial
from optkit.registry.disk import WAIT_S, locked
from optkit.registry.live_server import Running
from optkit.registry.purpose import differences
from optkit.registry.release import Release, already_live, go_live, place
from optkit.registry.shadow import MAX_DISAGREEMENT, Shadow, read_requests
from optkit.registry.signing import Signer
from optkit.registry.smoke_test import Probe
from optkit.registry.text_pipeline import Words
from optkit.serving.config import ModelConfig, Shapes, from_json
from optkit.tasks.served import TextSettings

log = logging.getLogger(__name__)
_AGAIN = "score the recipe again: optkit run"
BEST = "best"
"""Word in place of a recipe's name for the best recipe."""


class _TextSample(TypedDict):
    texts: dict[str, list[str]]
    answers: dict[str, list[str]]


class _Evidence(TypedDict):
    configs: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Options:
    """Options of publishing.

    Raises:
        InputError: options that do not go together.
    """

    force: bool = False
    """Publish although the gate says no; needs `why`."""
    why: str = ""
    """Reason to publish against the gate or in place of something else, stored in the provenance and on the card."""
    url: str | None = None
    """`host:port` of a running server that serves the repository and goes over to the new version."""
    shadow: str | None = None
    """`host:port` of a server whose live model is compared with the new version first."""
    requests: Path | None = None
    """File of requests for that; by default the sample of the dev split."""
    max_disagreement: float = MAX_DISAGREEMENT
    """Largest share of predictions that may differ from the live model's."""
    wait_s: float = WAIT_S
    """Seconds to wait for another publisher."""
    cache: bool = False
    """Whether the server may answer from its cache, see `ModelConfig`."""
    warmup: Shapes = ()
    """What each instance answers before it is ready, see `ModelConfig`."""
    replace: bool = False
    """Publish although the live version is of another task, other labels or other data; needs `why`."""
    signer: Signer | None = None
    """Signs the version."""

    def __post_init__(self) -> None:
        if (self.force or self.replace) != bool(self.why.strip()):
            raise InputError(
                "--force and --why go together, and so do --replace and --why: expected the reason why a gate is overruled, "
                "or something else replaced"
            )
        if self.requests is not None and self.shadow is None:
            raise InputError(f"--requests {self.requests}: without a server to compare with; name one with --shadow")
        if not 0 <= self.max_disagreement <= 1:
            raise InputError(f"--max-disagreement {self.max_disagreement:g}: expected a share from 0 to 1")


def publish(
    recipe: str,
    task: str,
    root: Path,
    target: Path,
    seed: int = 0,
    precision: str | None = None,
    options: Options | None = None,
    project: str | None = None,
) -> Path:
    """Make a recipe's engine the next version of the model `<project>_<recipe>`, and the live one.

    Args:
        recipe: its name, or `best` for the fastest that passed its gate.
        task: it was run on.
        root: the folder `checkpoints/`.
        target: the model repository.
        seed: whose engine.
        precision: of the engine; needed where the recipe has several.
        options: how.
        project: name of the project; by default the only one of the task. The one called like the task has that name.

    Returns:
        The version's folder; of the live one where that is the same engine.

    Raises:
        InputError: the recipe has no current result, or several precisions, or its files have changed.
        GateError: the engine did not pass its gate, answers wrongly, or disagrees with the live model.
        MachineError: the repository cannot be written or is locked, or a server is gone.
    """
    options = options or Options()
    if options.cache:
        log.warning("a response cache also keeps errors, as empty answers: docs/publishing.md, Response cache and warm-up")
    server = None if options.url is None else Running(options.url)
    home = projects.find(root, task, project)
    found = rows.read(root, task, home.name)
    if recipe == BEST:
        row = row_choice.best(found, task, seed, precision)
        recipe, precision = row.recipe, row.precision
        log.info("the best that passed its gate: %s (%s), served by %s", recipe, precision, row.engine)
        if recipe == BASELINE and any(one.recipe != BASELINE for one in found):
            log.warning(
                "%s is the model that recipes start from: what they made is slower, or has not passed its gate", BASELINE
            )
    row = row_choice.one_of_recipe(found, recipe, task, seed, precision)
    _gate(row, options.force)
    release = _release(home.recipe(recipe, seed), row, found, options)
    beside = _shadow(release, options)
    with locked(target, f"publishing {release.config.name}", options.wait_s):
        if server is not None:
            server.require()
        if (version := already_live(target, release)) is not None:
            model = target / release.config.name
            log.info("version %s of %s is this engine, and live already: nothing is published", version, model.name)
            if server is not None:
                go_live(model, version, server)
            return model / str(version)
        release.provenance["replaced"] = _replaced(target, release, options)
        return place(target, release, lambda staged: trial.check(staged, release, beside), server)


def _gate(row: Row, force: bool) -> None:
    if row.verdict == "pass" or force:
        return
    reasons = "".join(f"\n  - {reason}" for reason in row.reasons)
    raise GateError(f"{row.recipe} ({row.precision}) is not published, its gate says: {row.verdict}{reasons}")


def _replaced(target: Path, release: Release, options: Options) -> dict[str, Any] | None:
    """The live version, in what it is for something else than the release, and why that is replaced; None if it is not.

    Raises:
        InputError: there is such a difference, and nobody asked for it.
    """
    model = target / release.config.name
    if not model.exists():
        return None
    live = layout.provenance(model / str(layout.live(model)))
    if not (found := differences(release.provenance, live)):
        return None
    if not options.replace:
        raise InputError(
            f"model {model.name!r}: its live version {live['version']} is for {'; '.join(found)}. Publish under another "
            "name (run with --name), or replace it on purpose: --replace --why TEXT"
        )
    return {"version": live["version"], "differences": found, "why": options.why}


def _release(folder: Path, row: Row, every: list[Row], options: Options) -> Release:
    """The engine with all that is known of it, from files that are as they were written."""
    for step in (folder, folder / "engines", folder / "served"):
        verify(step)
    engine = folder / "engines" / row.precision
    best = tuned.read(folder, row.precision)
    fields = _config(folder, row.precision) | tuned.settings(best)
    asked = {"name": f"{row.project}_{row.recipe}", "cache": options.cache, "warmup": options.warmup}
    config = ModelConfig(**fields | asked)
    probes = smoke_test.make(engine, config, _sample(folder, row.precision))
    origin = provenance.collect(folder, row, every) | {"tuning": best}
    words = _words(folder, row)
    if thresholds := thresholds_file.read(folder):
        origin["thresholds"] = list(thresholds)
    origin["labels"] = words and (list(TextSettings.read(words.source).labels) or None)
    forced = options.why if row.verdict != "pass" else None
    return Release(engine, config, probes, origin, forced, words, options.signer)


def _sample(folder: Path, precision: str) -> Probe:
    path = folder / "served" / SAMPLE
    if not path.is_file():
        raise InputError(f"{path}: missing, the result is an older optkit's. Score the recipe again: optkit run")
    feed, logits = read_sample(path)
    return Probe(feed, logits[precision])


def _words(folder: Path, row: Row) -> Words | None:
    """What the engine takes to be asked in text."""
    served = folder / "served"
    if not (served / TEXT).is_dir():
        log.warning("%s: no %s; the model will take tokens alone. For text score the recipe again: optkit run", served, TEXT)
        return None
    sample = read_json(served / TEXT_SAMPLE, _TextSample, _AGAIN)
    if row.precision not in sample["answers"] or len({*map(len, sample["texts"].values())}) != 1:
        raise InputError(f"{served / TEXT_SAMPLE}: has no answers of {row.precision}, or texts without others; {_AGAIN}")
    texts = list(zip(*sample["texts"].values(), strict=True))
    return Words(served / TEXT, texts, sample["answers"][row.precision])


def _shadow(release: Release, options: Options) -> Shadow | None:
    if options.shadow is None:
        return None
    given = options.requests and read_requests(options.requests)
    requests = given or [release.probes[smoke_test.SAMPLE].feed]
    return Shadow(Running(options.shadow).url, release.config.name, requests, options.max_disagreement)


def _config(folder: Path, precision: str) -> dict:
    path = folder / "served" / EVIDENCE
    configs = read_json(path, _Evidence, _AGAIN)["configs"]
    if precision not in configs:
        raise InputError(f"{path}: has no configuration of {precision}; {_AGAIN}")
    return from_json(configs[precision])
