"""Train one network for one phase: a generator that yields what happens, resumes where it was killed, and repeats to the byte.

A phase is `stable` (a short warm-up, then a constant rate) or a cooldown (the rate falls linearly to zero); where that begins with
fresh weights it has a short warm-up of its own.
Source: warm-up–stable–decay (Hu et al., arXiv 2404.06395, section 4; Hägele et al., arXiv 2405.18392).
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from odn.data.batches import Images, n_steps, training_batches
from odn.errors import TrainingError
from odn.records import Count, Fraction, Positive, Record
from odn.sections import AugmentConfig, TrainConfig
from odn.training.checkpoint import Checkpoint, resume, save_checkpoint
from odn.training.device import Machine
from odn.training.objective import Objective
from odn.training.optim import Optimiser, Updates
from odn.training.readout import ReadOut, read_out, reestimate_batchnorm
from odn.training.replay import replayed
from odn.training.seed import generator

CHECKPOINT_SECONDS = 30.0  # between two checkpoints within an epoch
LOOK_STEPS = 100  # steps between two looks at the loss: a look makes the GPU wait
TICK_SECONDS = 0.5
LABELS = Objective()  # nothing but the labels is learnt

PhaseName = Literal["stable", "probe", "finish", "gates", "teacher", "shave"]


@dataclass(frozen=True)
class Phase:
    """Say what is trained, for how long, and which random draws are its own."""

    name: PhaseName
    depth: int
    epochs: int  # most epochs of `stable`; exactly the epochs of a cooldown
    seed: int
    warmup_epochs: float

    def rate_at(self, *, step: int, steps_per_epoch: int) -> float:
        """Return the rate of a step, counted from 0 over the whole phase, as a fraction of the stable one."""
        risen = min(1.0, (step + 1) / (round(self.warmup_epochs * steps_per_epoch) + 1))
        if self.name == "stable":
            return risen
        return min(risen, 1 - step / (self.epochs * steps_per_epoch))


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
    """Hold what an interrupted phase had done, beside its tensors."""

    rows: tuple[EpochRow, ...] = ()
    step: Count = 0  # of the epoch after the rows that comes next
    n_averaged: Count = 0
    right: tuple[tuple[Count, ...], ...] = ()  # images of val that each exit got right, by epoch, where several are trained together


def train_phase(
    optimiser: Optimiser,
    *,
    phase: Phase,
    train: Images,
    val: Images,
    settings: TrainConfig,
    augment: AugmentConfig,
    machine: Machine,
    checkpoint: Path | None,
    objective: Objective = LABELS,
) -> Iterator[Tick | EpochRow]:
    """Train, yielding a row after each epoch; after a row the averaged network holds the weights that were read out.

    The caller may stop after any row. Where `checkpoint` exists, the rows it holds are yielded again, then training goes on
    from its step; where it is None nothing is kept. `objective` says what is learnt beside the labels.

    Raises:
        TrainingError: a loss that is not finite, naming depth, epoch and step.
    """
    steps = n_steps(train, batch_size=settings.batch_size)
    losses, hits = torch.zeros(steps, device=machine.device), torch.zeros((), dtype=torch.int64, device=machine.device)
    done = resumed(checkpoint, optimiser, losses=losses, hits=hits)
    rows, first_step = list(done.rows), done.step
    yield from rows

    def keep(step: int) -> None:
        if checkpoint is not None:
            tensors = optimiser.tensors() | {"progress.losses": losses, "progress.hits": hits}
            record = {"rows": [asdict(row) for row in rows], "step": step, "n_averaged": optimiser.n_averaged}
            save_checkpoint(checkpoint, Checkpoint(tensors, record))

    remedy = "lower train.lr (it was {:g}) or train.kernel_lr, or raise train.warmup_epochs"
    updates = Updates(optimiser, train=settings, machine=machine, steps_per_epoch=steps)

    def one_step(images: Tensor, labels: Tensor) -> Tensor:
        logits, loss = objective.loss(optimiser.network, images, labels, depth=phase.depth, settings=settings, machine=machine)
        loss.backward()
        updates.take()
        hits.add_((logits.detach().argmax(1) == labels).sum())
        return loss.detach()

    take_step = replayed(one_step, machine=machine)
    kept = ticked = time.monotonic()
    for epoch in range(len(rows) + 1, phase.epochs + 1):
        optimiser.network.train()
        batches = training_batches(
            train,
            batch_size=settings.batch_size,
            augment=augment,
            generator=generator(phase.seed, "batches", phase.depth, phase.name, epoch),
            first_step=first_step,
        )
        rate = 0.0
        for step, (images, labels) in enumerate(batches, start=first_step):
            rate = phase.rate_at(step=(epoch - 1) * steps + step, steps_per_epoch=steps)
            updates.announce(rate=rate)
            losses[step] = take_step(images, labels)
            if (step + 1) % LOOK_STEPS == 0 or step + 1 == steps:
                require_finite(
                    losses[: step + 1], depth=phase.depth, phase=phase.name, epoch=epoch, remedy=remedy.format(settings.lr * rate)
                )
            now = time.monotonic()
            if now - kept > CHECKPOINT_SECONDS and step + 1 < steps:
                require_finite(
                    losses[: step + 1], depth=phase.depth, phase=phase.name, epoch=epoch, remedy=remedy.format(settings.lr * rate)
                )
                keep(step + 1)
                kept = time.monotonic()
            if now - ticked > TICK_SECONDS:
                yield Tick(epoch=epoch, step=step + 1, steps=steps)
                ticked = now
        reestimate_batchnorm(optimiser.average, train, machine=machine)
        n_trained = min(steps * settings.batch_size, len(train))
        seen = read_out(optimiser.average, val, machine=machine)
        gave = {"lr": settings.lr * rate, "loss": float(losses.double().mean()), "accuracy": int(hits) / n_trained}
        rows.append(epoch_row(depth=phase.depth, phase=phase.name, epoch=epoch, **gave, seen=seen))
        first_step = 0
        losses.zero_()
        hits.zero_()
        keep(0)
        kept = time.monotonic()
        yield rows[-1]


def resumed(checkpoint: Path | None, optimiser: Optimiser, *, losses: Tensor, hits: Tensor) -> Progress:
    """Take over what an interrupted run kept; return how far it was."""
    saved = resume(checkpoint, Progress, like=optimiser.tensors() | {"progress.losses": losses, "progress.hits": hits})
    if saved is None or saved.record.step >= len(losses):
        return Progress()
    losses.copy_(saved.tensors.pop("progress.losses"))
    hits.copy_(saved.tensors.pop("progress.hits"))
    optimiser.load(saved.tensors, n_averaged=saved.record.n_averaged)
    return saved.record


def epoch_row(*, depth: int, phase: PhaseName, epoch: int, lr: float, loss: float, accuracy: float, seen: ReadOut) -> EpochRow:
    """Join what an epoch of training gave with what was read off val after it."""
    return EpochRow(
        depth=depth,
        phase=phase,
        epoch=epoch,
        lr=lr,
        train_loss=loss,
        train_accuracy=accuracy,
        val_accuracy=seen.accuracy,
        val_loss=seen.loss,
        val_correct=seen.n_correct,
        n_val=seen.n,
    )


def require_finite(losses: Tensor, *, depth: int, phase: str, epoch: int, remedy: str) -> None:
    """Look at the losses of an epoch so far.

    Raises:
        TrainingError: one is not finite, naming depth, phase, epoch and step.
    """
    finite = losses.isfinite()
    if not bool(finite.all()):
        step = int((~finite).nonzero()[0]) + 1
        raise TrainingError(f"the loss is {losses[step - 1].item()} at depth {depth}, phase {phase}, epoch {epoch}, step {step}; {remedy}")
