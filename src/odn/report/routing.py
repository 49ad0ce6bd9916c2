"""Draw accuracy against the mean multiply-accumulates of an image: static exits, and what routing makes of them."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from odn.report.figures import DPI, LIGHT, WIDTH, drawing
from odn.report.words import short, tidy_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 3.6
STYLES = {"static": (LIGHT.muted, "o"), "confidence": (LIGHT.stable, "s"), "gate": (LIGHT.trial, "^")}
NAMES = {"static": "static exits, by depth", "confidence": "routed by confidence", "gate": "routed by gates"}


@dataclass(frozen=True)
class Mark:
    """Hold a point: mean multiply-accumulates of an image and accuracy, and the words beside it."""

    macs: float
    accuracy: float
    label: str = ""


def draw_routing(curves: Mapping[str, Sequence[Mark]], chosen: Mapping[str, Mark], *, split: str, n_images: int) -> bytes:
    """Return a PNG: a curve a kind, and a large mark where a kind's target was met.

    Accuracies stand on the scale of their error, which is never drawn as less than half an image.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor=LIGHT.paper)
        figure.text(0.02, 0.975, f"Accuracy on {split} by mean cost of an image", fontsize=11, fontweight="bold", color=LIGHT.ink, va="top")
        axes = figure.add_axes((0.125, 0.14, 0.85, 0.69), facecolor=LIGHT.paper)
        _dress(axes)
        for kind, marks in curves.items():
            _draw_curve(axes, kind, marks, chosen.get(kind), least=0.5 / n_images)
        worst = min(mark.accuracy for marks in curves.values() for mark in _worth_drawing(marks))
        axes.set_xlim(0, 1.06 * max(mark.macs for marks in curves.values() for mark in marks))
        _scale(axes, worst=worst, least=0.5 / n_images)
        style = {"ncols": len(curves), "frameon": False, "fontsize": 8.5, "labelcolor": LIGHT.ink, "bbox_to_anchor": (-0.02, 1.0)}
        axes.legend(loc="lower left", borderpad=0.2, columnspacing=1.1, **style)
        file = io.BytesIO()
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return file.getvalue()


def _dress(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LIGHT.muted)
    axes.grid(visible=True, axis="both", color=LIGHT.faint, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=LIGHT.muted, labelcolor=LIGHT.ink, length=0, which="both")
    axes.xaxis.label.set_color(LIGHT.ink)
    axes.set_xlabel("mean multiply-accumulates of an image; large: chosen")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(lambda value, _: short(value) if value > 0 else "0")


def _draw_curve(axes: "Axes", kind: str, marks: Sequence[Mark], chosen: Mark | None, *, least: float) -> None:
    color, marker = STYLES[kind]
    drawn = _worth_drawing(marks)
    xs, ys = [mark.macs for mark in drawn], [_height(mark.accuracy, least) for mark in drawn]
    axes.plot(xs, ys, color=color, marker=marker, markersize=4.5, linewidth=1.2, label=NAMES[kind], zorder=2)
    for mark in drawn:
        if mark.label:
            place = (mark.macs, _height(mark.accuracy, least))
            axes.annotate(mark.label, place, xytext=(0, -12), textcoords="offset points", ha="center", color=color, fontsize=8.5)
    if chosen is not None:
        axes.plot([chosen.macs], [_height(chosen.accuracy, least)], marker=marker, markersize=11, color=color, zorder=3)


def _worth_drawing(marks: Sequence[Mark]) -> list[Mark]:
    """Leave out what falls far below the rest, such as gates that are all closed."""
    best = max(mark.accuracy for mark in marks)
    return [mark for mark in marks if 1 - mark.accuracy <= max(8 * (1 - best), 0.05)]


def _scale(axes: "Axes", *, worst: float, least: float) -> None:
    errors = [digit / 10**power for power in range(1, 7) for digit in (1, 2, 5)]
    low, high = _height(worst, least) - 0.12, -math.log10(least) + 0.1
    ticks = [1 - error for error in errors if low <= -math.log10(error) <= high]
    axes.set_yticks([_height(tick, least) for tick in ticks], [tidy_percent(tick) for tick in ticks])
    axes.set_ylim(low, high)


def _height(accuracy: float, least: float) -> float:
    return -math.log10(max(1 - accuracy, least))
