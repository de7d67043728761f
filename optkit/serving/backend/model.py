"""Triton's Python backend of a tensor model: loads the engine of a version folder and answers requests with it."""

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from optkit.engines import registry as engines
from optkit.serving.backend import process
from optkit.serving.backend.batching import Feed, Limits, Refusal, answer, plain
from optkit.serving.backend.lengths import call_cost
from optkit.serving.config import OUTPUT, WARMUP, per_token, values
from optkit.serving.repository import ENGINE


class TritonPythonModel:
    """One instance of one engine."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine that lies in the version's folder and warm it up; the parameters come from `config.pbtxt`."""
        version = process.begin(args)
        config = json.loads(args["model_config"])
        parameters = values({name: value["string_value"] for name, value in config["parameters"].items()})
        threads, shapes = parameters.pop("threads", None), parameters.pop(WARMUP, ())
        self.limits = Limits(**parameters)
        self.inputs = [tensor["name"] for tensor in config["input"]]
        # The response cache keeps a refusal, and would hand it to whoever asks the same.
        self.cached = bool(config.get("response_cache", {}).get("enable"))
        self.per_token = per_token([int(size) for size in config["output"][0]["dims"]])
        self.engine = engines.load(version / ENGINE, threads)
        for batch, tokens in shapes:
            self._infer(plain(self.inputs, batch, tokens))  # a version that cannot is not ready
        # A GPU's runs are too short to pay, and it prepares itself for each shape.
        shared = "dynamic_batching" in config and not self.engine.runtime.on_gpu
        self.call = call_cost(self._one_row, self.limits.max_sequence) if shared else math.inf

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request, in order."""
        return process.responses(requests, self._answers, drop=not self.cached)

    def _answers(self, requests: list[Any]) -> Iterable[process.Result]:
        feeds = [{name: process.array(request, name) for name in self.inputs} for request in requests]
        answers = answer(feeds, self._infer, self.limits, self.per_token, self.call)
        return [one if isinstance(one, Refusal) else {OUTPUT: one} for one in answers]

    def _one_row(self, tokens: int) -> np.ndarray:
        return self._infer(plain(self.inputs, 1, tokens))

    def _infer(self, feed: Feed) -> np.ndarray:
        return self.engine.infer(feed)
