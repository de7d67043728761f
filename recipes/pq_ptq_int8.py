"""Product quantization, taught by the FP32 baseline, then INT8 that keeps it: smaller than INT8 alone can be."""

import optkit
from optkit import ProductQuantize, Quantize, Recipe

recipe = Recipe(
    name="pq_ptq_int8",
    stages=[
        ProductQuantize(representation_epochs=3, epochs=2, learning_rate=2e-4),
        Quantize(weights="per_tensor", embeddings=False, calibrator="kl"),
    ],
)

if __name__ == "__main__":
    optkit.main(recipe)  # python recipes/pq_ptq_int8.py --task sst2 --data DIR
