"""Draw a search as PNG pictures: the same bytes for the same findings, on a light or a dark ground; no pyplot, no window.

Accuracies stand on the scale of their error: each halving of the error is the same step up, so that 98% and 99% are told apart.
"""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from odn.report.findings import Findings, Interval
from odn.report.mistakes import Mistake
from odn.report.words import PHASES, change, short, tidy_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, DPI = 5.6, 200  # inches, dots an inch: letters stay readable on a phone
LEFT, RIGHT, BOTTOM, TOP = 0.68, 0.1, 0.48, 0.6  # inches around the axes
STEPS = ((1, 2, 5), (1, 2, 3, 4, 5, 7))  # first digits of the errors that are ticks; the second where the first give too few
LEAST_TICKS = 3
MISTAKE_COLUMNS = 6
ASIDE = 0.09  # depths by which EMA and annealed accuracy are apart


@dataclass(frozen=True)
class Theme:
    """Name the colors of a picture; those of the phases are told apart by the color-blind too."""

    paper: str
    ink: str
    muted: str
    faint: str
    stable: str
    trial: str
    finish: str
    target: str
    refine: str

    def of_phase(self, name: str) -> str:
        """Return the color of a phase."""
        colors = {"stable": self.stable, "anneal": self.stable, "trial": self.trial, "finish": self.finish, "refine": self.refine}
        return colors[name]


