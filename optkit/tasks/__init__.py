"""Tasks: the data sets that models are trained on and scored by, and how each of them is served."""
