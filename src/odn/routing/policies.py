"""Search the thresholds of a network with several exits, on what the exits say of val: plain numbers, no torch.

A policy gives each exit a threshold; an image leaves at the first exit whose confidence is above it. Candidates are quantiles of the
confidences of each exit. Every choice of up to two exits before a last one is tried; from the best of those, and from what the caller
gives, one threshold at a time is set to its best until none moves. All is exact on val, and the same input gives the same policy.
N images, E exits, G candidate thresholds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rights = npt.NDArray[np.bool_]
LEAST_GAP = 1e-4  # between the confidences on both sides of a threshold: a last bit of a logit moves no image across
NEVER, ALWAYS = 1.0, 0.0

Policy = tuple[float, ...]


@dataclass(frozen=True)
class Exits:
    """Hold what the exits of a network say of a split, and what it costs to come there, shallow to deep.

    confidence: (E, N) in (0, 1]. is_right: (E, N). body: (E,) cost of an image from the start to where the head of an exit begins.
    head: (E,) cost of the head itself, which is paid wherever the threshold is below 1. The unit is the caller's.
    """

    confidence: Floats
    is_right: Rights
    body: Floats
    head: Floats

    @property
    def n_images(self) -> int:
        """Count the images."""
        return int(self.confidence.shape[1])

    def part(self, index: npt.NDArray[np.int64]) -> "Exits":
        """Return the same for some of the images."""
        return Exits(self.confidence[:, index], self.is_right[:, index], self.body, self.head)


@dataclass(frozen=True)
class Outcome:
    """Say what a policy gives on a split: the mean cost of an image, how many images are right, how many leave at each exit."""

    policy: Policy
    cost: float
    n_correct: int
    n_images: int
    leaving: tuple[int, ...]

    @property
    def accuracy(self) -> float:
        """Return the fraction that is right."""
        return self.n_correct / self.n_images


Score = tuple[float, float, float]  # the less the better, the first first; the first is 0 where the aim is met
Aim = Callable[[Outcome], Score]


def accuracy_floor(accuracy: float) -> Aim:
    """Ask for the cheapest policy that reaches an accuracy."""
    return lambda seen: (max(0.0, accuracy - seen.accuracy), seen.cost, -seen.accuracy)


def budget(cost: float) -> Aim:
    """Ask for the most accurate policy whose mean cost is at most the budget."""
    return lambda seen: (max(0.0, seen.cost - cost), -seen.accuracy, seen.cost)


def alone(exits: Exits, number: int) -> Policy:
    """Return the policy under which every image leaves at one exit: the static network of that depth."""
    return tuple(ALWAYS if one == number else NEVER for one in range(len(exits.body)))


def outcome(exits: Exits, policy: Policy) -> Outcome:
    """Return what a policy gives; whatever is left at the last exit leaves there."""
    thresholds = np.array(policy)
    leaves = exits.confidence > thresholds[:, None]
    leaves[-1] = True
    taken = leaves.argmax(axis=0)
    looks = (thresholds < NEVER) | (np.arange(len(policy)) == len(policy) - 1)
    costs = exits.body + np.cumsum(exits.head * looks)
    leaving = np.bincount(taken, minlength=len(policy))
    n_correct = int(exits.is_right[taken, np.arange(exits.n_images)].sum())
    return Outcome(policy, float(leaving @ costs) / exits.n_images, n_correct, exits.n_images, tuple(leaving.tolist()))


def candidates(exits: Exits, *, quantiles: int) -> list[tuple[float, ...]]:
    """List for each exit the thresholds that are tried: 0, midpoints between neighbours at the quantiles, and 1."""
    found = []
    for confidence in exits.confidence:
        ordered = np.unique(confidence)
        wide = np.flatnonzero(np.diff(ordered) > LEAST_GAP)
        ranks = np.searchsorted(np.sort(confidence), ordered[wide], side="right")  # images that would go on
        wanted = np.arange(1, quantiles + 1) * len(confidence) / (quantiles + 1)
        nearest = wide[np.unique([np.abs(ranks - rank).argmin() for rank in wanted])] if len(wide) else wide
        found.append((ALWAYS, *((ordered[nearest] + ordered[nearest + 1]) / 2).tolist(), NEVER))
    return found


def search(exits: Exits, aim: Aim, *, quantiles: int, starts: Sequence[Policy] = ()) -> Outcome:
    """Return the best policy that is found; its score's first number is above 0 where none meets the aim.

    No single exit is better on these images, as each is a start.
    """
    tried = candidates(exits, quantiles=quantiles)
    begun = [outcome(exits, policy) for policy in (*_pairs(exits, tried, aim), *starts)]
    begun += [outcome(exits, alone(exits, number)) for number in range(len(exits.body))]
    best = min(begun, key=aim)
    while (better := min(_neighbours(exits, best.policy, tried), key=aim)) and aim(better) < aim(best):
        best = better
    return best


def cross_fitted(exits: Exits, aim: Aim, *, quantiles: int, folds: int = 5) -> tuple[float, float]:
    """Return accuracy and mean cost of policies on images that they were not fitted on: each fold by the policy of the others.

    What a policy loses against its own val is what its fit has learnt by heart.
    """
    right, cost = 0, 0.0
    for fold in range(folds):
        held_out = np.arange(fold, exits.n_images, folds)
        rest = np.setdiff1d(np.arange(exits.n_images), held_out)
        fitted = search(exits.part(rest), aim, quantiles=quantiles)
        seen = outcome(exits.part(held_out), fitted.policy)
        right, cost = right + seen.n_correct, cost + seen.cost * seen.n_images
    return right / exits.n_images, cost / exits.n_images


def _neighbours(exits: Exits, policy: Policy, tried: list[tuple[float, ...]]) -> Iterator[Outcome]:
    """Yield what comes of every change of one threshold."""
    for number, thresholds in enumerate(tried[:-1]):
        for threshold in thresholds:
            yield outcome(exits, (*policy[:number], threshold, *policy[number + 1 :]))


def _pairs(exits: Exits, tried: list[tuple[float, ...]], aim: Aim) -> Iterator[Policy]:
    """Yield the best policy of each choice of two exits and a last one, all candidates of the two being tried."""
    n = len(exits.body)
    bins = [np.searchsorted(np.array(tried[number][1:-1]), exits.confidence[number], side="left") for number in range(n)]
    for first, second, last in combinations(range(n), 3):
        yield min(_of_pair(exits, tried, bins, (first, second, last)), key=aim).policy


def _of_pair(
    exits: Exits, tried: list[tuple[float, ...]], bins: list[npt.NDArray[np.int64]], chosen: tuple[int, int, int]
) -> list[Outcome]:
    """Return the outcomes of all thresholds of two exits before a last one, from one table of counts instead of pass after pass.

    An image whose bin is b is above the inner candidates 0 … b - 1.
    """
    first, second, last = chosen
    inner = len(tried[first]) - 2, len(tried[second]) - 2
    shape = inner[0] + 1, inner[1] + 1
    at = bins[first] * shape[1] + bins[second]

    def table(weights: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.bincount(at, weights=weights, minlength=shape[0] * shape[1]).astype(np.int64).reshape(shape)

    count = table(np.ones(exits.n_images, dtype=np.int64))
    right = [table(exits.is_right[number].astype(np.int64)) for number in chosen]
    costs = [
        exits.body[first] + exits.head[first],
        exits.body[second] + exits.head[first] + exits.head[second],
        exits.body[last] + exits.head[first] + exits.head[second] + exits.head[last],
    ]
    found = []
    for i in range(inner[0]):
        stay = slice(0, i + 1)  # bins that are not above candidate i
        left_first, right_first = int(count[i + 1 :].sum()), int(right[0][i + 1 :].sum())
        counts, rights = count[stay].sum(axis=0), [one[stay].sum(axis=0) for one in right]
        for j in range(inner[1]):
            leaving = [left_first, int(counts[j + 1 :].sum()), int(counts[: j + 1].sum())]
            n_correct = right_first + int(rights[1][j + 1 :].sum()) + int(rights[2][: j + 1].sum())
            policy = [NEVER] * len(exits.body)
            policy[first], policy[second], policy[last] = tried[first][i + 1], tried[second][j + 1], ALWAYS
            cost = sum(number * cost for number, cost in zip(leaving, costs, strict=True)) / exits.n_images
            found.append(Outcome(tuple(policy), float(cost), n_correct, exits.n_images, ()))
    return found or [outcome(exits, alone(exits, last))]
