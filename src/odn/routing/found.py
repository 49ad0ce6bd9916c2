"""What a fit leaves, whatever its kind."""

from dataclasses import dataclass
from typing import Any, Literal

from odn.records import Amount, Fraction, Record
from odn.routing.stored import Routes


@dataclass(frozen=True, kw_only=True)
class Point(Record):
    """Hold one point of the curve: accuracy and mean multiply-accumulates an image, on val and on test."""

    kind: Literal["static", "confidence", "gate"]
    name: str  # the depth of a static exit, `target` for what was chosen
    val_macs: Amount
    val_accuracy: Fraction
    test_macs: Amount
    test_accuracy: Fraction


@dataclass(frozen=True, kw_only=True)
class Found:
    """Hold the routed network, how its images spread, the points of its curve, and what the card tells of the fit."""

    routes: Routes
    chosen: Point
    curve: tuple[Point, ...]
    spread: tuple[dict[str, Any], ...]  # a row an exit, or a number of residuals
    about: dict[str, Any]
    full_network_epochs: float
