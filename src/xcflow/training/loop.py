"""The loop that both modules share: epochs, schedule, validation, early stopping, checkpoints.

Every random choice is drawn anew from (seed, epoch, step), so a loop that goes on from a
checkpoint takes the same choices as one that was never interrupted.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xcflow.distributed.collectives import Dealt, total
from xcflow.distributed.world import ALONE, World
from xcflow.interruption import Interruption, held_back
from xcflow.phases import phase
from xcflow.progress import log, progress
from xcflow.training.checkpoint import Checkpoint
from xcflow.training.validation import SELECTION, in_points

T = TypeVar("T")
_LOSS_POINTS = 20  # points of the loss curve in an epoch


class Trainee(Protocol):
    """What is trained: the loop knows nothing of encoders and labels."""

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The order of the documents in an epoch."""

    def step(self, rows: NDArray[np.int64], rate: float, rng: np.random.Generator) -> float:
        """Learn from a batch of documents at ``rate`` times the peak rates.

        Returns:
            The loss; of several ranks, what this one adds to it.
        """

    def validate(self) -> dict[str, float]:
        """Metrics on the validation split."""

    def state(self, *, training: bool) -> dict[str, Tensor]:
        """The tensors of the model, and with ``training`` all that the next step depends on."""

    def dealt(self) -> dict[str, Dealt]:
        """Tensors of the state that are dealt to the ranks, and how."""

    def restore(self, tensors: dict[str, Tensor], *, training: bool) -> None:
        """Take back what ``state`` gave."""


