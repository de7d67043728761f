"""Snapshots of a training: one that was killed goes on from the last, and ends with the weights it would have had."""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from optkit.core import atomic, mirror, step_cache, temporary
from optkit.core.errors import MachineError
from optkit.training.averaging import RunningAverage

log = logging.getLogger(__name__)
State = dict[str, Any]


@dataclass
class Snapshots:
    """Keeps how far the phases of a step's training have come, in a folder beside the one that the step makes."""

    folder: Path
    key: str
    """The step's key: a snapshot is only found by a step that would do exactly the same."""
    every_s: ClassVar[float] = 60.0
    _last: float = field(default_factory=time.monotonic, init=False)

    def load(self, phase: str) -> State | None:
        """The last snapshot of a phase, None where there is none that can be read."""
        path = self._path(phase)
        mirror.receive(path)  # a machine that has died was there after this one
        if not path.is_file():
            return None
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever torch raises of a broken file: then the phase begins anew
            log.warning("%s cannot be read (%s): this phase of training begins anew", path, error)
            return None

    def save_when_due(self, phase: str, state: Callable[[], State]) -> None:
        """Write one, unless the last is younger than `every_s`; where the disk or the store refuses, training goes on."""
        if time.monotonic() - self._last < self.every_s:
            return
        path = self._path(phase)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.file(path) as unfinished:
                torch.save(state(), unfinished)
                atomic.flush(unfinished)
                os.replace(unfinished, path)
            mirror.send(path)
        except (OSError, RuntimeError, MachineError) as error:  # torch's writer has errors of its own
            log.warning("no snapshot of the training: %s", error)
        self._last = time.monotonic()

    def clear(self) -> None:
        """Remove them all: the step is finished."""
        if self.folder.exists():
            mirror.forget(self.folder)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, phase: str) -> Path:
        return self.folder / f"{step_cache.key_of({'step': self.key, 'phase': phase})[:16]}.pt"


@dataclass(frozen=True)
class Trained:
    """Everything of a training that changes from step to step, but for the losses."""

    model: nn.Module
    optimiser: Any
    schedule: Any
    scaler: Any
    """Scales FP16's gradients; None in other precisions."""
    average: RunningAverage

    def state(self) -> State:
        """Return the state as plain tensors and numbers."""
        with_state = {name: part.state_dict() for name, part in self._stateful()}
        random = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}
        return {**with_state, "tensors": dict(self._tensors()), "random": random}

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Take over what `state` gave."""
        for name, part in self._stateful():
            part.load_state_dict(state[name])
        for name, tensor in self._tensors():
            tensor.copy_(state["tensors"][name])
        torch.set_rng_state(state["random"]["cpu"])
        torch.cuda.set_rng_state_all(state["random"]["cuda"])

    def _stateful(self) -> Iterator[tuple[str, Any]]:
        yield from (("optimiser", self.optimiser), ("schedule", self.schedule), ("average", self.average))
        if self.scaler is not None:
            yield "scaler", self.scaler

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield trainable parameters and all buffers by name; a teacher's weights never change."""
        yield from ((name, part.detach()) for name, part in self.model.named_parameters() if part.requires_grad)
        yield from self.model.named_buffers()
