"""Serving: a model repository, the Triton server over it, and the client that asks it."""
