"""Say which sub-networks each step of a joint training runs: plain numbers, drawn from the seed.

Source: the sandwich rule of universally slimmable networks, arXiv 1903.05134, section 3.2; progressive shrinking of Once-for-All,
arXiv 1908.09791, section 3.3.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from odn.sections import SupernetConfig
from odn.training.seed import generator


@dataclass(frozen=True)
class Pass:
    """Say what one shared forward pass runs: a fraction of the inner channels for each group, and the exits that learn from it."""

    widths: tuple[float, ...]
    depths: tuple[int, ...]  # ascending


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Say what is trained together: the exits, ascending, and the number of groups whose width may vary."""

    depths: tuple[int, ...]
    n_groups: int
    seed: int
    settings: SupernetConfig

    def open_depths(self, *, progress: float) -> tuple[int, ...]:
        """Return the exits that learn after a fraction of the training: the deepest alone at first, then one after the other."""
        if progress >= self.settings.shrink:
            return self.depths
        n_open = 1 + int(progress / self.settings.shrink * len(self.depths))
        return self.depths[-n_open:]

    def widths_are_open(self, *, progress: float) -> bool:
        """Tell whether narrower blocks learn after a fraction of the training: behind the last depth."""
        return len(self.settings.widths) > 1 and progress >= self.settings.shrink

    def opens_widths(self, epoch: int) -> bool:
        """Tell whether widths open with this epoch, counted from 1."""
        before = epoch > 1 and self.widths_are_open(progress=(epoch - 2) / self.settings.epochs)
        return self.widths_are_open(progress=(epoch - 1) / self.settings.epochs) and not before

    def passes(self, epoch: int, *, steps: int) -> Iterator[tuple[Pass, ...]]:
        """Yield the passes of each step of an epoch, counted from 1; the first is at full width, and its deepest exit teaches."""
        progress, draws = (epoch - 1) / self.settings.epochs, generator(self.seed, "sandwich", epoch)
        depths, full = self.open_depths(progress=progress), (1.0,) * self.n_groups
        for _ in range(steps):
            chosen = self._exits(depths, draws)
            if self.widths_are_open(progress=progress):
                widths = self.settings.widths
                drawn = tuple(widths[int(i)] for i in torch.randint(len(widths), (self.n_groups,), generator=draws))
                yield Pass(full, chosen), Pass((min(widths),) * self.n_groups, chosen), Pass(drawn, chosen)
            else:
                yield (Pass(full, chosen),)

    def _exits(self, depths: Sequence[int], draws: torch.Generator) -> tuple[int, ...]:
        """Return the deepest and the shallowest, and some between them."""
        middle = depths[1:-1]
        drawn = torch.randperm(len(middle), generator=draws)[: self.settings.exits].tolist()
        return tuple(sorted({depths[0], depths[-1], *(middle[i] for i in drawn)}))


def rate_at(step: int, *, settings: SupernetConfig, steps_per_epoch: int, warmup_epochs: float) -> float:
    """Return the rate of a step, counted from 0, as a fraction of the constant one: a warm-up, then constant, then falling to zero."""
    total, warmup = settings.epochs * steps_per_epoch, round(warmup_epochs * steps_per_epoch)
    cooldown = max(1, round(settings.cooldown * total))
    return min(1.0, (step + 1) / (warmup + 1), (total - step) / cooldown)