@dataclass(frozen=True)
class Plan:
    """How long and in which steps.

    Attributes:
        title: Shown with the progress.
        epochs: At most so many.
        batch_size: Documents in a step, at most: an epoch is cut into equal steps.
        warmup_steps: Linear warm-up, at most a tenth of all steps.
        patience: Epochs without a better validation score before it stops.
        seed: The run's seed.
    """

    title: str
    epochs: int
    batch_size: int
    warmup_steps: int
    patience: int
    seed: int

    def rate(self, step: int, steps: int) -> float:
        """Share of the peak rate: linear warm-up, then linear to 0 at the last step."""
        warmup = min(self.warmup_steps, steps // 10)
        return min(1.0, (step + 1) / (warmup + 1)) * (1.0 - step / steps)


@dataclass
class Progress:
    """Where a loop stands; plain values that a checkpoint keeps.

    Attributes:
        epoch: 0-based epoch.
        step: Next step of the epoch.
        series: Name of a curve -> [[step or epoch, value], ...].
        best_epoch: Epoch of the best validation score, -1 for the untrained state.
        best_score: That score.
        recent: Losses since the last point of the curve.
    """

    epoch: int = 0
    step: int = 0
    series: dict[str, list[list[float]]] = field(default_factory=dict)
    best_epoch: int = -1
    best_score: float = -1.0
    recent: list[float] = field(default_factory=list)

    def point(self, name: str, at: float, value: float) -> None:
        """Add a point to a curve."""
        self.series.setdefault(name, []).append([at, value])


def train(
    trainee: Trainee, documents: int, plan: Plan, checkpoint: Checkpoint, world: World = ALONE
) -> dict[str, Any]:
    """Train until the plan ends or validation stops improving, and leave the best state.

    Args:
        trainee: What is trained.
        documents: Number of training documents.
        plan: How long.
        checkpoint: Where to save and from where to go on.
        world: Ranks that train together, each of which calls this.

    Returns:
        The history: ``series`` (curves), ``best_epoch``, ``epochs`` (run).
    """
    now = Progress()
    order: NDArray[np.int64] | None = None
    saved = checkpoint.load(_of_now(trainee.dealt()))
    if saved is None:
        _validate(trainee, now, plan, epoch=-1)
        checkpoint.keep(trainee.state(training=False), now.best_epoch, trainee.dealt())
    else:
        tensors, state = saved
        now = Progress(**state)
        trainee.restore(_part(tensors, "now."), training=True)
        if "order" in tensors:
            order = tensors["order"].numpy()
        log(f"{plan.title}: going on from epoch {now.epoch + 1}, step {now.step + 1}")
    # A step changes the model in many places, and a validation the curves and the best model: they
    # are not broken into. An interruption takes effect after them, when the state is saved. Ranks
    # end at the same place, whichever of them heard of it, and however often.
    stop = False
    with held_back(once=world.alone) as interrupted:
        while not stop and now.epoch < plan.epochs and now.epoch - now.best_epoch <= plan.patience:
            if order is None:
                with phase("order"):
                    order = trainee.order(now.epoch)
            stop = _run_epoch(trainee, documents, plan, checkpoint, now, order, world, interrupted)
            if stop:
                break
            order = None
            if _validate(trainee, now, plan, now.epoch):
                checkpoint.keep(trainee.state(training=False), now.epoch, trainee.dealt())
            now.epoch, now.step = now.epoch + 1, 0
            told, due = total(world, interrupted(), world.first and checkpoint.due())
            stop = bool(told)
            if stop or due:
                _save(trainee, checkpoint, now, None)
    if stop:  # another rank was told
        raise Interruption(signal.SIGTERM)
    if now.best_epoch != now.epoch - 1:
        trainee.restore(checkpoint.kept(now.best_epoch, trainee.dealt()), training=False)
    return {"series": now.series, "best_epoch": now.best_epoch, "epochs": now.epoch}


def _run_epoch(
    trainee: Trainee,
    documents: int,
    plan: Plan,
    checkpoint: Checkpoint,
    now: Progress,
    order: NDArray[np.int64],
    world: World,
    interrupted: Callable[[], bool],
) -> bool:
    """Take the steps of an epoch that are left; whether an interruption ended them early."""
    steps = -(-documents // plan.batch_size)
    title = f"{plan.title}, epoch {now.epoch + 1} of {plan.epochs}"
    stop = 0.0
    with progress(title, documents, "documents") as advance:
        while now.step < steps and not stop:
            rows = order[now.step * documents // steps : (now.step + 1) * documents // steps]
            rng = np.random.default_rng([plan.seed, now.epoch, now.step])
            torch.manual_seed(int(rng.integers(2**62)))
            at = now.epoch * steps + now.step
            with phase("batches"):
                loss = trainee.step(rows, plan.rate(at, plan.epochs * steps), rng)
            due = world.first and checkpoint.due()
            loss, stop, save = total(world, loss, interrupted(), due)
            now.recent.append(loss)
            now.step += 1
            if now.step == steps or len(now.recent) >= max(1, steps // _LOSS_POINTS):
                now.point("train/loss", at + 1, float(np.mean(now.recent)))
                now.recent.clear()
            advance(len(rows), f"loss {loss:.4f}")
            if save or stop:
                _save(trainee, checkpoint, now, order)
    return bool(stop)


def _validate(trainee: Trainee, now: Progress, plan: Plan, epoch: int) -> bool:
    """Measure, note and show; whether it is the best so far."""
    with phase("validation"):
        metrics = trainee.validate()
    for name, value in metrics.items():
        now.point(f"validation/{name}", epoch + 1, value)
    when = "start" if epoch < 0 else f"epoch {epoch + 1}"
    log(f"{plan.title}, {when}: validation {in_points(metrics)}")
    if metrics[SELECTION] <= now.best_score:
        return False
    now.best_score, now.best_epoch = metrics[SELECTION], epoch
    return True


def _save(
    trainee: Trainee,
    checkpoint: Checkpoint,
    now: Progress,
    order: NDArray[np.int64] | None,
) -> None:
    tensors = _of_now(trainee.state(training=True))
    if order is not None:
        tensors["order"] = torch.from_numpy(order)
    with phase("checkpoint"):
        checkpoint.save(tensors, dict(now.__dict__), _of_now(trainee.dealt()))


def _of_now(named: Mapping[str, T]) -> dict[str, T]:
    """The same by the names that a checkpoint has beside those of the best epoch."""
    return {f"now.{name}": value for name, value in named.items()}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
