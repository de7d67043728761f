"""Recipes: what is done to a model, as frozen settings that are checked when they are made."""
