"""What a routing is fitted to: an accuracy, or a mean cost an image. No torch."""

from dataclasses import dataclass
from typing import Literal, Protocol

from odn.errors import ConfigError
from odn.routing.policies import Aim, accuracy_floor, budget


class Seen(Protocol):
    """Be what a routing gives on a split."""

    @property
    def cost(self) -> float:
        """Return the mean cost of an image."""

    @property
    def n_correct(self) -> int:
        """Count the images that are right."""

    @property
    def n_images(self) -> int:
        """Count the images."""

    @property
    def accuracy(self) -> float:
        """Return the fraction that is right."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Say what is asked for: the least cost at an accuracy, or the most accuracy at a mean cost an image; one of the three.

    macs: a number of them above 1, else a fraction of the deepest exit's.

    Raises:
        ConfigError: not exactly one is given, or it is out of range.
    """

    accuracy: float | None = None
    macs: float | None = None
    latency_ms: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        flags = "--accuracy, --macs and --latency-ms"
        if len(given) != 1:
            shown = ", ".join(f"{name} {value:g}" for name, value in given.items()) or "none"
            raise ConfigError(f"odn route needs exactly one of {flags}; got {shown}")
        if self.accuracy is not None and not 0 < self.accuracy <= 1:
            raise ConfigError(f"--accuracy: expected a fraction above 0 and at most 1; got {self.accuracy:g}")
        for name, value, most in (("--macs", self.macs, 1e15), ("--latency-ms", self.latency_ms, 1e9)):
            if value is not None and not 0 < value <= most:
                raise ConfigError(f"{name}: expected a number above 0 and at most {most:g}; got {value:g}")

    @property
    def unit(self) -> Literal["MACs", "ms"]:
        """Name the unit of cost that the fit is done in."""
        return "ms" if self.latency_ms is not None else "MACs"

    def aim(self, *, deepest: float) -> Aim:
        """Return what a search minimises; `deepest` is the cost of the deepest exit."""
        return budget(self.limit(deepest=deepest)) if self.accuracy is None else accuracy_floor(self.accuracy)

    def limit(self, *, deepest: float) -> float:
        """Return the budget in its unit; infinity where an accuracy is asked for."""
        if self.latency_ms is not None:
            return self.latency_ms
        if self.macs is not None:
            return self.macs if self.macs > 1 else self.macs * deepest
        return float("inf")

    def refuse(self, seen: Seen, *, deepest: float, least: float) -> None:
        """Refuse what misses the target, saying the nearest that can be had.

        Raises:
            ConfigError: `seen`, the best that was found, misses it.
        """
        if self.accuracy is not None and seen.accuracy < self.accuracy:
            raise ConfigError(
                f"--accuracy {self.accuracy:g} cannot be reached on val: the most accurate routing reaches {seen.accuracy:.4f} "
                f"({seen.n_correct} of {seen.n_images}); ask for that, or train a better network"
            )
        limit, flag = self.limit(deepest=deepest), "--macs" if self.unit == "MACs" else "--latency-ms"
        if seen.cost > limit:
            shown = f"{least:,.0f} MACs, --macs {least / deepest:.4f}" if self.unit == "MACs" else f"{least:.4g} ms"
            raise ConfigError(
                f"{flag} asks for {limit:,.4g} {self.unit} an image, and the cheapest routing takes {shown}; ask for that or more"
            )
