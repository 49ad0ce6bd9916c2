"""Draw what the pages of results share: an axis on a log scale, and a figure as the same SVG each time."""

import io

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def log_scale(axis: Axes) -> None:
    """Put x on a log scale with plain numbers, as many as stay legible."""
    low, high = axis.get_xlim()
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 1 else f"{x:g}"))
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())


def dressed(axis: Axes, *, label: str) -> None:
    """Name x, and take away what shows nothing."""
    axis.set_xlabel(label)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def svg(figure: Figure) -> bytes:
    """Return a figure as SVG, without the time and the program that made it, and close it."""
    content = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "odn"}):
        figure.savefig(content, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    plt.close(figure)
    return content.getvalue()
