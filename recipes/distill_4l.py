"""A student of four layers, taught by the FP32 baseline."""

import optkit
from optkit import Distill, Recipe

recipe = Recipe(
    name="distill_4l",
    stages=[
        Distill(layers=4, representation_epochs=3, epochs=1, augment=0.3),
    ],
)

if __name__ == "__main__":
    optkit.main(recipe)  # python recipes/distill_4l.py --task sst2 --data DIR
