"""The training loop: one for a CPU, a GPU, or several by `accelerate launch`. It knows nothing of techniques."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import nn
from transformers import get_scheduler

from optkit.core.cpu import cpu_features
from optkit.core.errors import OptkitError
from optkit.core.progress import bar
from optkit.recipe.training import Training
from optkit.tasks.base import Feed
from optkit.tasks.collate import Collator, bucketed, grouped, micro_batches, padded_targets
from optkit.training import cpu_kernels
from optkit.training.averaging import RunningAverage
from optkit.training.losses import Batch, Loss
from optkit.training.resume import Snapshots, State, Trained

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)
Augment = Callable[[Feed], Feed]
"""Function from a batch of inputs, int64 [batch, sequence] by name, to the batch to train on."""
_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
_FLUSH_STEPS = 10  # how many losses stay on the device before they are looked at
_CPU_PAIRS = 16 * 384**2
"""Most pairs of tokens, batch · sequence², in a micro-batch on a CPU: as many as a usual batch of question answering has.
Attention keeps several numbers for each pair and head until the backward pass."""


class TrainingError(OptkitError):
    """Training cannot go on."""


class Batches:
    """Training features as padded batches, in a new order every epoch."""

    def __init__(
        self,
        features: "Dataset",
        collator: Collator,
        batch_size: int | None,
        seed: int,
        targets: Sequence[str],
        augment: Augment | None = None,
        grouped_by: str | None = None,
    ) -> None:
        self.features, self.collator, self.batch_size, self.seed = features, collator, batch_size or 32, seed
        self.targets, self.augment = targets, augment
        self.lengths = features["length"][:]
        self.groups = features[grouped_by][:] if grouped_by else None

    def epoch(self, number: int) -> list[list[int]]:
        """Indices of the features, batch by batch; every epoch has as many batches."""
        if self.groups is not None:
            return grouped(self.groups, self.lengths, self.batch_size, (self.seed, number))
        return bucketed(self.lengths, self.batch_size, (self.seed, number))

    def pieces(self, indices: Sequence[int]) -> int:
        """Return the number of micro-batches that keep a batch within a CPU's memory."""
        longest = max(self.lengths[index] for index in indices)
        return math.ceil(len(indices) / max(1, _CPU_PAIRS // longest**2))

    def collate(self, indices: Sequence[int], device: torch.device) -> Batch:
        """Return the features of some indices as a padded batch on a device."""
        columns = self.features[indices]
        inputs = self.collator.feed({name: columns[name] for name in self.collator.names})
        if self.augment:
            inputs = self.augment(inputs)
        tensors = {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in inputs.items()}
        targets = {name: torch.tensor(padded_targets(columns[name]), device=device) for name in self.targets}
        return Batch(tensors, targets, indices)


@dataclass
class _Step:
    """A step whose loss has not been looked at yet."""

    number: int
    learning_rate: float
    indices: list[int]
    loss: torch.Tensor


def train(
    model: nn.Module,
    batches: Batches,
    loss: Loss,
    settings: Training,
    seed: int,
    logs: Path,
    title: str = "training",
    after_epoch: Callable[[], Any] | None = None,
    snapshots: Snapshots | None = None,
) -> list[dict[str, float]]:
    """Train a model in place with AdamW, linear warm-up, then decay.

    Args:
        model: moved to the device that accelerate picks, and back to the CPU at the end.
        batches: the features.
        loss: of the model and a batch.
        settings: resolved, without None.
        seed: of dropout and of whatever `model` draws.
        logs: where TensorBoard's event files go.
        title: of the progress bar.
        after_epoch: called to check an invariant.
        snapshots: where to go on from, and to keep how far it has come; the phase has the title's name.

    Returns:
        History: `step`, `epoch`, `loss` (mean since the last entry) and `learning_rate`, every ten steps.

    Raises:
        TrainingError: a loss is not finite; the step, the learning rate and the batch are named.
    """
    set_seed(seed)
    accelerator = _accelerator(settings, logs)
    optimiser = torch.optim.AdamW(
        _parameter_groups(model, settings.weight_decay or 0.0), lr=settings.learning_rate or 0.0, fused=True
    )
    per_epoch = len(batches.epoch(0))
    steps = settings.steps or max(1, math.ceil((settings.epochs or 0) * per_epoch))
    schedule = get_scheduler(_SCHEDULES[settings.schedule], optimiser, int(steps * (settings.warmup_ratio or 0)), steps)
    prepared, optimiser = accelerator.prepare(model, optimiser)
    prepared.train()
    history, average = _History(accelerator), RunningAverage(model, settings.ema)
    trained = Trained(model, optimiser, schedule, accelerator.scaler, average)
    done = _resume(snapshots, title, trained, history)
    kernels = cpu_kernels.fast(model) if accelerator.device.type == "cpu" else nullcontext()
    progress = bar(title, steps, not accelerator.is_main_process, done)
    with kernels, _given_back(accelerator, prepared, model), progress as advance:
        for number, indices in _in_order(batches, range(done, steps), per_epoch):
            value = _optimise(accelerator, prepared, batches, loss, indices, optimiser, settings)
            history.add(_Step(number, schedule.get_last_lr()[0], list(indices), value), number / per_epoch)
            schedule.step()
            average.update()
            advance(1)
            if after_epoch and (number + 1) % per_epoch == 0:
                after_epoch()
            if snapshots and accelerator.is_main_process and not history.pending:
                snapshots.save_when_due(title, partial(_so_far, trained, history, number + 1))
        history.flush(steps / per_epoch)
        average.finish()
    for tracker in accelerator.trackers:
        tracker.finish()  # not end_training(), which would part the processes for good
    return history.entries


@contextmanager
def _given_back(accelerator: Accelerator, prepared: Any, model: nn.Module) -> Iterator[None]:
    """Leave the model on the CPU, in eval mode and as it was before accelerate, also where training fails."""
    try:
        yield
    finally:
        accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)  # else the model would go on computing under autocast
        model.cpu().eval()


@torch.no_grad()
def mean_loss(model: nn.Module, batches: Batches, loss: Loss) -> float:
    """Return a model's mean loss over all features, without dropout, in float32.

    Args:
        model: in eval mode and on the CPU afterwards.
        batches: the features.
        loss: of the model and a batch.
    """
    device = None if on_cpu() else torch.accelerator.current_accelerator()
    device = device or torch.device("cpu")
    model.to(device).eval()
    order = batches.epoch(0)
    total = sum(float(loss(model, batches.collate(indices, device))) * len(indices) for indices in order)
    model.cpu()
    return total / sum(map(len, order))


def _so_far(trained: Trained, history: "_History", done: int) -> State:
    return {**trained.state(), "history": history.entries, "done": done}


def _resume(snapshots: Snapshots | None, title: str, trained: Trained, history: "_History") -> int:
    """Take over the last snapshot; how many steps it has behind it."""
    state = snapshots.load(title) if snapshots else None
    if state is None:
        return 0
    trained.restore(state)
    history.entries = state["history"]
    log.info("%s: goes on after %d steps", title, state["done"])
    return state["done"]


def _optimise(
    accelerator: Accelerator,
    model: Any,
    batches: Batches,
    loss: Loss,
    indices: Sequence[int],
    optimiser: Any,
    settings: Training,
) -> torch.Tensor:
    """One optimiser step over a process's share of a batch, in micro-batches; its mean loss, not read by the host."""
    pieces = max(settings.gradient_accumulation, batches.pieces(indices) if accelerator.device.type == "cpu" else 1)
    total = torch.zeros((), device=accelerator.device)
    for part in micro_batches(indices, pieces, accelerator.num_processes)[accelerator.process_index]:
        # without a row of its own, a process only waits for the others: they sum their gradients in every backward pass
        batch = batches.collate(part or indices[:1], accelerator.device)
        with accelerator.autocast():
            value = loss(model, batch) * (len(part) * accelerator.num_processes) / len(indices)
        accelerator.backward(value)
        total += value.detach()
    accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
    optimiser.step()
    optimiser.zero_grad()
    return total


class _History:
    """Losses, looked at every few steps so that a GPU is not kept waiting for the host."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.pending: list[_Step] = []
        self.entries: list[dict[str, float]] = []

    def add(self, step: _Step, epoch: float) -> None:
        self.pending.append(step)
        if len(self.pending) == _FLUSH_STEPS:
            self.flush(epoch)

    def flush(self, epoch: float) -> None:
        if not self.pending:
            return
        losses = self.accelerator.reduce(torch.stack([step.loss for step in self.pending]), "mean").tolist()
        for step, value in zip(self.pending, losses, strict=True):
            if not math.isfinite(value):
                first = "nothing was learned before: the data's numbers or the model's weights are too large"
                fix = "lower the learning rate, raise warmup_ratio, or train in fp32" if step.number else first
                raise TrainingError(
                    f"the loss is {value} at step {step.number} with learning rate {step.learning_rate:.3g}, on the "
                    f"training features {step.indices}; {fix}"
                )
        entry = {"loss": sum(losses) / len(losses), "learning_rate": self.pending[-1].learning_rate}
        self.accelerator.log(entry, step=self.pending[-1].number)
        self.entries.append({"step": self.pending[-1].number, "epoch": round(epoch, 4), **entry})
        self.pending.clear()


def autocast_type(settings: Training) -> str:
    """The type of `precision="auto"`: bf16 or fp16 where the device computes in it, else fp32."""
    if settings.precision not in (None, "auto"):
        return str(settings.precision)
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"
    return "bf16" if {"avx512_bf16", "amx_bf16"} & set(cpu_features()) else "fp32"


def on_cpu() -> bool:
    """Whether there is nothing better; accelerate joins several processes without a GPU only when told so."""
    return not torch.accelerator.is_available()


def _accelerator(settings: Training, logs: Path) -> Accelerator:
    AcceleratorState._reset_state()  # a process may train recipes of different precisions, one after the other
    precision = autocast_type(settings).replace("fp32", "no")
    accelerator = Accelerator(cpu=on_cpu(), mixed_precision=precision, log_with="tensorboard", project_dir=str(logs))
    accelerator.init_trackers("")
    log.info("training on %s, %s", accelerator.device, autocast_type(settings))
    return accelerator


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices only, not on biases and LayerNorm (Devlin et al. 2018)."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trainable if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _in_order(batches: Batches, steps: range, per_epoch: int) -> Iterator[tuple[int, list[int]]]:
    """Yield the batches of all epochs, with the number of their step."""
    orders = cache(batches.epoch)
    for number in steps:
        epoch, position = divmod(number, per_epoch)
        yield number, orders(epoch)[position]
