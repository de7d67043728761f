"""A student of six layers, then INT8 by quantization-aware training."""

from optkit import Distill, Quantize, Recipe

recipe = Recipe(
    name="distill_6l_qat",
    stages=[
        Distill(layers=6),
        Quantize(gelu_clip=10.0, calibrator="mse", epochs=1, dropout=0, teacher="baseline_fp32"),
    ],
)

if __name__ == "__main__":
    recipe.main()  # python recipes/distill_6l_qat.py --task sst2 --data DIR
