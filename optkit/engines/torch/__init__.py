"""Engines compiled ahead of time by PyTorch: the graph as a module, its operators, and the packages made of it."""
