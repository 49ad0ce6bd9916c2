"""Fit the routing of single images to a target: exits by their confidence, gates by the shift of their scores; val alone chooses.

Source: BranchyNet, arXiv 1709.01686; MSDNet, arXiv 1703.09844, section 5.
N images, K classes, E exits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from odn.data.batches import Images, plain_batches
from odn.models.cost import PartMacs
from odn.models.network import DepthNetwork
from odn.routing.calibration import Floats, Labels, fit_temperature
from odn.routing.gate_task import EDGE, SHIFTS, GateCosts, GatedOutcome, shifted_outcomes
from odn.routing.gated import GatedNetwork
from odn.routing.policies import Exits, Outcome, budget, search
from odn.routing.routed import Exit, confidence
from odn.routing.targets import Target
from odn.routing.timing import PartTimes
from odn.training.evaluation import batch_size

N_BUDGETS = 16  # points of the routed curve


@dataclass(frozen=True)
class Predictions:
    """Hold the logits of every exit on a split: by depth (N, K), labels (N,), on the CPU."""

    logits: dict[int, Tensor]
    labels: Tensor

    def floats(self, depth: int) -> Floats:
        """Return the logits of a depth as float64."""
        array: Floats = self.logits[depth].double().numpy()
        return array

    @property
    def answers(self) -> Labels:
        """Return the labels as an array."""
        array: Labels = self.labels.numpy()
        return array


@torch.no_grad()
def predict_exits(network: DepthNetwork, split: Images) -> Predictions:
    """Return the logits of every exit for every image, in one shared pass and float32."""
    depths, parts, labels = network.head_depths, [], []
    for images, truth in plain_batches(split, batch_size=batch_size(split)):
        parts.append({depth: logits.float().cpu() for depth, logits in network.eval().forward_depths(images, depths).items()})
        labels.append(truth.cpu())
    return Predictions({depth: torch.cat([part[depth] for part in parts]) for depth in depths}, torch.cat(labels))


def temperatures(predictions: Predictions) -> dict[int, float]:
    """Fit the temperature of each exit, by depth."""
    return {depth: fit_temperature(predictions.floats(depth), predictions.answers) for depth in predictions.logits}


def exits_of(predictions: Predictions, *, temperature: dict[int, float], body: Sequence[float], head: Sequence[float]) -> Exits:
    """Turn logits into what a search for thresholds needs."""
    sure = [confidence(predictions.logits[depth], temperature=temperature[depth]).double().numpy() for depth in predictions.logits]
    right = [(logits.argmax(1) == predictions.labels).numpy() for logits in predictions.logits.values()]
    return Exits(np.stack(sure), np.stack(right), np.array(body, dtype=float), np.array(head, dtype=float))


def exit_costs(parts: PartMacs | PartTimes, depths: Sequence[int]) -> tuple[list[float], list[float]]:
    """Return what an image costs up to the head of each exit, and the heads themselves."""
    blocks = np.cumsum(np.array(parts.residuals) + np.array(parts.shortcuts))
    return [float(parts.stem + blocks[depth - 1]) for depth in depths], [float(parts.heads[depth]) for depth in depths]


def gate_costs(parts: PartMacs | PartTimes, *, depth: int, gates: Sequence[float]) -> GateCosts:
    """Return what an image costs a gated network that ends at the head of `depth`."""
    fixed = parts.stem + sum(parts.shortcuts[:depth]) + sum(gates) + parts.heads[depth]
    return GateCosts(float(fixed), tuple(float(residual) for residual in parts.residuals[:depth]))


def routing_curve(exits: Exits, *, quantiles: int) -> list[Outcome]:
    """Return the most accurate policies of budgets from the cheapest exit to the deepest, each once, from cheap to expensive."""
    low, high = exits.body[0] + exits.head[0], exits.body[-1] + exits.head[-1]
    found: dict[tuple[float, ...], Outcome] = {}
    for share in np.linspace(0, 1, N_BUDGETS):
        seen = search(exits, budget(float(low + share * (high - low))), quantiles=quantiles)
        found[seen.policy] = seen
    return sorted(found.values(), key=lambda seen: (seen.cost, seen.accuracy))


def as_exits(policy: Sequence[float], temperature: dict[int, float]) -> list[Exit]:
    """Return the exits of a policy over the depths that have a temperature."""
    return [
        Exit(depth=depth, threshold=one, temperature=temperature[depth]) for one, depth in zip(policy, sorted(temperature), strict=True)
    ]


def gate_curve(network: GatedNetwork, split: Images, *, costs: GateCosts) -> list[GatedOutcome]:
    """Return what each shift of the gates gives, from all closed to all open."""
    return shifted_outcomes(network, split, costs=costs, shifts=(-EDGE, *SHIFTS, EDGE))


def choose_shift(seen: Sequence[GatedOutcome], target: Target, *, deepest: float) -> GatedOutcome:
    """Return the best shift for the target.

    Raises:
        ConfigError: none meets it.
    """
    floor, limit = target.accuracy or 0.0, target.limit(deepest=deepest)
    if target.accuracy is not None:
        best = min(seen, key=lambda one: (max(0.0, floor - one.accuracy), one.cost))
    else:
        best = min(seen, key=lambda one: (max(0.0, one.cost - limit), -one.accuracy, one.cost))
    target.refuse(best, deepest=deepest, least=min(one.cost for one in seen))
    return best
