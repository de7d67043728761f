"""2:4 structured sparsity: pruned by SparseGPT, trained again with the mask fixed, taught by the FP32 baseline."""

import optkit
from optkit import Recipe, Sparsify

recipe = Recipe(
    name="sparse_2to4",
    stages=[
        Sparsify(criterion="sparsegpt", representation_epochs=2, epochs=1),
    ],
)

if __name__ == "__main__":
    optkit.main(recipe)  # python recipes/sparse_2to4.py --task sst2 --data DIR
