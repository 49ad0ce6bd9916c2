"""Train every exit of a network at once over shared forward passes; resumes where it was killed, and repeats to the byte.

The deepest exit at full width learns from the labels; it teaches the others, who learn from the labels too.
Source: in-place distillation, arXiv 1903.05134, section 3.3.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odn.data.batches import Images, n_steps, training_batches
from odn.models.elastic import forward_narrowed, sort_channels
from odn.models.network import DepthNetwork
from odn.sections import AugmentConfig, SupernetConfig, TrainConfig
from odn.training.checkpoint import Checkpoint, save_checkpoint
from odn.training.device import Machine
from odn.training.distillation import distillation_loss
from odn.training.loop import CHECKPOINT_SECONDS, LOOK_STEPS, TICK_SECONDS, EpochRow, Tick, epoch_row, require_finite, resumed
from odn.training.optim import Optimiser, Updates
from odn.training.readout import read_out_exits, reestimate_batchnorm
from odn.training.sandwich import Pass, Plan, rate_at
from odn.training.seed import generator

REMEDY = "lower train.lr (it was {:g}) or train.kernel_lr, or raise train.warmup_epochs"


@dataclass(frozen=True)
class Curves:
    """Hold how many images of val each exit got right after each epoch, by depth."""

    n_correct: dict[int, tuple[int, ...]]
    n_val: int


def train_together(
    optimiser: Optimiser,
    *,
    plan: Plan,
    train: Images,
    val: Images,
    settings: TrainConfig,
    augment: AugmentConfig,
    machine: Machine,
    checkpoint: Path | None,
) -> Iterator[Tick | EpochRow | Curves]:
    """Train, yielding a row of the shallowest exit after each epoch; end with the `Curves` of all.

    After it the averaged network holds the weights that were read out, and BatchNorm's statistics for them at full width.
    Where `checkpoint` exists, the rows it holds are yielded again, then training goes on from its step.

    Raises:
        TrainingError: a loss that is not finite, naming epoch and step.
    """
    steps, first = n_steps(train, batch_size=settings.batch_size), plan.depths[0]
    losses, hits = torch.zeros(steps, device=machine.device), torch.zeros((), dtype=torch.int64, device=machine.device)
    done = resumed(checkpoint, optimiser, losses=losses, hits=hits)
    rows, first_step, right = list(done.rows), done.step, [list(row) for row in done.right]
    yield from rows

    def keep(step: int) -> None:
        if checkpoint is not None:
            tensors = optimiser.tensors() | {"progress.losses": losses, "progress.hits": hits}
            record = {"rows": [asdict(row) for row in rows], "right": right, "step": step, "n_averaged": optimiser.n_averaged}
            save_checkpoint(checkpoint, Checkpoint(tensors, record))

    updates = Updates(optimiser, train=settings, machine=machine, steps_per_epoch=steps)
    shared = [parameter for name, parameter in optimiser.network.named_parameters() if not name.startswith("heads.")]
    kept = ticked = time.monotonic()
    for epoch in range(len(rows) + 1, plan.settings.epochs + 1):
        if plan.opens_widths(epoch) and first_step == 0:
            _sort(optimiser)
        optimiser.network.train()
        draws = generator(plan.seed, "batches", "supernet", epoch)
        batches = training_batches(train, batch_size=settings.batch_size, augment=augment, generator=draws, first_step=first_step)
        passes, rate = list(plan.passes(epoch, steps=steps)), 0.0
        for step, (images, labels) in enumerate(batches, start=first_step):
            at = (epoch - 1) * steps + step
            rate = rate_at(at, settings=plan.settings, steps_per_epoch=steps, warmup_epochs=settings.warmup_epochs)
            with machine.autocast():
                logits = _logits(optimiser.network, images, passes[step], plan.depths)
            objective = joint_loss(logits, labels, passes[step], settings=plan.settings, label_smoothing=settings.label_smoothing)
            objective.backward()
            share_gradient(shared, n_losses=sum(len(one.depths) for one in passes[step]) / len(passes[step]))
            updates.step(rate=rate)
            losses[step] = objective.detach()
            hits += (logits[0][first].detach().argmax(1) == labels).sum()
            now = time.monotonic()
            is_last, is_due = step + 1 == steps, now - kept > CHECKPOINT_SECONDS
            if is_last or is_due or (step + 1) % LOOK_STEPS == 0:
                remedy = REMEDY.format(settings.lr * rate)
                require_finite(losses[: step + 1], depth=plan.depths[-1], phase="supernet", epoch=epoch, remedy=remedy)
            if is_due and not is_last:
                keep(step + 1)
                kept = time.monotonic()
            if now - ticked > TICK_SECONDS:
                yield Tick(epoch=epoch, step=step + 1, steps=steps)
                ticked = now
        reestimate_batchnorm(optimiser.average, train, machine=machine)
        seen = read_out_exits(optimiser.average, val, machine=machine)
        right.append([seen[depth].n_correct for depth in plan.depths])
        n_trained = min(steps * settings.batch_size, len(train))
        gave = {"lr": settings.lr * rate, "loss": float(losses.double().mean()), "accuracy": int(hits) / n_trained}
        rows.append(epoch_row(depth=first, phase="stable", epoch=epoch, **gave, seen=seen[first]))
        first_step = 0
        losses.zero_()
        hits.zero_()
        keep(0)
        kept = time.monotonic()
        yield rows[-1]
    optimiser.average.eval()
    yield Curves({depth: tuple(column) for depth, column in zip(plan.depths, zip(*right, strict=True), strict=True)}, len(val))


def joint_loss(
    logits: list[dict[int, Tensor]], labels: Tensor, passes: tuple[Pass, ...], *, settings: SupernetConfig, label_smoothing: float
) -> Tensor:
    """Return the losses of the exits that learn, summed over exits and averaged over passes: logits (N, K) by depth for each pass.

    The deepest exit of the first pass is the teacher, and learns from the labels alone.
    """
    teacher = logits[0][passes[0].depths[-1]]
    losses = []
    for there, one in zip(logits, passes, strict=True):
        for depth in one.depths:
            loss = F.cross_entropy(there[depth].float(), labels, label_smoothing=label_smoothing)
            if there[depth] is not teacher and settings.distill_weight > 0:
                loss = loss + settings.distill_weight * distillation_loss(there[depth], teacher, temperature=settings.temperature)
            losses.append(loss)
    return torch.stack(losses).sum() / len(passes)


def _logits(network: DepthNetwork, images: Tensor, passes: tuple[Pass, ...], depths: tuple[int, ...]) -> list[dict[int, Tensor]]:
    """Run the passes; the first gives the logits of every exit, also of those that do not learn from it."""
    first, *others = passes
    return [
        forward_narrowed(network, images, depths, first.widths),
        *(forward_narrowed(network, images, one.depths, one.widths) for one in others),
    ]


def share_gradient(parameters: list[nn.Parameter], *, n_losses: float) -> None:
    """Let stem and blocks take the mean of what the exits ask for, as the rates are made for one loss; each head has its own alone."""
    torch._foreach_div_([parameter.grad for parameter in parameters if parameter.grad is not None], n_losses)


def _sort(optimiser: Optimiser) -> None:
    """Put the important channels first, before the others are left out: in the network, its momentum and its average alike."""
    sort_channels([optimiser.network.state_dict(), optimiser.momentum, optimiser.average.state_dict()], like=optimiser.average)
