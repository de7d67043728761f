"""Engines: a runtime's built artefact each, in a folder of its own with an `engine.json` that says what it is."""
