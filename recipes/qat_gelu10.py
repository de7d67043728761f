"""INT8 by quantization-aware training, GELU clipped at 10, taught by the FP32 baseline."""

import optkit
from optkit import Quantize, Recipe

recipe = Recipe(
    name="qat_gelu10",
    stages=[
        Quantize(
            shift=True,
            gelu_clip=10.0,
            calibrator="kl",
            epochs=2,
            learning_rate=5e-6,
            schedule="cosine",
            teacher="baseline_fp32",
            augment=0.3,
            ema=0.98,
        )
    ],
)

if __name__ == "__main__":
    optkit.main(recipe)  # python recipes/qat_gelu10.py --task sst2 --data DIR
