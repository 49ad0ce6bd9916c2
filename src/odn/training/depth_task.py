"""Train a network at its depth for one phase: `stable` (a short warm-up, then a constant rate), or a cooldown to a rate of zero.

A cooldown that begins with fresh weights has a short warm-up of its own.
Source: warm-up–stable–decay (Hu et al., arXiv 2404.06395, section 4; Hägele et al., arXiv 2405.18392).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from odn.compiled.residual import CompiledPass, compiled_pass
from odn.data.batches import Images
from odn.models.network import DepthNetwork
from odn.sections import AugmentConfig, TrainConfig
from odn.training.device import Machine
from odn.training.evaluation import Evaluation, evaluate, reestimate_batchnorm
from odn.training.fit import PhaseName, Position
from odn.training.seed import generator
from odn.training.state import TrainState
from odn.training.state_task import StateTask


@dataclass(frozen=True)
class Phase:
    """Say what is trained, for how long, and which random draws are its own."""

    name: PhaseName
    depth: int  # that rows and errors name; on a spread ladder, the rung
    epochs: int  # most epochs of `stable`; exactly the epochs of a cooldown
    seed: int
    warmup_epochs: float

    def rate_at(self, *, step: int, steps_per_epoch: int) -> float:
        """Return the rate of a step, counted from 0 over the whole phase, as a fraction of the stable one."""
        risen = min(1.0, (step + 1) / (round(self.warmup_epochs * steps_per_epoch) + 1))
        if self.name == "stable":
            return risen
        return min(risen, 1 - step / (self.epochs * steps_per_epoch))


class DepthTask(StateTask):
    """Train a network at its own depth; after a row the averaged network holds the weights that were evaluated."""

    replayable = True

    def __init__(self, state: TrainState, phase: Phase, *, settings: TrainConfig, machine: Machine, steps: int) -> None:
        """Take the state to train, and the steps of an epoch."""
        super().__init__(state, settings=settings, machine=machine, steps=steps)
        self.depth, self.phase, self.epochs = phase.depth, phase.name, phase.epochs
        self._phase = phase
        self._compiled = _compiled(state.network, settings=settings, machine=machine)

    def draws(self, epoch: int) -> torch.Generator:
        """Return what an epoch's batches are drawn from."""
        return generator(self._phase.seed, "batches", self._phase.depth, self._phase.name, epoch)

    def begin(self, position: Position) -> None:
        """Set the network to training."""
        self._state.network.train()

    def announce(self, position: Position) -> None:
        """Set the rate of the next step."""
        self._rate = self._phase.rate_at(step=position.total, steps_per_epoch=position.steps)
        self._updates.announce(rate=self._rate)

    def learn(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradients."""
        if self._compiled is not None:
            logits = self._compiled(images)
        else:
            with self._machine.autocast():
                logits = self._state.network(images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self._settings.label_smoothing)
        loss.backward()
        return logits, loss

    def evaluate(self, *, train: Images, val: Images, augment: AugmentConfig) -> Evaluation | None:
        """Read the averaged weights off val, with BatchNorm statistics of their own."""
        reestimate_batchnorm(self._state.average, train, augment=augment, machine=self._machine)
        return evaluate(self._state.average, val, machine=self._machine)


def _compiled(network: DepthNetwork, *, settings: TrainConfig, machine: Machine) -> CompiledPass | None:
    """Return the compiled pass where one core of a processor trains, in float32, a network that has one."""
    if machine.device.type != "cpu" or machine.threads > 1 or settings.precision == "bf16":
        return None
    return compiled_pass(network, batch_size=settings.batch_size // machine.group.size)
