"""Draw what exported files are worth: accuracy on test against bytes, and against milliseconds, the network in torch beside them."""

import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from odn.report.exports import Exports, Row
from odn.report.figures import DPI, LEAST_TICKS, STEPS, WIDTH, Theme
from odn.report.words import short, tidy_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 3.3
LEFT, RIGHT, BOTTOM, TOP, GAP = 0.125, 0.985, 0.16, 0.72, 0.05  # fractions of the figure
MARKERS = {"network": "D", "onnx": "o", "onnx-int8": "s", "torch": "^", "executorch": "o", "executorch-int8": "s"}
TICKS = [digit * 10.0**power for power in range(-4, 10) for digit in (1, 2, 5)]  # of bytes and of milliseconds


def draw_exports(exports: Exports, theme: Theme) -> bytes:
    """Return a PNG; accuracies stand on the scale of their error, which is never drawn as less than half an image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor=theme.paper)
    figure.text(0.02, 0.975, "Accuracy on test by size and by time", fontsize=11, fontweight="bold", color=theme.ink, va="top")
    half = (RIGHT - LEFT - GAP) / 2
    by_size = figure.add_axes((LEFT, BOTTOM, half, TOP - BOTTOM + 0.06), facecolor=theme.paper)
    by_time = figure.add_axes((LEFT + half + GAP, BOTTOM, half, TOP - BOTTOM + 0.06), facecolor=theme.paper, sharey=by_size)
    least = 0.5 / exports.n_test
    files = [row for row in exports.rows if row.size_bytes is not None]
    _panel(by_size, theme, files, least=least, where=lambda row: float(row.size_bytes or 0), label="bytes of the file")
    _panel(by_time, theme, list(exports.rows), least=least, where=lambda row: row.speed.ms, label="ms an image, median")
    by_size.xaxis.set_major_formatter(lambda value, _: f"{short(value)}B".replace(".00", "").replace(".0", ""))
    by_time.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    by_time.tick_params(labelleft=False)
    _scale(by_size, exports, least=least)
    _legend(figure, theme, exports)
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return file.getvalue()


def _panel(axes: "Axes", theme: Theme, rows: list[Row], *, least: float, where: Callable[[Row], float], label: str) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(theme.muted)
    axes.grid(visible=True, axis="both", color=theme.faint, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.muted, labelcolor=theme.ink, length=0, which="both")
    axes.set_xlabel(label, color=theme.ink)
    axes.set_xscale("log")
    for row in rows:
        low, y, high = (_height(one, least) for one in (row.interval[0], row.accuracy, row.interval[1]))
        color = colors(theme)[row.name]
        axes.errorbar([where(row)], [y], yerr=[[y - low], [high - y]], fmt="none", ecolor=color, elinewidth=1.4, capsize=3, alpha=0.75)
        axes.plot([where(row)], [y], marker=MARKERS[row.name], markersize=6.5, color=color, zorder=3)
    xs = [where(row) for row in rows] or [1.0]
    low, high = min(xs) / 1.6, max(xs) * 1.6
    axes.set_xlim(low, high)
    axes.set_xticks([tick for tick in TICKS if low <= tick <= high])
    axes.xaxis.set_minor_formatter(lambda *_: "")


def _scale(axes: "Axes", exports: Exports, *, least: float) -> None:
    edges = [_height(edge, least) for row in exports.rows for edge in row.interval]
    low, high = min(edges) - 0.08, max(edges) + 0.08
    for digits in STEPS:
        errors = [digit / 10**power for power in range(1, 7) for digit in digits]
        ticks = [1 - error for error in errors if low <= -math.log10(error) <= high]
        if len(ticks) >= LEAST_TICKS:
            break
    axes.set_yticks([_height(tick, least) for tick in ticks], [tidy_percent(tick) for tick in ticks])
    axes.set_ylim(low, high)


def _legend(figure: Any, theme: Theme, exports: Exports) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker=MARKERS[row.name], color=colors(theme)[row.name], markersize=6, linestyle="none", label=row.title)
        for row in exports.rows
    ]
    style: dict[str, Any] = {"ncols": len(handles), "frameon": False, "fontsize": 8.5, "labelcolor": theme.ink, "handletextpad": 0.3}
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.0, 0.91), columnspacing=1.1, **style)


def colors(theme: Theme) -> dict[str, str]:
    """Return the color of each row."""
    onnx = {"onnx": theme.stable, "onnx-int8": theme.trial}
    return {"network": theme.muted, **onnx, "torch": theme.refine, "executorch": theme.finish, "executorch-int8": theme.target}


def _height(accuracy: float, least: float) -> float:
    return -math.log10(max(1 - accuracy, least))
