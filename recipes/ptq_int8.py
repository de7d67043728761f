"""INT8 by post-training quantization: ranges by divergence on training examples, nothing trained."""

import optkit
from optkit import Quantize, Recipe

recipe = Recipe(
    name="ptq_int8",
    stages=[Quantize(shift=True, calibrator="kl")],
)

if __name__ == "__main__":
    optkit.main(recipe)  # python recipes/ptq_int8.py --task sst2 --data DIR
