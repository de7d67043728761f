"""The model registry: how versions come into a model repository, go live, are checked, go back and are removed."""
