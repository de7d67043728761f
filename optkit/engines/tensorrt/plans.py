"""TensorRT's plans on a machine that cannot run them: built, their evidence read from the build, nothing timed.

What `convert` does with engines that run here, this does without comparing any: each precision in the variant that is
right by what is known of the graph, or the one that was asked for.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from optkit import engines
from optkit.core.atomic import write_json
from optkit.core.errors import InputError
from optkit.engines.candidate import Candidate
from optkit.engines.record import empty_folder
from optkit.engines.select import FILE, Conversion
from optkit.engines.tensorrt.profiles import Settings

KIND = "tensorrt"
NOT_RUN = "built, not run here: this machine has no GPU that TensorRT could use"

log = logging.getLogger(__name__)


def build(graph: Path, folder: Path, quantised: bool, settings: Settings, variant: str | None = None) -> Conversion:
    """Build a plan of each precision into `<precision>/`, and write `conversion.json`.

    Args:
        graph: `model.onnx`, with `ranges.json` beside it where it is quantised.
        folder: existing and empty.
        quantised: whether the graph is.
        settings: of the plans.
        variant: of the INT8 plan; None for the preferred one.

    Raises:
        InputError: a variant that there is not, a graph that TensorRT does not take, or a profile that does not fit it.
        MachineError: TensorRT is not installed, or a build failed.
    """
    module, folder = engines.module(KIND), empty_folder(folder)
    candidates = []
    for precision in module.precisions(quantised):
        if variant and not quantised:
            raise InputError(f"--variant {variant}: only INT8 plans have variants, and this recipe does not quantise")
        chosen = Candidate(KIND, precision, variant or module.preferred(graph, precision), chosen=True, refusal=NOT_RUN)
        log.info("TensorRT plan: %s, variant %s", precision, chosen.variant)
        target = folder / precision
        target.mkdir()
        module.build(graph, precision, target, chosen.variant, settings)
        chosen.evidence = module.stored_evidence(target)
        candidates.append(chosen)
    conversion = Conversion(folder, tuple(candidates))
    write_json(folder / FILE, conversion.to_dict())
    return conversion


def only_built(kinds: Sequence[str], has_options: bool, variant: str | None) -> bool:
    """Whether what was asked for is plans that this machine can build and not run.

    Args:
        kinds: engine kinds that were asked for.
        has_options: whether options of TensorRT were given.
        variant: of the INT8 plan, if asked for.

    Raises:
        InputError: options of TensorRT without it, a variant where all are timed, or plans beside engines of other kinds
            on a machine that cannot compare them.
        MachineError: TensorRT is not installed.
    """
    if KIND not in kinds and has_options:
        raise InputError(f"options of TensorRT were given without it: add --engine {KIND}, or leave them out")
    if KIND not in kinds or engines.runs_here(KIND):
        if variant:
            raise InputError(f"--variant {variant}: on this machine every variant is built and timed; leave it out")
        return False
    if others := [kind for kind in kinds if kind != KIND]:
        raise InputError(
            f"--engine {KIND} and {', '.join(others)}: plans cannot be run on this machine and so not be compared with "
            f"other engines. Build them apart: --engine {KIND} alone"
        )
    engines.module(KIND).precisions(False)  # raises where TensorRT is missing
    return True
