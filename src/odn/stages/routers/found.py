"""What a fit leaves, whatever its kind."""

from dataclasses import dataclass
from typing import Any

from odn.models.stored_routes import Routes


@dataclass(frozen=True, kw_only=True)
class Point:
    """Hold one point of the curve: accuracy and mean multiply-accumulates an image, on val and on test."""

    kind: str  # static, confidence or gate
    name: str  # the depth of a static exit, `target` for what was chosen
    val_macs: float
    val_accuracy: float
    test_macs: float
    test_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """Hold the routed network, how its images spread, the points of its curve, and what the card tells of the fit."""

    routes: Routes
    chosen: Point
    curve: tuple[Point, ...]
    spread: tuple[dict[str, Any], ...]  # a row an exit, or a number of residuals
    about: dict[str, Any]
    full_depth_epochs: float
