"""2:4 sparsity: prune the trained model, then repeat its training with the mask fixed.

No mask is stored: pruning writes zeros into the weights, and `retrain` keeps them at zero, in this stage and in every
later one (Mishra et al. 2021, arXiv 2104.08378, section 4).
"""

import copy
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from optkit.compression import kept
from optkit.compression.kept import Kept
from optkit.recipe.stage import History, Taught
from optkit.recipe.unread import TRAINING, ReadWhere

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from optkit.compression.context import Context
    from optkit.compression.sensitivity import OneByOne
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
    read_where: ClassVar[Mapping[str, ReadWhere]] = {
        **TRAINING,
        "calibration_examples": ReadWhere(
            ("criterion",), lambda stage: stage.criterion == "sparsegpt", "the criterion is not sparsegpt"
        ),
        "keep_budget": kept.CHOSEN["keep_dense"],
    }
    criterion: Literal["magnitude", "sparsegpt"] = "magnitude"
    """Criterion for the two weights kept of every four: magnitude, or the reconstruction error of SparseGPT (Frantar &
    Alistarh 2023, arXiv 2301.00774), which also corrects the weights that are kept, layer by layer."""
    calibration_examples: int = Field(512, ge=1)
    """Number of training examples that SparseGPT reads activations on."""
    keep_dense: Kept = ()
    """Names of Linear modules that stay dense, with `*` for any part of a name; "auto" chooses those that bring
    most, within `keep_budget` (see `compression.sensitivity`)."""
    keep_budget: float = Field(0.1, gt=0, lt=1)
    """Most of the multiply-adds of the modules that can be 2:4 that "auto" leaves dense, as a share."""
    epochs: float = Field(2, ge=0)

    def preflight(self, model: "PreTrainedModel", recipe: str) -> "PreTrainedModel":
        """Return the model unchanged, after a warning about the modules that stay dense.

        Raises:
            InputError: no Linear module can be 2:4, or none is called as one of `keep_dense`.
        """
        from optkit.compression import pruning

        pruning.report_dense(recipe, model)
        self._named(model)
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
        dense = self._left_dense(loaded, context)
        kept.record(loaded.model, self.technique, dense)
        if loaded.masks:
            pruning.apply_masks(loaded.model, loaded.masks, dense)
        else:
            forward = partial(context.run_examples, count=self.calibration_examples)
            pruning.prune(loaded.model, self.criterion, forward, dense)
        self.check(loaded.model, "after pruning")
        return retrain(loaded, self, context, "sparse retraining")

    def one_by_one(self, loaded: "LoadedModel", context: "Context") -> "OneByOne":
        """Return a copy of a dense model in which the weights of any of the modules are 2:4, and the others dense."""
        from optkit.compression import pruning, sensitivity

        model = copy.deepcopy(loaded.model)
        if loaded.masks:
            pruning.apply_masks(model, loaded.masks)
            sparse = {name: linear.weight.detach().clone() for name, linear in pruning.prunable_linears(model).items()}
            model.load_state_dict(loaded.model.state_dict())
        else:
            forward = partial(context.run_examples, count=self.calibration_examples)
            sparse = pruning.pruned_alone(model, self.criterion, forward)
        return sensitivity.pruned(model, sparse)

    def _named(self, model: "PreTrainedModel") -> list[str]:
        """The modules that `keep_dense` names."""
        from optkit.models.families import prunable

        return kept.resolve(self.keep_dense, prunable(model), "Sparsify.keep_dense")

    def _left_dense(self, loaded: "LoadedModel", context: "Context") -> list[str]:
        """The modules that stay dense; a remark says which, and why."""
        from optkit.compression import sensitivity
        from optkit.models.families import prunable

        if self.keep_dense == "auto":
            trial = self.one_by_one(loaded, context)
            chosen, remark = sensitivity.chosen(trial, context, sensitivity.costs, "keep_dense", "dense", self.keep_budget)
            loaded.remarks.append(remark)
            return chosen
        if names := self._named(loaded.model):
            work = kept.share(prunable(loaded.model), names)
            loaded.remarks.append(f"keep_dense: {', '.join(names)} stay dense, {work:.1%} of the multiply-adds")
        return names

    def _sparse(self, model: "PreTrainedModel") -> "dict[str, nn.Linear]":
        """The modules that are to be 2:4."""
        from optkit.models.families import prunable

        dense = kept.names(model, self.technique)
        return {name: linear for name, linear in prunable(model).items() if name not in dense}

    def check(self, model: "PreTrainedModel", when: str) -> None:
        """Raise `GateError` naming every Linear module that should be 2:4 and is not."""
        from optkit.models import two_to_four

        two_to_four.check(self._sparse(model), when)

    def check_graph(self, audit: "Audit", model: "PreTrainedModel") -> None:
        """Raise `GateError` naming every Linear module that should be 2:4 and whose weight in the graph is not."""
        audit.check_sparse(self._sparse(model))

    def check_engines(self, conversion: "Conversion", model: "PreTrainedModel") -> None:
        """Raise `GateError` naming each engine that stores fewer 2:4 weights than the model has."""
        conversion.check_masks(len(self._sparse(model)))
