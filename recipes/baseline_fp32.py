"""The fine-tuned FP32 model that every other recipe starts from and is compared with."""

import optkit
from optkit import Recipe

recipe = Recipe(name="baseline_fp32")

if __name__ == "__main__":
    optkit.main(recipe)  # python recipes/baseline_fp32.py --task sst2 --data DIR