LIGHT = Theme("#ffffff", "#1b1f24", "#59636e", "#e4e8ec", "#0969b8", "#c2570c", "#0f7b56", "#a3195b", "#6f42c1")
DARK = Theme("#171b21", "#e8ebef", "#a4adb8", "#2c333c", "#63b3f5", "#f2a65a", "#4fd1a0", "#f58ab8", "#b392f0")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Hold one row of plots/history.csv."""

    depth: int
    phase: str
    epoch: int
    val_accuracy: float
    train_accuracy: float


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in matplotlib's own style, whatever the user's settings are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["font.size"] = 10
        yield


def draw_depths(findings: Findings, theme: Theme) -> bytes:
    """Draw accuracy on val against depth: EMA accuracy, annealed accuracy with its interval, the target, what was never trained."""
    unit, last_unit = findings.unit, findings.n_units
    outcome = f"target reached at {unit} {findings.depth}" if findings.is_reached else f"exhausted, {unit} {findings.depth} kept"
    figure, axes = _figure(theme, height=3.5, title=f"Accuracy on val by {unit}: {outcome}")
    scale, last = _Scale(findings), findings.depths[-1].depth
    for one in findings.depths:
        _point(axes, one.depth - ASIDE, scale.span(one.ema_accuracy, one.ema_interval), color=theme.muted, hollow=theme.paper)
        if one.annealed_accuracy is not None:
            _point(axes, one.depth + ASIDE, scale.span(one.annealed_accuracy, one.interval), color=theme.trial)
    line = [(one.depth - ASIDE, scale.height(one.ema_accuracy)) for one in findings.depths]
    axes.plot(*zip(*line, strict=True), color=theme.muted, linewidth=1, zorder=1)
    scale.fit(axes, [edge for one in findings.depths for edge in (*one.ema_interval, *one.interval)], below=0.15)
    scale.draw_target(axes, theme, left=scale.starts_low)
    kept = findings.depth - 0.5 if findings.is_refined else findings.depth  # between this rung and the one before
    axes.axvline(kept, color=theme.finish, linewidth=16, alpha=0.15, zorder=0)
    axes.set_xlim(0.4, last_unit + 0.6)
    if last < last_unit and not findings.is_pruned:
        axes.axvspan(last + 0.5, last_unit + 0.6, color=theme.faint, alpha=0.6, linewidth=0, zorder=0)
        angle = 0 if last_unit - last > 0.2 * last_unit else 90
        place = ((last + last_unit) / 2 + 0.55, 0.06)
        axes.annotate("not trained", place, xycoords=axes.get_xaxis_transform(), ha="center", rotation=angle, color=theme.muted)
    annealed = [("o", theme.trial, theme.trial, "annealed")] if any(one.annealed_accuracy is not None for one in findings.depths) else []
    _legend(axes, theme, [("o", theme.muted, theme.paper, "EMA accuracy"), *annealed, ("s", theme.finish, theme.finish, "kept")])
    axes.set_xticks(range(1, last_unit + 1))
    axes.set_xlabel("rung of the ladder" if findings.config.spreads else "depth: blocks kept")
    return png(figure)


def draw_cost(findings: Findings, theme: Theme) -> bytes:
    """Draw accuracy on val against the bytes of the weights, up to the whole backbone."""
    figure, axes = _figure(theme, height=3.5, title="Accuracy on val by size", legend=False)
    scale, sizes = _Scale(findings), findings.savings[1]
    for look in findings.refinements:
        kept = look.reached and look.size_bytes == sizes.kept
        color = theme.finish if kept else theme.refine
        _point(
            axes, look.size_bytes, scale.span(look.accuracy, look.interval), color=color, hollow=None if kept else theme.paper, marker="D"
        )
    for one in findings.depths:
        is_kept = one.depth == findings.depth and not findings.is_refined
        color, weight = (theme.finish, "bold") if is_kept else (theme.muted, "normal")
        span = scale.span(one.accuracy, one.interval)
        _point(axes, one.size_bytes, span, color=color, hollow=None if is_kept else theme.paper)
        _note(axes, f"{one.depth}", (one.size_bytes, span[0]), shift=(0, -4), ha="center", va="top", color=color, fontweight=weight)
    line = [(one.size_bytes, scale.height(one.accuracy)) for one in findings.depths]
    axes.plot(*zip(*line, strict=True), color=theme.muted, linewidth=1, zorder=1)
    smallest = min([findings.depths[0].size_bytes, *(look.size_bytes for look in findings.refinements)])
    low, high = smallest / 1.5, sizes.full * 1.6
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    intervals = [one.interval for one in findings.depths] + [look.interval for look in findings.refinements]
    scale.fit(axes, [edge for interval in intervals for edge in interval], below=0.36)
    scale.draw_target(axes, theme, left=scale.starts_low, right=math.log(sizes.full / low) / math.log(high / low))
    across = axes.get_xaxis_transform()
    axes.axvline(sizes.full, color=theme.ink, linewidth=1.2, linestyle=(0, (1, 2)))
    _note(
        axes, f"all {findings.n_blocks} blocks", (sizes.full, 0.97), shift=(4, 0), xycoords=across, rotation=90, va="top", color=theme.ink
    )
    if not findings.is_whole:
        arrow = {"arrowstyle": "<->", "color": theme.finish, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (sizes.full, 0.05), xycoords=across, xytext=(sizes.kept, 0.05), textcoords=across, arrowprops=arrow)
        text = f"{short(sizes.kept)}B of {short(sizes.full)}B: {change(sizes.saved)}"
        _note(axes, text, (sizes.full, 0.05), shift=(-8, 4), xycoords=across, ha="right", color=theme.finish, fontweight="bold")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g} MB" if value >= 1e6 else f"{value / 1e3:g} kB")
    axes.xaxis.set_minor_formatter(lambda *_: "")
    axes.set_xlabel(f"size of the weights, log scale; numbers are {findings.unit}s")
    return png(figure)


def draw_ledger(findings: Findings, theme: Theme) -> bytes:
    """Draw what each depth cost, phase by phase, in full-network epochs."""
    rows = [f"{findings.unit} {one.depth}" for one in findings.depths]
    figure, axes = _figure(
        theme, height=1.5 + 0.34 * len(rows), title=f"The search cost {findings.full_network_epochs:.2f} full-network epochs"
    )
    ends = dict.fromkeys(rows, 0.0)
    for entry in findings.ledger:
        row = f"{findings.unit} {entry.depth}"
        bar = {"height": 0.62, "color": theme.of_phase(entry.phase), "edgecolor": theme.paper}
        axes.barh(rows.index(row), entry.full_network_epochs, left=ends[row], **bar)  # type: ignore[arg-type]
        ends[row] += entry.full_network_epochs
    for number, row in enumerate(rows):
        _note(axes, f"{ends[row]:.2f}", (ends[row], number), shift=(4, 0), va="center", color=theme.ink)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, max(ends.values()) * 1.14)
    axes.grid(visible=False, axis="y")
    phases = [("s", theme.of_phase(name), theme.of_phase(name), f"{PHASES[name]} {cost:.2f}") for name, cost in findings.by_phase().items()]
    _legend(axes, theme, phases)
    axes.set_xlabel("full-network epochs")
    return png(figure)


def draw_curves(findings: Findings, history: Sequence[Epoch], theme: Theme) -> bytes:
    """Draw accuracy after every epoch, in the order of training, with the phases marked."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(theme, height=3.7, title="Accuracy by epoch, in the order of training")
    scale, depth_before, has_room = _Scale(findings), 0, len(findings.depths) <= 3
    for depth, phase, start, rows in _runs(history):
        xs, color = [start + row.epoch for row in rows], theme.of_phase(phase)
        axes.axvspan(start + 0.5, xs[-1] + 0.5, color=color, alpha=0.10, linewidth=0)
        axes.plot(xs, [scale.height(row.train_accuracy) for row in rows], color=theme.muted, linewidth=1, linestyle=(0, (1, 1.5)))
        axes.plot(xs, [scale.height(row.val_accuracy) for row in rows], color=color, linewidth=1.8, marker="o", markersize=3)
        if depth != depth_before:
            axes.axvline(start + 0.5, color=theme.muted, linewidth=0.8)
            label = f"{findings.unit} {depth}" if has_room else f"{depth}"
            _note(axes, label, (start + 0.5, 0), shift=(4, 5), xycoords=axes.get_xaxis_transform(), color=theme.ink)
        depth_before = depth
    scale.fit(axes, [accuracy for row in history for accuracy in (row.val_accuracy, row.train_accuracy)], below=0.16)
    axes.set_xlim(0.5, sum(rows[-1].epoch for _, _, _, rows in _runs(history)) + 0.5)
    scale.draw_target(axes, theme, left=True)
    phases = [
        ("o", theme.of_phase(name), theme.of_phase(name), f"val, {PHASES[name]}")
        for name in findings.by_phase()
        if any(one.phase == name for one in history)
    ]
    _legend(axes, theme, [*phases, ("", theme.muted, theme.muted, "train")])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch" if has_room else f"epoch; numbers within are {findings.unit}s")
    return png(figure)


