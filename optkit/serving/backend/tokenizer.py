"""Triton's Python backend before a tensor model: texts in, tokens out."""

import json
import os
from typing import Any

from optkit.serving.backend import process
from optkit.serving.backend.encoding import Encoder, encoded


class TritonPythonModel:
    """One tokenizer."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer that lies in the version's folder."""
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the cores are the engine's
        version = process.begin(args)
        self.inputs = [tensor["name"] for tensor in json.loads(args["model_config"])["output"]]
        self.encoder = Encoder(version)

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request, in order."""
        return process.responses(requests, lambda waited: map(self._answer, waited))

    def _answer(self, request: Any) -> process.Result:
        texts = {name: process.array(request, name) for name in self.encoder.settings.fields}
        return encoded(self.encoder, texts, self.inputs)
