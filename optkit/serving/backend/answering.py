"""Logits to answers inside the server, as the tasks read them: NumPy alone."""

from collections.abc import Mapping

import numpy as np

from optkit.serving.backend.batching import Refusal
from optkit.serving.config import OUTPUT
from optkit.tasks.served import ServedForm, TextSettings


def answer(request: Mapping[str, np.ndarray], form: ServedForm, settings: TextSettings) -> dict[str, np.ndarray] | Refusal:
    """Read a request's logits as the task does.

    Args:
        request: `logits` [batch, …], or [windows, …] of one example, and what the form needs beside them.
        form: of the task, which reads the logits.
        settings: likewise.
    """
    if not np.isfinite(request[OUTPUT]).all():
        return Refusal("logits: found NaN or infinity, expected finite numbers", fault_of_request=False)
    return form.answer(request[OUTPUT], request, settings)
