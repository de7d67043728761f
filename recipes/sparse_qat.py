"""2:4 sparsity, then INT8 by quantization-aware training with the mask fixed."""

import optkit
from optkit import Quantize, Recipe, Sparsify

recipe = Recipe(
    name="sparse_qat",
    stages=[
        Sparsify(criterion="sparsegpt", representation_epochs=2, epochs=1),
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
    optkit.main(recipe)  # python recipes/sparse_qat.py --task sst2 --data DIR
