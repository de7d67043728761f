"""A student of four layers, made 2:4 sparse, then INT8 by quantization-aware training."""

import optkit
from optkit import Distill, Quantize, Recipe, Sparsify

recipe = Recipe(
    name="distill_4l_sparse_qat",
    stages=[
        Distill(layers=4, representation_epochs=3, epochs=1, augment=0.3),
        Sparsify(representation_epochs=1, epochs=1),
        Quantize(gelu_clip=10.0, calibrator="mse", epochs=1, teacher="baseline_fp32"),
    ],
)

if __name__ == "__main__":
    optkit.main(recipe)  # python recipes/distill_4l_sparse_qat.py --task sst2 --data DIR
