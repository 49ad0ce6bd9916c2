"""The modes of a search, `search.mode`: the one table that says what a mode's name means. Nothing else asks for the name.

A new method is a row here, a folder with its strategy (see `odn.searching.strategy`), and its section of the settings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Check = Callable[[Any], str | None]  # of a Config; None where all is well, else what is wrong and what to do


@dataclass(frozen=True, kw_only=True)
class Mode:
    """Say how the depths of a search are trained, judged and finished under a mode."""

    name: str
    strategy: str  # module that holds its `STRATEGY`; imported when something is trained
    one_depth: bool = False  # the schedule names a single depth
    together: bool = False  # the first depth trains all of the schedule, so that it depends on all of it
    exhaustive: bool = False  # the next depth is trained although the target is reached
    trial: bool = False  # a depth that may reach the target is annealed, and judged by that
    finish_epochs: Callable[[Any], int] = lambda config: config.finish.epochs
    cuts_inside: bool = False  # blocks and channels go, not only what is deeper
    any_ladder: bool = False  # `search.ladder` says which networks are tried; else they are the prefixes of the backbone
    phase: Literal["stable", "anneal"] = "stable"  # what training is called in the records
    longer: Callable[[Any], str | None] = lambda _: None  # what trains longer, in a report; None where growth.max_epochs does
    check: Check = lambda _: None

    @property
    def judges_as_trained(self) -> bool:
        """Return whether the network that training left is judged, and kept, as it is."""
        return not self.trial


def _paper(config: Any) -> str | None:
    if config.paper.target == config.search.target:
        return None
    wanted, found = f"{config.search.target:g}", f"{config.paper.target:g}"
    return f"paper.target: with search.mode paper it must be that of search.target, {wanted}; got {found}"


def prune_phases(prune: Any) -> tuple[int, int, int]:
    """Return the epochs of `search.mode: prune` without gates, with gates, and of the cut network; the first and last at least one."""
    dense = max(1, round(prune.epochs * prune.dense_fraction))
    settle = max(1, round(prune.epochs * prune.settle_fraction))
    return dense, prune.epochs - dense - settle, settle


def _prune(config: Any) -> str | None:
    prune = config.prune
    if prune_phases(prune)[1] >= 1:
        return None
    return (
        f"prune.dense_fraction: {prune.dense_fraction:g} and prune.settle_fraction {prune.settle_fraction:g} of "
        f"{prune.epochs} epochs leave none in which gates are learnt; lower one of them"
    )


def _prune_longer(config: Any) -> str:
    prune = config.prune
    return f"prune.epochs {prune.epochs}, or fine-tune: prune.finetune_epochs {prune.finetune_epochs}"


_CLIMB: dict[str, Any] = {
    "strategy": "odn.ladder.fitting",
    "any_ladder": True,
    "phase": "anneal",
    "finish_epochs": lambda _: 0,
    "longer": lambda config: f"climb.epochs {config.climb.epochs}",
}
MODES = {
    mode.name: mode
    for mode in (
        Mode(name="climb", **_CLIMB),
        Mode(name="grid", **_CLIMB, exhaustive=True),
        Mode(name="growth", strategy="odn.searching.growth", trial=True),
        Mode(
            name="paper",
            strategy="odn.searching.published",
            finish_epochs=lambda _: 0,
            longer=lambda config: f"paper.patience {config.paper.patience}",
            check=_paper,
        ),
        Mode(
            name="supernet",
            strategy="odn.supernet.fitting",
            together=True,
            finish_epochs=lambda _: 0,
            longer=lambda config: f"supernet.epochs {config.supernet.epochs}",
        ),
        Mode(
            name="prune",
            strategy="odn.pruning.fitting",
            one_depth=True,
            finish_epochs=lambda config: config.prune.finetune_epochs,
            cuts_inside=True,
            check=_prune,
            longer=_prune_longer,
        ),
    )
}
