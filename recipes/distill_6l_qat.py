"""A student of six layers, then INT8 by quantization-aware training."""

import optkit
from optkit import Distill, Quantize, Recipe

recipe = Recipe(
    name="distill_6l_qat",
    stages=[
        Distill(layers=6, representation_epochs=3, epochs=1, augment=0.3),
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
    optkit.main(recipe)  # python recipes/distill_6l_qat.py --task sst2 --data DIR
