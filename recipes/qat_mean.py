"""INT8 by quantization-aware training, taught by the mean of two seeds' FP32 baselines; best with --unlabelled FILE."""

import optkit
from optkit import Quantize, Recipe

recipe = Recipe(
    name="qat_mean",
    stages=[
        Quantize(
            shift=True,
            gelu_clip=10.0,
            calibrator="kl",
            epochs=2,
            learning_rate=3e-5,
            schedule="cosine",
            teacher=["baseline_fp32@0", "baseline_fp32@1"],
            ema=0.98,
        )
    ],
)

if __name__ == "__main__":
    optkit.main(recipe)  # python recipes/qat_mean.py --task sst2 --data DIR --unlabelled FILE
