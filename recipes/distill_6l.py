"""A student of six layers, taught by the FP32 baseline."""

import optkit
from optkit import Distill, Recipe

recipe = Recipe(
    name="distill_6l",
    stages=[
        Distill(layers=6, representation_epochs=3, epochs=1, augment=0.3),
    ],
)

if __name__ == "__main__":
    optkit.main(recipe)  # python recipes/distill_6l.py --task sst2 --data DIR
