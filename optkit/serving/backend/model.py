"""Triton's Python backend: loads the engine of a version folder and answers requests with it.

Runs inside the server's backend process alone, where `triton_python_backend_utils` can be imported.
"""

import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from optkit import engines
from optkit.serving.backend.batching import Feed, Limits, Refusal, answer
from optkit.serving.config import OUTPUT
from optkit.serving.repository import ENGINE


class TritonPythonModel:
    """One instance of one engine."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine that lies in the version's folder; the parameters come from `config.pbtxt`."""
        threading.Thread(target=_end_with_server, daemon=True).start()
        version = Path(args["model_repository"], args["model_version"])
        # Written when `model.py` was imported a moment ago; a repository holds what was published and nothing else.
        shutil.rmtree(version / "__pycache__", ignore_errors=True)
        config = json.loads(args["model_config"])
        parameters = {name: int(value["string_value"]) for name, value in config["parameters"].items()}
        threads = parameters.pop("threads", None)
        self.limits = Limits(**parameters)
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.engine = engines.load(version / ENGINE, threads)

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request, in order."""
        feeds = [
            {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            for request in requests
        ]
        return [_response(result) for result in answer(feeds, self._infer, self.limits)]

    def _infer(self, feed: Feed) -> np.ndarray:
        return engines.infer(self.engine, feed)


def _response(result: np.ndarray | Refusal) -> Any:
    if isinstance(result, Refusal):
        code = pb_utils.TritonError.INVALID_ARG if result.fault_of_request else pb_utils.TritonError.INTERNAL
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(result.reason, code))
    return pb_utils.InferenceResponse([pb_utils.Tensor(OUTPUT, result)])


def _end_with_server() -> None:
    """End this process when the server is gone: a server killed in mid-request would leave it waiting for ever."""
    server = os.getppid()
    while os.getppid() == server:
        time.sleep(1.0)
    region = Path("/proc/self/cmdline").read_text(encoding="utf-8").split("\0")[2]
    Path("/dev/shm", region).unlink(missing_ok=True)
    os._exit(1)
