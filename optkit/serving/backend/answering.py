"""Logits to answers inside the server, as the tasks read them: NumPy alone."""

from collections.abc import Mapping

import numpy as np

from optkit.serving.backend.batching import Refusal
from optkit.serving.config import OUTPUT
from optkit.tasks.served import TextSettings


def answer(request: Mapping[str, np.ndarray], settings: TextSettings) -> dict[str, np.ndarray] | Refusal:
    """The outputs of the task's form.

    Args:
        request: `logits` [batch, …], or [windows, …] of one example, and what the form needs beside them.
        settings: of the task.
    """
    if not np.isfinite(request[OUTPUT]).all():
        return Refusal("logits: found NaN or infinity, expected finite numbers", fault_of_request=False)
    return settings.form.answer(request[OUTPUT], request, settings)
