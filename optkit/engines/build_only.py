"""Plans: engines on a machine that can build and not run them, their evidence read from the build, nothing timed.

What `convert` does with engines that run here, this does without comparing any: each precision in the variant that is
right by what is known of the graph, or the one that was asked for.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optkit.core.atomic import write_json
from optkit.core.errors import InputError
from optkit.engines import registry as engines
from optkit.engines.base import Runtime
from optkit.engines.candidate import Candidate
from optkit.engines.conversion_file import FILE
from optkit.engines.record import empty_folder
from optkit.engines.select import Conversion

log = logging.getLogger(__name__)


def build(graph: Path, folder: Path, kind: str, quantised: bool, options: Mapping[str, Any]) -> Conversion:
    """Build an engine of each precision into `<precision>/`, and write `conversion.json`.

    Args:
        graph: `model.onnx`, with `ranges.json` beside it where it is quantised and the kind needs that.
        folder: existing and empty.
        kind: of engine.
        quantised: whether the graph is.
        options: of the build, by key.

    Raises:
        InputError: an option or a variant that there is not, or a graph that the runtime does not take.
        MachineError: the runtime is not installed, or a build failed.
    """
    runtime, folder, candidates = engines.runtime(kind), empty_folder(folder), []
    settings = runtime.build_options(options)
    for precision in runtime.precisions(quantised):
        variant = runtime.preferred(graph, precision, settings)
        log.info("%s plan: %s, variant %s", kind, precision, variant)
        target = folder / precision
        target.mkdir()
        runtime.build(graph, precision, target, variant, settings)
        evidence = runtime.stored_evidence(target)
        candidates.append(Candidate(kind, precision, variant, evidence=evidence, chosen=True, refusal=not_run(runtime)))
    conversion = Conversion(folder, tuple(candidates))
    write_json(folder / FILE, conversion.to_dict())
    return conversion


def not_run(runtime: Runtime) -> str:
    """Why an engine that was only built has no latency and was not compared."""
    return f"built, not run here: that needs {runtime.needs}"


def only_built(kinds: Sequence[str]) -> str | None:
    """The kind that was asked for where its engines can be built here and not run; None where all that were asked for run.

    Raises:
        InputError: beside engines of other kinds, with which they cannot be compared here.
        MachineError: the kind's engines can be neither run nor built here.
    """
    kind = next((kind for kind in kinds if not engines.runtime(kind).runs_here()), None)
    if kind is None:
        return None
    if others := [other for other in kinds if other != kind]:
        raise InputError(
            f"--engine {kind} and {', '.join(others)}: plans cannot be run on this machine and so not be compared with "
            f"other engines. Build them apart: --engine {kind} alone"
        )
    if not engines.runtime(kind).builds_without_running:
        engines.require_running(kind)
    engines.runtime(kind).require()
    return kind
