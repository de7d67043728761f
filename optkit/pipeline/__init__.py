"""The way a recipe takes: steps that leave their evidence on disk, and what is done with the results."""
