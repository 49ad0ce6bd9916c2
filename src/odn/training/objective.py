"""What a network is trained for: the labels at its depth, the same at a shallower exit, and a teacher's logits of each image.

Source: a teacher's logits, Hinton et al., arXiv 1503.02531; a teacher of the student's own kind, Furlanello et al., arXiv 1805.04770;
a network that teaches its own exits, Zhang et al., arXiv 1905.08094, section 3.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from odn.models.network import DepthNetwork
from odn.sections import TrainConfig
from odn.training.device import Machine
from odn.training.distillation import distillation_loss


@dataclass(frozen=True)
class Teacher:
    """Hold a trained network, in eval mode, and how a batch is brought from the student's normalisation to its own."""

    network: DepthNetwork
    scale: Tensor | None = None  # (1, C, 1, 1): the teacher sees scale * batch + shift; None where both normalise alike
    shift: Tensor | None = None

    @torch.no_grad()
    def logits(self, images: Tensor, *, machine: Machine) -> Tensor:
        """Return its logits of a student's batch: (N, C, H, W) -> (N, K), without gradient."""
        if self.scale is not None and self.shift is not None:
            images = (self.scale * images + self.shift).contiguous(memory_format=torch.channels_last)
        with machine.autocast():
            logits: Tensor = self.network(images)
        return logits


@dataclass(frozen=True)
class Objective:
    """Say what a phase trains for, beside the labels at the network's depth; by default nothing."""

    aux_depth: int = 0  # the head that learns the labels too, with the weight `train.aux_weight`; 0 for none
    exit_depth: int = 0  # the head that learns from the network's own at its depth; 0 for none
    teacher: Teacher | None = None
    weight: float = 0.0  # of the distillation loss, as a fraction
    temperature: float = 1.0

    def loss(
        self, network: DepthNetwork, images: Tensor, labels: Tensor, *, depth: int, settings: TrainConfig, machine: Machine
    ) -> tuple[Tensor, Tensor]:
        """Return the logits at `depth` (N, K) of a batch (N, C, H, W) with its labels (N,), and the loss.

        With a teacher the loss at `depth` is (1 - weight) · cross-entropy + weight · distillation; the head at `exit_depth` adds
        weight · distillation from the head at `depth`, the one at `aux_depth` `train.aux_weight` · cross-entropy.
        """
        exits = sorted({self.aux_depth, self.exit_depth} - {0})
        with machine.autocast():
            logits = network.forward_depths(images, (*exits, depth)) if exits else {depth: network(images)}
        loss = F.cross_entropy(logits[depth].float(), labels, label_smoothing=settings.label_smoothing)
        if self.teacher is not None:
            teacher_logits = self.teacher.logits(images, machine=machine)
            learnt = distillation_loss(logits[depth], teacher_logits, temperature=self.temperature)
            loss = (1 - self.weight) * loss + self.weight * learnt
        if self.aux_depth:
            auxiliary = F.cross_entropy(logits[self.aux_depth].float(), labels, label_smoothing=settings.label_smoothing)
            loss = loss + settings.aux_weight * auxiliary
        if self.exit_depth:
            loss = loss + self.weight * distillation_loss(logits[self.exit_depth], logits[depth], temperature=self.temperature)
        return logits[depth], loss
