"""Fit a task: the one training loop. It counts epochs and steps, checks losses, keeps checkpoints, and goes on where it was killed.

What is trained, and how, is a task's: see `Task`. The same task, data and seed give the same bytes, interrupted or not.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from odn.data.batches import Images, n_steps, training_batches
from odn.errors import ConfigError, TrainingError
from odn.records import Count, Fraction, Positive, Record
from odn.sections import AugmentConfig, TrainConfig
from odn.training.checkpoint import Checkpoint, agreed, resume, save_checkpoint
from odn.training.device import Machine
from odn.training.evaluation import Evaluation
from odn.training.group import Group, Shared
from odn.training.replay import Step, replayed
from odn.training.seed import seeded

CHECKPOINT_SECONDS = 30.0  # between two checkpoints within an epoch; between two at ends of epochs a thirtieth of it
CHECK_STEPS = 100  # steps between two checks of the loss: a check makes the GPU wait
TICK_SECONDS = 0.5
RANK_STRIDE = 2**40  # between the seeds of two processes: more than an epoch has steps

PhaseName = Literal["stable", "anneal", "trial", "finish", "gates", "refine", "warm-up"]


@dataclass(frozen=True)
class Tick:
    """Tell that training goes on: for a display, never for a decision."""

    epoch: int
    step: int
    steps: int


@dataclass(frozen=True)
class EpochRow(Record):
    """Hold one line of history.csv."""

    depth: Positive
    phase: PhaseName
    epoch: Positive
    lr: float  # of the last step
    train_loss: float
    train_accuracy: Fraction  # on the augmented batches, as they were trained on
    val_accuracy: Fraction  # of the averaged weights
    val_loss: float
    val_correct: Count
    n_val: Positive


@dataclass(frozen=True, kw_only=True)
class Progress(Record):
    """Hold what an interrupted training had done, beside its tensors."""

    rows: tuple[EpochRow, ...]
    epochs: Count  # that were over
    step: Count  # of the epoch after them that comes next
    counts: dict[str, Count | None]  # the task's own


@dataclass(frozen=True)
class Position:
    """Say where training is: an epoch, from 1, a step of it, from 0, and how many steps an epoch has."""

    epoch: int
    step: int
    steps: int

    @property
    def total(self) -> int:
        """Count the steps before this one, over all epochs."""
        return (self.epoch - 1) * self.steps + self.step


class Task(Protocol):
    """Say what is trained: what one step computes, what is evaluated after an epoch, and what a checkpoint holds."""

    depth: int  # that rows and errors name
    phase: PhaseName  # likewise
    epochs: int  # most; the caller may stop after any row
    later: str | None  # before the names of tensors that only later steps have; None where all are there from the beginning
    replayable: bool  # every step runs the same kernels on the same tensors: see `training.replay`
    draws_inside: bool  # modules may draw while they compute, as dropout does

    @property
    def lr(self) -> float:
        """Return the learning rate of the last step."""

    @property
    def remedy(self) -> str:
        """Say what to change where a loss is not finite."""

    def draws(self, epoch: int) -> torch.Generator:
        """Return what the order and the augmentation of an epoch's batches are drawn from."""

    def begin(self, position: Position) -> None:
        """Get ready for an epoch, or for the rest of one that was interrupted at `position.step`."""

    def announce(self, position: Position) -> None:
        """Take in which step comes next: all of it that Python computes, such as the rate."""

    def learn(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradients of a batch (n, C, H, W) with its labels, and return the logits (n, K) and the loss.

        Labels are (n,) int64, or probabilities (n, K) where images are mixed.
        """

    def shared(self) -> Shared:
        """Return what the processes of a training average between the gradients and the step."""

    def take(self) -> None:
        """Take the step from the gradients, and clear them."""

    def evaluate(self, *, train: Images, val: Images, augment: AugmentConfig) -> Evaluation | None:
        """Return what is right on val after an epoch; None where nothing is read off."""

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors that a checkpoint has to hold, by name."""

    def counts(self) -> dict[str, int | None]:
        """Return the numbers that a checkpoint has to hold beside them."""

    def restore(self, tensors: dict[str, Tensor], progress: Progress) -> None:
        """Take over what `tensors` and `counts` gave."""


def fit(
    task: Task, *, train: Images, val: Images, settings: TrainConfig, augment: AugmentConfig, machine: Machine, checkpoint: Path | None
) -> Iterator[Tick | EpochRow]:
    """Train, yielding a row after each epoch that is evaluated.

    Where `checkpoint` exists, the rows it holds are yielded again, then training goes on from its step; where it is None nothing is kept.
    One that is damaged is left out, with a line that says so.

    Raises:
        TrainingError: a loss that is not finite, naming depth, phase, epoch and step; another process that is gone, or computes otherwise.
        ConfigError: several processes, and fewer images than a batch.
    """
    group, batch_size = machine.group, settings.batch_size
    _require_whole_batches(train, settings=settings, group=group)
    steps = n_steps(train, batch_size=batch_size)
    kept = _Kept(task, steps=steps, machine=machine, checkpoint=checkpoint)
    kept.resume()
    yield from kept.rows
    take_step = step_of(task, hits=kept.hits, machine=machine)
    n_trained = min(steps * batch_size, len(train))
    ticked = time.monotonic()
    for epoch in range(kept.epochs + 1, task.epochs + 1):
        first_step, draws = kept.step, task.draws(epoch)
        task.begin(Position(epoch, first_step, steps))
        batches = training_batches(
            train, batch_size=batch_size, augment=augment, generator=draws, first_step=first_step, process=group.rank, processes=group.size
        )
        for step, (images, labels) in enumerate(batches, start=first_step):
            task.announce(Position(epoch, step, steps))
            with _seeded(task, epoch=epoch, step=step, machine=machine):
                kept.losses[step] = take_step(images, labels)
            now, is_last = time.monotonic(), step + 1 == steps
            is_due = now - kept.at > CHECKPOINT_SECONDS and not is_last
            if is_last or is_due or (step + 1) % CHECK_STEPS == 0:
                _require_finite(kept.losses[: step + 1], task=task, epoch=epoch)
            if is_due:
                kept.keep(step + 1)
            if now - ticked > TICK_SECONDS:
                yield Tick(epoch=epoch, step=step + 1, steps=steps)
                ticked = now
        seen = task.evaluate(train=train, val=val, augment=augment)
        if seen is not None:
            loss, accuracy = float(kept.losses.double().mean()), int(kept.hits) / n_trained
            kept.rows.append(_row(task, epoch=epoch, loss=loss, accuracy=accuracy, seen=seen))
        kept.end_epoch()
        if seen is not None:
            yield kept.rows[-1]


class _Kept:
    """Hold what a checkpoint has of a training beside the task's own: rows, epochs that are over, and the losses and hits of this one."""

    def __init__(self, task: Task, *, steps: int, machine: Machine, checkpoint: Path | None) -> None:
        self._task, self._steps, self._machine, self._checkpoint = task, steps, machine, checkpoint
        self.losses = torch.zeros(steps, device=machine.device)
        self.hits = torch.zeros((), dtype=torch.int64, device=machine.device)
        self.rows: list[EpochRow] = []
        self.epochs, self.step = 0, 0  # epochs that are over, and the step of the next one that comes first
        self.at = time.monotonic()

    def resume(self) -> None:
        """Take over what is kept, if it is of such a training."""
        like = self._tensors()
        saved = agreed(resume(self._checkpoint, Progress, like=like, more=self._task.later), Progress, machine=self._machine)
        if saved is None or saved.record.step >= self._steps or saved.record.counts.keys() != self._task.counts().keys():
            return
        self.losses.copy_(saved.tensors.pop("progress.losses"))
        self.hits.copy_(saved.tensors.pop("progress.hits"))
        self.rows, self.epochs, self.step = list(saved.record.rows), saved.record.epochs, saved.record.step
        self._task.restore(saved.tensors, saved.record)

    def end_epoch(self) -> None:
        """Count an epoch, and keep it; between first and last, one that took no time is done again after a kill, to the same bytes."""
        self.losses.zero_()
        self.hits.zero_()
        self.epochs += 1
        self._machine.group.require_equal(
            self._tensors(), device=self._machine.device, where=f"after epoch {self.epochs} of phase {self._task.phase}"
        )
        self.step = 0
        if self.epochs in {1, self._task.epochs} or time.monotonic() - self.at > CHECKPOINT_SECONDS / 30:
            self.keep(0)

    def keep(self, step: int) -> None:
        """Write a checkpoint from which training goes on at a step of the epoch after those that are over."""
        self.step = step
        if self._checkpoint is not None:
            progress = Progress(rows=tuple(self.rows), epochs=self.epochs, step=step, counts=self._task.counts())
            save_checkpoint(self._checkpoint, Checkpoint(self._tensors(), asdict(progress)))
        self.at = time.monotonic()

    def _tensors(self) -> dict[str, Tensor]:
        return self._task.tensors() | {"progress.losses": self.losses, "progress.hits": self.hits}


def step_of(task: Task, *, hits: Tensor, machine: Machine) -> Step:
    """Return one step of a task: the gradients, of several processes their mean, and the update; it counts what is right in `hits`."""
    group = machine.group

    def one_step(images: Tensor, labels: Tensor) -> Tensor:
        logits, loss = task.learn(images, labels)
        truth = labels if labels.ndim == 1 else labels.argmax(1)  # of a mixture, what there is more of
        loss, right = loss.detach(), (logits.detach().argmax(1) == truth).sum()
        if group.size > 1:
            loss, right = task.shared().average_(loss, right, group=group)
        task.take()
        hits.add_(right)
        return loss

    is_replayed = task.replayable and not task.draws_inside and group.size == 1
    return replayed(one_step, machine=machine) if is_replayed else one_step


def _require_whole_batches(train: Images, *, settings: TrainConfig, group: Group) -> None:
    if group.size > 1 and len(train) < settings.batch_size:
        raise ConfigError(
            f"train.batch_size: {settings.batch_size} is more than the {len(train)} training images, which {group.size} processes cannot "
            "share evenly; lower it, or set train.processes to 1"
        )


def _seeded(task: Task, *, epoch: int, step: int, machine: Machine) -> contextlib.AbstractContextManager[object]:
    """Give modules that draw from torch's global generator a state of the step's own, so that a training that goes on draws the same."""
    if not task.draws_inside:
        return contextlib.nullcontext()
    seed = task.draws(epoch).initial_seed() + step + machine.group.rank * RANK_STRIDE  # other images, other draws
    return seeded(seed % 2**63, device=machine.device)


def _row(task: Task, *, epoch: int, loss: float, accuracy: float, seen: Evaluation) -> EpochRow:
    """Join what an epoch of training gave with what was evaluated on val after it."""
    return EpochRow(
        depth=task.depth,
        phase=task.phase,
        epoch=epoch,
        lr=task.lr,
        train_loss=loss,
        train_accuracy=accuracy,
        val_accuracy=seen.accuracy,
        val_loss=seen.loss,
        val_correct=seen.n_correct,
        n_val=seen.n,
    )


def _require_finite(losses: Tensor, *, task: Task, epoch: int) -> None:
    """Look at the losses of an epoch so far.

    Raises:
        TrainingError: one is not finite, naming depth, phase, epoch and step.
    """
    finite = losses.isfinite()
    if not bool(finite.all()):
        step = int((~finite).nonzero()[0]) + 1
        where = f"at depth {task.depth}, phase {task.phase}, epoch {epoch}, step {step}"
        raise TrainingError(f"the loss is {losses[step - 1].item()} {where}; {task.remedy}")
