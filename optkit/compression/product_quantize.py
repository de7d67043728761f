"""Product quantization: blocks of neighbouring weights become one of 256 each, group by group, trained in between (iPQ).

No codes are stored in the model: they are read in its weights, and `retrain` keeps equal blocks equal, in this stage and
in every later one (Stock et al. 2020, arXiv 1907.05686; Fan et al. 2021, arXiv 2004.07320).
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from optkit.recipe.stage import History, Taught
from optkit.recipe.unread import TRAINED, TRAINING, ReadWhere

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from optkit.compression.context import Context
    from optkit.models.loading import LoadedModel

Block = Literal[4, 8]


class ProductQuantize(Taught):
    """Iterative product quantization of embeddings and Linear modules (iPQ, Fan et al. 2021, arXiv 2004.07320): a byte for
    each block of a weight's input channels, and a table of 256 blocks.

        optkit.Recipe(name="small", stages=[optkit.ProductQuantize(epochs=3)])

    The model computes with the weights as any other; checkpoints and engines are stored small. A later
    `Quantize(weights="per_tensor", embeddings=False)` keeps blocks shared.
    """

    technique: Literal["product_quantize"] = "product_quantize"
    order: ClassVar[int] = 25
    read_where: ClassVar[Mapping[str, ReadWhere]] = {**TRAINING, "groups": TRAINED}
    block: Block = 4
    """Input channels of a block of a Linear module; 8 takes half the space of 4."""
    embedding_block: Block = 4
    """Channels of a block of an embedding."""
    centroids: int = Field(256, ge=2, le=256)
    """Different blocks of each weight, found by k-means."""
    groups: int = Field(2, ge=1)
    """Number of groups into which the feed-forward's weights, and attention's, are divided by depth. They are quantised
    after the embeddings, one after the other, and after each the model is trained for an equal share of the epochs."""
    epochs: float = Field(3, ge=0)

    def preflight(self, model: "PreTrainedModel", recipe: str) -> "PreTrainedModel":
        """Return the model unchanged, after a warning about weights that stay as they are.

        Raises:
            InputError: no weight can be quantised.
        """
        from optkit.compression import block_clustering

        block_clustering.report_float(recipe, model, self._sizes(model))
        return model

    def apply(self, loaded: "LoadedModel", context: "Context") -> History:
        """Quantise the model's weights in place, group by group, and train it after each.

        Returns:
            Training history of all groups, empty without epochs.

        Raises:
            GateError: equal blocks have been parted.
        """
        from optkit.compression import block_clustering
        from optkit.compression.retrain import retrain
        from optkit.models.shared_blocks import matrices

        self.checked()
        history, sizes, parts = History(), self._sizes(loaded.model), matrices(loaded.model)
        groups = block_clustering.in_groups(loaded.model, sizes, self.groups)
        for number, names in enumerate(groups, 1):
            for name in names:
                block_clustering.quantise(parts[name].weight, sizes[name], self.centroids, context.seed)
            title = f"product quantization, group {number} of {len(groups)}"
            history += retrain(loaded, self._share(number - 1, len(groups)), context, title)
        return history

    def check(self, model: "PreTrainedModel", when: str) -> None:
        """Raise `GateError` naming every weight that should share its blocks and does not."""
        from optkit.models import shared_blocks

        shared_blocks.check(model, self._sizes(model), when, self.centroids)

    def _sizes(self, model: "nn.Module") -> dict[str, int]:
        from optkit.compression import block_clustering

        return block_clustering.block_sizes(model, self.block, self.embedding_block, self.centroids)

    def _share(self, number: int, groups: int) -> "ProductQuantize":
        """Return the stage with the part of its training that follows one of the groups."""
        own: dict[str, float | int | None] = {}
        for name in ("epochs", "representation_epochs"):
            own[name] = getattr(self, name) / groups
        for name in ("steps", "representation_steps"):
            if (whole := getattr(self, name)) is not None:
                own[name] = math.floor(whole * (number + 1) / groups) - math.floor(whole * number / groups)
        return self.model_copy(update=own)
