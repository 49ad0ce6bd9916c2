"""Search a large space of sub-networks: a small predictor of accuracy, and evolution within the budgets.

Source: Once-for-All, arXiv 1908.09791, section 3.4 and appendix; regularities of evolutionary search as in arXiv 1904.00420, section 3.4.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from odn.supernet.subnetworks import Space, Subnetwork
from odn.training.evaluation import Evaluation

POPULATION, GENERATIONS, PARENTS, MUTATION = 48, 12, 12, 0.2
MOST_TRIES = 50  # draws for each member that fits the budgets
RIDGE = 1e-2


def random_subnetwork(space: Space, draws: torch.Generator) -> Subnetwork:
    """Draw a depth, and a width for each group."""
    n = len(space.smallest.widths)
    widths = [space.widths[i] for i in torch.randint(len(space.widths), (n,), generator=draws).tolist()]
    return space.named(_choice(space.depths, draws), widths)


def evolve(
    space: Space, *, fits: Callable[[Subnetwork], bool], rank: Callable[[Subnetwork], tuple[Any, ...]], draws: torch.Generator
) -> list[Subnetwork]:
    """Return the sub-networks that were seen and fit the budgets, best (lowest rank) first; none where the smallest does not fit."""
    population = [space.smallest] if fits(space.smallest) else []
    population += _until(POPULATION - 1, lambda: random_subnetwork(space, draws), fits)
    seen = set(population)
    for _ in range(GENERATIONS if population else 0):
        parents = sorted(population, key=rank)[:PARENTS]
        mutants = _until(POPULATION // 2, lambda: _mutated(_choice(parents, draws), space, draws), fits)  # noqa: B023  called at once
        crossed = _until(POPULATION // 2, lambda: _crossed(_choice(parents, draws), _choice(parents, draws), space, draws), fits)  # noqa: B023
        population = [*parents, *mutants, *crossed]
        seen.update(population)
    return sorted(seen, key=rank)


def fit_predictor(space: Space, evaluated: Mapping[Subnetwork, Evaluation]) -> Callable[[Subnetwork], float]:
    """Fit the logarithm of the error on val by ridge regression on depth (one-hot) and widths; return what foresees accuracy."""
    names = sorted(evaluated)
    features = torch.stack([_features(space, one) for one in names])
    errors = torch.tensor([_log_error(evaluated[one]) for one in names], dtype=torch.float64)
    penalty = RIDGE * torch.eye(features.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(features.T @ features + penalty, features.T @ errors)
    return lambda one: 1 - math.exp(float(_features(space, one) @ weights))


def _features(space: Space, one: Subnetwork) -> Tensor:
    depth = [float(one.depth == depth) for depth in space.depths]
    return torch.tensor([*depth, *(math.log2(width) for width in one.widths)], dtype=torch.float64)


def _log_error(seen: Evaluation) -> float:
    return math.log((seen.n - seen.n_correct + 0.5) / (seen.n + 1))


def _mutated(one: Subnetwork, space: Space, draws: torch.Generator) -> Subnetwork:
    """Draw each gene anew with a small probability."""
    other = random_subnetwork(space, draws)
    keeps = (torch.rand(1 + len(one.widths), generator=draws) >= MUTATION).tolist()
    widths = [mine if keep else new for mine, new, keep in zip(one.widths, other.widths, keeps[1:], strict=True)]
    return space.named(one.depth if keeps[0] else other.depth, widths)


def _crossed(one: Subnetwork, other: Subnetwork, space: Space, draws: torch.Generator) -> Subnetwork:
    """Take each gene from either parent."""
    firsts = (torch.rand(1 + len(one.widths), generator=draws) < 0.5).tolist()
    widths = [mine if first else theirs for mine, theirs, first in zip(one.widths, other.widths, firsts[1:], strict=True)]
    return space.named(one.depth if firsts[0] else other.depth, widths)


def _until(n: int, draw: Callable[[], Subnetwork], fits: Callable[[Subnetwork], bool]) -> list[Subnetwork]:
    """Draw until n fit, or for a long time."""
    found: list[Subnetwork] = []
    for _ in range(n * MOST_TRIES):
        if len(found) == n:
            break
        one = draw()
        found += [one] if fits(one) else []
    return found


def _choice(items: Any, draws: torch.Generator) -> Any:
    return items[int(torch.randint(len(items), (1,), generator=draws))]
