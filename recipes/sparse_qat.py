"""2:4 sparsity, then INT8 by quantization-aware training with the mask fixed."""

import optkit
from optkit import Quantize, Recipe, Sparsify

recipe = Recipe(
    name="sparse_qat",
    stages=[
        Sparsify(representation_epochs=2, epochs=1),
        Quantize(gelu_clip=10.0, calibrator="mse", epochs=1, teacher="baseline_fp32"),
    ],
)

if __name__ == "__main__":
    optkit.main(recipe)  # python recipes/sparse_qat.py --task sst2 --data DIR
