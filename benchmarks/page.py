"""Tell a file of results as Markdown and one plot: `python -m benchmarks.page NAME`."""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from scipy import stats

from benchmarks.drawing import dressed, log_scale, svg
from benchmarks.results import FOLDER, Result, ResultFile, read_results
from odn.files import write_bytes, write_text
from odn.searching.statistics import wilson_interval

REFERENCES = ("growth", "climb")  # the first of them that ran is what the other arms are compared with
COLORS = ("#0b6e4f", "#c1440e", "#2b59c3", "#8e44ad", "#7f8c8d", "#b8860b", "#d6336c", "#17a2b8")
MARKERS = "osD^vPX*"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write NAME.md and, of several runs, NAME.svg beside NAME.json; return 0, or 2 where that is not there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--title", default="")
    parser.add_argument("--note", default="", help="a paragraph that goes below the title")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results (default: %(default)s)")
    options = parser.parse_args(arguments)
    path = options.out / f"{options.name}.json"
    found = read_results(path)
    if found is None:
        print(f"odn: {path} is missing; run 'python -m benchmarks.run {options.name}' first", file=sys.stderr)
        return 2
    if len(found.results) > 1:
        write_bytes(path.with_suffix(".svg"), plot(found))
    write_text(path.with_suffix(".md"), page(found, name=options.name, title=options.title or options.name, note=options.note))
    print(path.with_suffix(".md"))
    return 0


def page(found: ResultFile, *, name: str, title: str, note: str = "") -> str:
    """Return the Markdown: a table over all arms, what was found beside the grid's, and how to run it again."""
    about, config = found.about, found.about["config"]
    data = config["data"]
    size = "" if data["max_images"] is None else f", {data['max_images']:,} of its training images"
    backbone = config["model"]["backbone"]
    width = "" if "/" in backbone or ":" in backbone else f" at width {config['model']['width']:g}"
    lines = [
        f"# {title}\n",
        f"{note}\n" if note else "",
        f"{data['source']}{size} (a fraction of {data['val_fraction']:.3g} is val), {backbone}{width}, "
        f"{_goal(config['search'])}. The {_unit(found)} is chosen on val; test was read once by each run. "
        "Means over seeds, ± their standard deviation; in brackets the 95 % interval that the number of test images allows.\n",
        _table(found),
        f"![Test accuracy against bytes, and against the cost of all training]({name}.svg)\n" if len(found.results) > 1 else "",
        _grid(found),
        "A cost of 1 is a pass over train at the whole backbone, weighted by multiply-accumulates; it holds all training, search included. "
        f"{_said_of_p(found)}"
        "*ms* is the median latency of one image, of a machine that was busy with other runs.\n",
        f"{about['processor']}, {about['threads']} thread{'s' if about['threads'] > 1 else ''}, {about['precision']}; "
        f"Python {about['python']}, torch {about['torch']}; commit {about['commit']}. Seconds are of a shared machine.\n",
        f"```\n{about['command']}\n```\n",
    ]
    return "\n".join(line for line in lines if line)


def reference_of(found: ResultFile) -> str:
    """Name the arm that the others are compared with; "" where none of those ran."""
    return next((arm for arm in REFERENCES if found.of(arm)), "")


def _unit(found: ResultFile) -> str:
    """Say what a search goes through: the rungs of a spread ladder, or depths of the backbone."""
    climbs = all(arm.partition(":")[0] != "growth" for arm in found.arms())
    return "rung" if climbs and found.about["config"]["search"].get("ladder") == "spread" else "depth"


def _goal(search: Mapping[str, Any]) -> str:
    """Say what was asked for: the largest network within a budget, or an accuracy."""
    budget = {name: search.get(f"max_{name}") for name in ("bytes", "macs", "params")}
    limits = [f"{most:,} {'MACs' if name == 'macs' else name}" for name, most in budget.items() if most is not None]
    return f"at most {' and '.join(limits)}" if limits else f"target {search['target']:.2%} on val"


def _said_of_p(found: ResultFile) -> str:
    compared = reference_of(found)
    if not compared or len(found.arms()) == 1:
        return ""
    return f"*p* is that of a paired t-test over seeds against {compared}; with so few seeds only large differences can show. "


