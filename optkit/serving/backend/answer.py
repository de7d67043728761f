"""Triton's Python backend after a tensor model: logits in, the task's answer out."""

import json
from typing import Any

from optkit.serving.backend import process
from optkit.serving.backend.answering import answer
from optkit.tasks import registry
from optkit.tasks.served import TextSettings


class TritonPythonModel:
    """One task's way to read logits."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the task's settings, which lie in the version's folder."""
        self.settings = TextSettings.read(process.begin(args))
        self.form = registry.form(self.settings.head)  # without which it is not ready
        self.inputs = [tensor["name"] for tensor in json.loads(args["model_config"])["input"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request, in order."""
        return process.responses(requests, lambda waited: map(self._answer, waited))

    def _answer(self, request: Any) -> process.Result:
        logits = {name: process.array(request, name) for name in self.inputs}
        return answer(logits, self.form, self.settings)
