"""INT8 by quantization-aware training, one scale per weight, for TensorRT's kernels that write INT8; GELU clipped at 10."""

import optkit
from optkit import Quantize, Recipe

recipe = Recipe(
    name="qat_per_tensor",
    stages=[
        Quantize(
            weights="per_tensor",
            shift=True,
            gelu_clip=10.0,
            calibrator="kl",
            epochs=1,
            learning_rate=1e-5,
            teacher="baseline_fp32",
            augment=0.3,
            ema=0.98,
        )
    ],
)

if __name__ == "__main__":
    optkit.main(recipe)  # python recipes/qat_per_tensor.py --task sst2 --data DIR --engine tensorrt
