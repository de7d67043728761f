"""A trial before any training: a tiny random model of the same architecture is exported, compared and audited."""

from typing import TYPE_CHECKING

from transformers import PreTrainedModel

from optkit.core import temporary
from optkit.graph.audit import audit
from optkit.graph.export import export
from optkit.graph.logits import example, input_names
from optkit.models import families, padding_check
from optkit.models.tiny_copy import LENGTH
from optkit.models.tiny_model import tiny_model
from optkit.tasks.base import TaskKind

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def trial_export(config: "PreTrainedConfig", task: TaskKind, quantised: bool = False) -> None:
    """Export a tiny random model of an architecture, and raise where that does not work.

    Args:
        config: configuration of the model that is to be exported later, with the task's labels.
        task: whose head the model has.
        quantised: quantise the encoder's Linear modules first, and audit the graph.

    Raises:
        InputError: the architecture cannot be exported, computes something else as a graph, or cannot be quantised.
    """
    families.check(config)
    model = tiny_model(config, task)
    families.check_model(model)
    length = min(LENGTH, families.longest_input(model) or LENGTH)
    padding_check.check(model, task)
    with temporary.folder("optkit-trial") as folder:
        if quantised:
            _quantise(model, length)
        graph = export(model, folder, length, task)
        if quantised:
            audit(graph).check_quantised()


def _quantise(model: PreTrainedModel, length: int) -> None:
    from optkit.compression import quantizers
    from optkit.compression.quantize import Quantize

    feed = example(model, input_names(model), 4, length)
    quantizers.insert(model, Quantize())
    quantizers.calibrate(model, lambda quantised: quantised(**feed))
