"""Draw what `odn look` found: accuracy of linear probes on val against depth, with what each depth costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from odn.files import write_bytes
from odn.report.figures import LIGHT, drawing, png


def draw_look(path: Path, *, rows: Sequence[dict[str, Any]], title: str, depth: int) -> None:
    """Write a PNG: accuracy by depth above, the share of the whole backbone's bytes, MACs and latency below."""
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(7.2, 5.0), facecolor=LIGHT.paper, layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        depths = [row["depth"] for row in rows]
        above.plot(depths, [row["val_accuracy"] for row in rows], marker="o", color=LIGHT.trial)
        above.axvline(depth, color=LIGHT.finish, linewidth=16, alpha=0.15, zorder=0)
        above.set_ylabel("accuracy on val")
        above.yaxis.set_major_formatter("{x:.0%}")
        above.set_title(f"Linear probes on frozen features: {title}", loc="left", color=LIGHT.ink)
        for name, shown, color in (
            ("size_bytes", "bytes", LIGHT.muted),
            ("macs", "MACs", LIGHT.finish),
            ("latency_ms", "latency", LIGHT.trial),
        ):
            below.plot(depths, [row[name] / rows[-1][name] for row in rows], marker=".", label=shown, color=color)
        below.set_ylabel("of the whole")
        below.yaxis.set_major_formatter("{x:.0%}")
        below.set_xlabel("depth: blocks kept")
        below.set_xticks(depths if len(depths) <= 24 else depths[:: len(depths) // 12])
        below.legend(frameon=False)
        write_bytes(path, png(figure))
