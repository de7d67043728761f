"""2:4 sparsity: prune the trained model, then repeat its training with the mask fixed.

No mask is stored: pruning writes zeros into the weights, and `retrain` keeps them at zero, in this stage and in every
later one (Mishra et al. 2021, arXiv 2104.08378, section 4).
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
    """2:4 structured sparsity as in ASP: prune the trained model, then repeat its training with the mask fixed (Mishra et
    al. 2021, arXiv 2104.08378).

        optkit.Recipe(name="sparse_2to4", stages=[optkit.Sparsify(criterion="magnitude", epochs=2)])
    """

    technique: Literal["sparsify"] = "sparsify"
    order: ClassVar[int] = 20
    sparsity: ClassVar[str | None] = "2:4"
    criterion: Literal["magnitude", "sparsegpt"] = "magnitude"
    """Criterion for the two weights kept of every four: magnitude, or the reconstruction error of SparseGPT (Frantar &
    Alistarh 2023, arXiv 2301.00774), which also corrects the weights that are kept, layer by layer."""
    calibration_examples: int = Field(512, ge=1)
    """Number of training examples that SparseGPT reads activations on."""
    epochs: float = Field(2, ge=0)

    def preflight(self, model: "PreTrainedModel", recipe: str) -> "PreTrainedModel":
        """Return the model unchanged, after a warning about the modules that stay dense.

        Raises:
            InputError: no Linear module can be 2:4.
        """
        from optkit.compression import pruning

        pruning.report_dense(recipe, model)
        return model

    def apply(self, loaded: "LoadedModel", context: "Context") -> History:
        """Prune the encoder's Linear modules to 2:4, by the checkpoint's masks or by the criterion, and train again.

        Returns:
            Training history, empty without epochs.

        Raises:
            InputError: no Linear module can be 2:4, or the checkpoint's masks do not fit.
            GateError: a group of four has lost its zeros.
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
        """Raise `GateError` naming every Linear module that can be 2:4 and is not."""
        from optkit.models import two_to_four
        from optkit.models.families import prunable

        two_to_four.check(prunable(model), when)

    def check_graph(self, audit: "Audit", model: "PreTrainedModel") -> None:
        """Raise `GateError` naming every Linear module that can be 2:4 and whose weight in the graph is not."""
        from optkit.models.families import prunable

        audit.check_sparse(prunable(model))

    def check_engines(self, conversion: "Conversion", model: "PreTrainedModel") -> None:
        """Raise `GateError` naming each engine that stores fewer 2:4 weights than the model has."""
        from optkit.models.families import prunable

        conversion.check_masks(len(prunable(model)))