def draw_mistakes(mistakes: Sequence[Mistake], theme: Theme) -> bytes:
    """Draw the images that were got wrong, with their true and predicted classes."""
    n_rows = -(-len(mistakes) // MISTAKE_COLUMNS)
    height = 0.45 + 1.36 * n_rows
    figure = _empty(theme, height=height, title="Got wrong on test, the surest first: true class → predicted")
    edges = {"left": 0.02, "right": 0.98, "bottom": 0.5 / height, "top": 1 - 0.38 / height}
    grid = figure.add_gridspec(n_rows, MISTAKE_COLUMNS, hspace=0.6, wspace=0.18, **edges)
    for number, mistake in enumerate(mistakes):
        axes = figure.add_subplot(grid[number // MISTAKE_COLUMNS, number % MISTAKE_COLUMNS])
        axes.imshow(mistake.pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_axis_off()
        text = f"{_drawable(mistake.label)}\n→ {_drawable(mistake.predicted)}\n{mistake.confidence:.0%} sure"
        style: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 7.5, "linespacing": 1.25, "parse_math": False}
        axes.text(0.5, -0.06, text, transform=axes.transAxes, color=theme.ink, **style)
    return png(figure)


class _Scale:
    """Place accuracies by their error, which is never drawn as less than half an image of val."""

    def __init__(self, findings: Findings) -> None:
        self.target, self.least = findings.target, 0.5 / findings.kept.n_val
        self.starts_low = findings.depths[0].interval[1] < findings.target

    def height(self, accuracy: float) -> float:
        return -math.log10(max(1 - accuracy, self.least))

    def span(self, accuracy: float, interval: Interval) -> tuple[float, float, float]:
        return self.height(interval[0]), self.height(accuracy), self.height(interval[1])

    def fit(self, axes: "Axes", accuracies: Sequence[float], *, below: float) -> None:
        """Give the values and the target room, more of it below for words, and write the scale in percent."""
        heights = [self.height(accuracy) for accuracy in (*accuracies, self.target)]
        low, high = min(heights), max(heights)
        room = max(high - low, 0.1)
        low, high = low - below * room, high + 0.14 * room
        axes.set_ylim(low, high)
        for digits in STEPS:
            errors = [digit / 10**power for power in range(1, 7) for digit in digits]
            ticks = [1 - error for error in (1.0, *errors) if error > self.least and low <= -math.log10(error) <= high]
            if len(ticks) >= LEAST_TICKS:
                break
        axes.set_yticks([self.height(tick) for tick in ticks], [tidy_percent(tick) for tick in ticks])

    def draw_target(self, axes: "Axes", theme: Theme, *, left: bool, right: float = 1.0) -> None:
        """Draw the target across, its name where it is in nobody's way: at the left above it, or ending at `right` below it."""
        x, y, style = (0.0, 2.0, {"va": "bottom"}) if left else (right, -3.0, {"va": "top", "ha": "right"})
        height, place = self.height(self.target), axes.get_yaxis_transform()
        axes.axhline(height, color=theme.target, linewidth=1.4, linestyle=(0, (5, 3)), zorder=1)
        _note(
            axes,
            f"target {tidy_percent(self.target)}",
            (x, height),
            shift=(3 if left else -3, y),
            xycoords=place,
            color=theme.target,
            **style,
        )


def _runs(history: Sequence[Epoch]) -> Iterator[tuple[int, str, int, list[Epoch]]]:
    """Split the rows where depth or phase change, or another training begins: depth, phase, number of epochs before, rows."""
    start, before = 0, 0
    for end in range(1, len(history) + 1):
        first, last = history[start], history[end - 1]
        after = history[end] if end < len(history) else None
        if after is None or (after.depth, after.phase) != (first.depth, first.phase) or after.epoch <= last.epoch:
            yield first.depth, first.phase, before, list(history[start:end])
            start, before = end, before + last.epoch


def _drawable(name: str, *, longest: int = 13) -> str:
    """Shorten a class name, and replace what the font cannot draw."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    shown = "".join(letter if letter.isprintable() and font.get_char_index(ord(letter)) else "?" for letter in name)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def _empty(theme: Theme, *, height: float, title: str) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor=theme.paper)
    figure.text(0.02, 1 - 0.08 / height, title, fontsize=11, fontweight="bold", color=theme.ink, va="top")
    return figure


def _figure(theme: Theme, *, height: float, title: str, legend: bool = True) -> "tuple[Figure, Axes]":
    figure, top = _empty(theme, height=height, title=title), TOP if legend else TOP - 0.22
    axes = figure.add_axes((LEFT / WIDTH, BOTTOM / height, 1 - (LEFT + RIGHT) / WIDTH, 1 - (BOTTOM + top) / height), facecolor=theme.paper)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(theme.muted)
    axes.grid(visible=True, axis="both", color=theme.faint, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.muted, labelcolor=theme.ink, length=0, which="both")
    axes.xaxis.label.set_color(theme.ink)
    return figure, axes


def _point(axes: "Axes", x: float, span: tuple[float, float, float], *, color: str, hollow: str | None = None, marker: str = "o") -> None:
    low, y, high = span
    axes.errorbar([x], [y], yerr=[[y - low], [high - y]], fmt="none", ecolor=color, elinewidth=1.4, capsize=3, alpha=0.75, zorder=2)
    axes.plot(
        [x],
        [y],
        marker=marker,
        markersize=7 if marker == "o" else 5.5,
        color=color,
        markerfacecolor=hollow or color,
        markeredgewidth=1.6,
        zorder=3,
    )


def _note(axes: "Axes", text: str, at: tuple[float, float], *, shift: tuple[float, float], **style: Any) -> None:
    """Write beside a point; the shift is in points."""
    axes.annotate(text, at, xytext=shift, textcoords="offset points", **style)


def _legend(axes: "Axes", theme: Theme, entries: Sequence[tuple[str, str, str, str]]) -> None:
    """Name marker, color and face above the axes; an entry without a marker is a dotted line."""
    from matplotlib.lines import Line2D

    def handle(marker: str, color: str, face: str, label: str) -> Line2D:
        line: Any = "none" if marker else (0, (1, 1.5))
        return Line2D([], [], marker=marker, color=color, markerfacecolor=face, markersize=6, linestyle=line, label=label)

    style: dict[str, Any] = {"ncols": len(entries), "frameon": False, "fontsize": 8.5, "labelcolor": theme.ink}
    style |= {"bbox_to_anchor": (-0.02, 1.0), "handletextpad": 0.3, "columnspacing": 1.1, "borderpad": 0.2}
    axes.legend(handles=[handle(*entry) for entry in entries], loc="lower left", **style)


def png(figure: "Figure") -> bytes:
    """Return a picture, the same bytes each time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return file.getvalue()
