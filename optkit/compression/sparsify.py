"""2:4 sparsity: prune the trained model, then repeat its training with the mask fixed.

The mask is what is not zero: pruning writes zeros into the weights, and `retrain` holds them, in this stage and in
every later one (Mishra et al. 2021, arXiv 2104.08378, section 4).
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from optkit.recipe.stage import History, Taught

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from optkit.compression.context import Context
    from optkit.engines.select import Conversion
    from optkit.graph.audit import Audit
    from optkit.models.loading import LoadedModel


class Sparsify(Taught):
    """2:4 structured sparsity the ASP way: prune the trained model, then repeat its training with the mask held fixed
    (Mishra et al. 2021, arXiv 2104.08378)."""

    technique: Literal["sparsify"] = "sparsify"
    order: ClassVar[int] = 20
    sparsity: ClassVar[str | None] = "2:4"
    criterion: Literal["magnitude", "sparsegpt"] = "magnitude"
    """Which two of four weights stay: the largest, or those whose loss SparseGPT (Frantar & Alistarh 2023, arXiv 2301.00774)
    finds hardest to make up for. Its own correction of what stays is left to the training."""
    calibration_examples: int = Field(512, ge=1)
    """Whose activations SparseGPT looks at."""
    epochs: float = Field(2, ge=0)

    def preflight(self, model: "PreTrainedModel", recipe: str) -> "PreTrainedModel":
        """The same model, after a warning of what of it stays dense.

        Raises:
            InputError: no Linear can be 2:4.
        """
        from optkit.compression import pruning

        pruning.report_dense(recipe, model)
        return model

    def apply(self, loaded: "LoadedModel", context: "Context") -> History:
        """Prune every Linear of the encoder that can be 2:4, by masks from its checkpoint or by the criterion; train again.

        Returns:
            The training's history, empty without epochs.

        Raises:
            InputError: no Linear can be 2:4, or masks from elsewhere do not fit.
            GateError: a group has lost its zeros.
        """
        from optkit.compression import pruning
        from optkit.compression.retrain import retrain

        self.checked()
        if loaded.masks:
            pruning.apply_masks(loaded.model, loaded.masks)
        else:
            pruning.prune(loaded.model, self.criterion, lambda model: context.run_examples(model, self.calibration_examples))
        self.check(loaded.model, "after pruning")
        return retrain(loaded, self, context, "sparse retraining")

    def check(self, model: "PreTrainedModel", when: str) -> None:
        """Raise `GateError` naming every Linear that can be 2:4 and is not."""
        from optkit.models import two_to_four
        from optkit.models.families import prunable

        two_to_four.check(prunable(model), when)

    def check_graph(self, audit: "Audit", model: "PreTrainedModel") -> None:
        """Raise `GateError` naming every such Linear whose weight in the graph is not 2:4."""
        from optkit.models.families import prunable

        audit.check_sparse(prunable(model))

    def check_engines(self, conversion: "Conversion", model: "PreTrainedModel") -> None:
        """Raise `GateError` naming each engine that stores fewer 2:4 weights than the model has."""
        from optkit.models.families import prunable

        conversion.check_masks(len(prunable(model)))
