"""Triton's Python backend of a tensor model: loads the engine of a version folder and answers requests with it."""

import json
from typing import Any

import numpy as np

from optkit import engines
from optkit.serving.backend import process
from optkit.serving.backend.batching import Feed, Limits, Refusal, answer
from optkit.serving.config import OUTPUT
from optkit.serving.repository import ENGINE


class TritonPythonModel:
    """One instance of one engine."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine that lies in the version's folder; the parameters come from `config.pbtxt`."""
        version = process.begin(args)
        config = json.loads(args["model_config"])
        parameters = {name: int(value["string_value"]) for name, value in config["parameters"].items()}
        threads = parameters.pop("threads", None)
        self.limits = Limits(**parameters)
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.engine = engines.load(version / ENGINE, threads)

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request, in order."""
        feeds = [{name: process.array(request, name) for name in self.inputs} for request in requests]
        answers = answer(feeds, self._infer, self.limits)
        return [process.response(one if isinstance(one, Refusal) else {OUTPUT: one}) for one in answers]

    def _infer(self, feed: Feed) -> np.ndarray:
        return engines.infer(self.engine, feed)
