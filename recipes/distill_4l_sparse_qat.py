"""A student of four layers, made 2:4 sparse, then INT8 by quantization-aware training."""

import optkit
from optkit import Distill, Quantize, Recipe, Sparsify

recipe = Recipe(
    name="distill_4l_sparse_qat",
    stages=[
        Distill(layers=4, representation_epochs=3, epochs=1, augment=0.3),
        Sparsify(criterion="sparsegpt", representation_epochs=1, epochs=1),
        Quantize(
            shift=True,
            gelu_clip=10.0,
            calibrator="kl",
            epochs=1,
            learning_rate=1e-5,
            teacher="baseline_fp32",
            augment=0.3,
            ema=0.98,
        ),
    ],
)

if __name__ == "__main__":
    optkit.main(recipe)  # python recipes/distill_4l_sparse_qat.py --task sst2 --data DIR