def _table(found: ResultFile) -> str:
    compared = reference_of(found)
    reference = {one.seed: one for one in found.of(compared)}
    names = ["arm", "n", _unit(found), "test accuracy", *([f"against {compared}"] if compared else [])]
    names += ["parameters", "bytes", "MACs", "ms", "cost", "seconds"]
    rows = [f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]
    for arm in found.arms():
        results = found.of(arm)
        depths = sorted({one.depth for one in results})
        cells = [
            arm,
            str(len(results)),
            ", ".join(map(str, depths)),
            f"{_spread([100 * one.test_accuracy for one in results], '{:.2f}')} {_interval(results)}",
            *([_against(results, reference) if arm != compared else ""] if compared else []),
            f"{statistics.mean(one.n_params for one in results):,.0f}",
            f"{statistics.mean(one.size_bytes for one in results):,.0f}",
            f"{statistics.mean(one.macs for one in results):,.0f}",
            _latency(results),
            _spread([one.full_network_epochs for one in results], "{:.1f}"),
            f"{statistics.mean(one.seconds for one in results):,.0f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _spread(values: Sequence[float], form: str) -> str:
    mean = form.format(statistics.mean(values))
    return f"{mean} ± {form.format(statistics.stdev(values))}" if len(values) > 1 else mean


def _interval(results: Sequence[Result]) -> str:
    """Return the 95 % interval of the mean accuracy on the test images, which all seeds share."""
    mean, n_test = statistics.mean(one.test_accuracy for one in results), results[0].n_test
    low, high = wilson_interval(round(mean * n_test), n_test, confidence=0.95)
    return f"({100 * low:.2f} to {100 * high:.2f})"


def _latency(results: Sequence[Result]) -> str:
    known = [one.latency_ms for one in results if one.latency_ms]
    return f"{statistics.median(known):.3g}" if known else ""


def _against(results: Sequence[Result], reference: dict[int, Result]) -> str:
    """Return the mean difference in points on the seeds that both have, and the p of a paired t-test."""
    pairs = [(one.test_accuracy, reference[one.seed].test_accuracy) for one in results if one.seed in reference]
    if not pairs:
        return ""
    difference = 100 * statistics.mean(ours - theirs for ours, theirs in pairs)
    if len(pairs) < 2 or len({ours - theirs for ours, theirs in pairs}) == 1:
        return f"{difference:+.2f}"
    p = float(stats.ttest_rel(*zip(*pairs, strict=True)).pvalue)
    return f"{difference:+.2f} (p = {p:.2g})"


def _grid(found: ResultFile) -> str:
    """Tell what every rung, or depth, reaches in the grid, and with which of them it and the search end."""
    arm = next((arm for arm in found.arms() if arm.partition(":")[0] == "grid"), None)
    if arm is None:
        return ""
    unit, compared = _unit(found), reference_of(found)
    grids, grown = found.of(arm), {one.seed: one for one in found.of(compared)}
    depths = list(grids[0].by_depth)
    names = ["seed", *(f"{unit} {depth}" for depth in depths), "grid ends", *([f"{compared} ends"] if compared else [])]
    rows = [f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]
    for one in grids:
        ends = [_ended(grown[one.seed]) if one.seed in grown else "–"] if compared else []
        rows.append(f"| {' | '.join([str(one.seed), *(_judged(one, depth) for depth in depths), _ended(one), *ends])} |")
    rest = " |" * (len(names) - 1 - len(depths))
    exits = [
        f"| {one.seed}, the supernet's exit | {' | '.join(f'{100 * one.by_depth[depth]:.2f}' for depth in depths)} |{rest}"
        for one in found.of("supernet")
        if set(depths) <= set(one.by_depth)
    ]
    title = f"Every {unit} from scratch (the grid), accuracy on val after its last epoch, with its 95 % interval, %"
    return f"{title}{', and the same exits of a supernet' if exits else ''}:\n\n" + "\n".join([*rows, *exits]) + "\n"


def _ended(one: Result) -> str:
    return f"{one.depth} ({one.verdict.replace('_', ' ')})"


def _judged(one: Result, depth: str) -> str:
    accuracy = one.by_depth[depth]
    if not one.n_val:
        return f"{100 * accuracy:.2f}"
    low, high = wilson_interval(round(accuracy * one.n_val), one.n_val, confidence=0.95)
    return f"{100 * accuracy:.2f} ({100 * low:.1f} to {100 * high:.1f})"


def plot(found: ResultFile) -> bytes:
    """Draw test accuracy against bytes and against cost: small points are seeds, large ones their means."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 5.4), sharey=True, layout="constrained")
    for index, arm in enumerate(found.arms()):
        results = found.of(arm)
        color, marker = COLORS[index % len(COLORS)], MARKERS[(index + index // len(COLORS)) % len(MARKERS)]
        ys = [100 * one.test_accuracy for one in results]
        columns = [[float(one.size_bytes) for one in results], [one.full_network_epochs for one in results]]
        for axis, xs in zip(axes, columns, strict=True):
            axis.scatter(xs, ys, s=14, color=color, alpha=0.4, marker=marker, linewidths=0)
            axis.scatter(statistics.mean(xs), statistics.mean(ys), s=70, color=color, marker=marker, label=arm, edgecolors="white")
    for axis, label in zip(axes, ("bytes of the network", "cost of all training, full-network epochs"), strict=True):
        low, high = axis.get_xlim()
        if high > 3 * low:
            log_scale(axis)
        dressed(axis, label=label)
    axes[0].set_ylabel("accuracy on test, %")
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=2, fontsize="small")
    return svg(figure)


if __name__ == "__main__":
    sys.exit(main())
