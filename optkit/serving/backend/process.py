"""What every backend process of ours does: it finds its files, answers or refuses, and ends with its server.

Runs inside the server's backend process alone, where `triton_python_backend_utils` can be imported.
"""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from optkit.serving import slots
from optkit.serving.backend.batching import Refusal

Result = Mapping[str, np.ndarray] | Refusal
_NOBODY = Refusal("nobody waits for the answer", fault_of_request=True)
_SLOTS = slots.Slots(Path(os.environ[slots.VARIABLE])) if slots.VARIABLE in os.environ else None


def begin(args: Mapping[str, str]) -> Path:
    """The version's folder, after the process was set up; for `initialize`."""
    threading.Thread(target=_end_with_server, daemon=True).start()
    version = Path(args["model_repository"], args["model_version"])
    # Written when `model.py` was imported a moment ago; a repository holds what was published and nothing else.
    shutil.rmtree(version / "__pycache__", ignore_errors=True)
    return version


def array(request: Any, name: str) -> np.ndarray:
    """One input of a request."""
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()


def responses(requests: Sequence[Any], answer: Callable[[list[Any]], Iterable[Result]], drop: bool = True) -> list[Any]:
    """One response per request, in order.

    Args:
        requests: of clients.
        answer: the outputs of some of them, or why there are none, in order.
        drop: leave those out whose client has gone, as far as the server's front knows.
    """
    waited = [not (drop and _has_gone(request)) for request in requests]
    answers = iter(answer([request for request, one in zip(requests, waited, strict=True) if one]))
    return [_response(next(answers) if one else _NOBODY) for one in waited]


def _has_gone(request: Any) -> bool:
    slot = json.loads(request.parameters()).get(slots.HEADER) if _SLOTS else None
    return bool(_SLOTS and slot and _SLOTS.marked(int(slot)))


def _response(result: Result) -> Any:
    if isinstance(result, Refusal):
        code = pb_utils.TritonError.INVALID_ARG if result.fault_of_request else pb_utils.TritonError.INTERNAL
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(result.reason, code))
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in result.items()])


def _end_with_server() -> None:
    """End this process when the server is gone: a server killed in mid-request would leave it waiting for ever."""
    # a server that was killed while this process started is not its parent any more
    server = int(os.environ.get("OPTKIT_SERVER", os.getppid()))
    while os.getppid() == server:
        time.sleep(1.0)
    region = Path("/proc/self/cmdline").read_text(encoding="utf-8").split("\0")[2]
    Path("/dev/shm", region).unlink(missing_ok=True)
    os._exit(1)
