"""Say findings in words and numbers; the same ones in the terminal and on the page."""

from odn.report.findings import Findings, Interval, Saving

PHASES = {
    "stable": "training",
    "anneal": "training",
    "trial": "trial anneal",
    "finish": "finish",
    "refine": "refinement",
}
VERDICTS = {"expand": "expand", "target_reached": "target reached", "exhausted": "exhausted"}
BUSY = "The machine was busy while latency was measured: 'dvc repro -sf evaluate' measures again, 'dvc repro' then tells it."
NEXT_BACKBONE = {"resnet18": "resnet34 (16 blocks)"}


def share(fraction: float) -> str:
    """Write a fraction as a percentage with one decimal, or with as many as keep it from looking like 100%."""
    for digits in (1, 2, 3):
        text = f"{fraction:.{digits}%}"
        if fraction >= 1 or not text.startswith("100"):
            return text
    return text


def tidy_percent(fraction: float) -> str:
    """Write a round fraction as a percentage without needless zeros: `98%`, `99.95%`."""
    return f"{100 * fraction:.4f}".rstrip("0").rstrip(".") + "%"


def change(saved: float) -> str:
    """Say how much less, or more, something is: `98.6% less`, `3.0% more`, `the same`."""
    if saved == 0:
        return "the same"
    return f"{share(saved)} less" if saved > 0 else f"{share(-saved)} more"


def saving(saved: float) -> str:
    """Write a saving for a column of savings; what is not saved is said."""
    return share(saved) if saved >= 0 else change(saved)


def span(interval: Interval) -> str:
    """Write an interval of accuracies."""
    return f"{interval[0]:.2%} to {interval[1]:.2%}"


def balanced(accuracy: float | None) -> str:
    """Write balanced accuracy to stand behind accuracy; nothing where classes are about equal in number."""
    return "" if accuracy is None else f"; balanced, the mean over classes, {accuracy:.2%}"


def narrow_span(interval: Interval) -> str:
    """Write an interval of accuracies for a column of a table."""
    return f"{100 * interval[0]:.2f}–{interval[1]:.2%}"


def amount(saving: Saving, value: float) -> str:
    """Write a cost with its unit: a count in full, a time to three digits."""
    return f"{value:,.0f}" if not saving.unit else f"{milliseconds(value)} {saving.unit}"


def milliseconds(value: float) -> str:
    """Write a time to about three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def short(value: float) -> str:
    """Write a large count to three digits: `75.3 k`, `11.2 M`, `1.81 G`."""
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * scale:
            scaled = value / scale
            digits = 0 if scaled >= 99.95 else 1 if scaled >= 9.995 else 2
            return f"{scaled:.{digits}f} {letter}"
    return f"{value:.0f} "


def blocks(n: int) -> str:
    """Write a number of blocks."""
    return "1 block" if n == 1 else f"{n} blocks"


def kept_blocks(findings: Findings) -> str:
    """Write what is kept: `5 blocks`, `5 blocks, channels cut`, or `rung 2`."""
    if findings.config.spreads:
        return f"below rung {findings.depth}" if findings.is_refined else f"rung {findings.depth}"
    return blocks(findings.depth) + (", channels cut" if findings.is_pruned else "")


def backbone_of(findings: Findings) -> str:
    """Name the backbone, with its width where that is not the published one."""
    width = findings.config.model.width
    return findings.backbone if width == 1 else f"{findings.backbone} at width {width:g}"


def range_of(findings: Findings) -> str:
    """Name what was trained: `depth 3`, `depths 1 to 8`, `rungs 1 to 3`."""
    if findings.is_pruned:
        return f"depth {findings.kept.pruned_from}"
    first, last = findings.depths[0].depth, findings.depths[-1].depth
    return f"{findings.unit} {first}" if first == last else f"{findings.unit}s {first} to {last}"


def headline(findings: Findings) -> str:
    """Say in one short sentence what came of the search."""
    if findings.is_pruned:
        left = f"{findings.depth} of {findings.n_blocks} blocks, channels cut,"
        if not findings.is_reached:
            return f"{left} missed {_target(findings)} on {findings.data}; this is kept for now"
        return f"{left} {'is' if findings.depth == 1 else 'are'} enough for {findings.data}"
    if not findings.is_reached:
        kept = f"{findings.unit} {findings.depth} of {findings.n_units} is kept for now"
        return f"No {findings.unit} reached {_target(findings)} on {findings.data}; {kept}"
    if findings.config.search.budget:
        return f"{short(findings.kept.size_bytes)}B for {findings.data}: the largest network within the budget"
    if findings.is_whole:
        return f"{findings.data} needs all {findings.n_blocks} blocks"
    if findings.config.spreads:
        below = "below " if findings.is_refined else ""
        return f"{short(findings.savings[1].kept)}B are enough for {findings.data}: {below}rung {findings.depth} of {findings.n_units}"
    verb = "is" if findings.depth == 1 else "are"
    return f"{findings.depth} of {findings.n_blocks} blocks {verb} enough for {findings.data}"


def subline(findings: Findings) -> str:
    """Say what the kept network is worth and what it saves."""
    parameters, _, macs = findings.savings[:3]
    saved = f", with {share(parameters.saved)} fewer parameters and {share(macs.saved)} fewer MACs" if not findings.is_whole else ""
    return f"{findings.test_accuracy:.2%} on test{saved}"


def _target(findings: Findings) -> str:
    return f"the target of {findings.target:.2%}"


def kept_because(findings: Findings) -> str:
    """Say why this depth is kept, in a sentence or two."""
    if findings.is_pruned:
        left = f"{blocks(findings.depth)} of depth {findings.kept.pruned_from} are left, with fewer channels; {findings.reason}."
        return left if findings.is_reached else f"{left} It is a candidate, not a success."
    if findings.is_reached:
        if findings.is_refined:
            return f"a network below rung {findings.depth} is kept, its {findings.reason}."
        return f"{findings.unit} {findings.depth} is kept, its {findings.reason}."
    best, verb = findings.best, "was" if len(findings.depths) == 1 else "were"
    return (
        f"{range_of(findings)} of {findings.n_units} {verb} trained, and none reached {_target(findings)} on val; the best was "
        f"{best.accuracy:.2%} at {findings.unit} {best.depth}. {findings.unit.capitalize()} {findings.depth} is kept, the "
        f"{'smallest' if findings.config.spreads else 'shallowest'} within one standard error of the best"
        f"{'' if findings.config.spreads else ' EMA accuracy'}. "
        "It is a candidate, not a success."
    )


def leaks(findings: Findings) -> list[str]:
    """Say where the data flatters accuracy: images that are in two splits, or under two labels; nothing where there are none."""
    known, said = findings.duplicates, []
    places = [f"{known[f'test_in_{name}']:,} are in {name} too" for name in ("train", "val") if known.get(f"test_in_{name}")]
    if places:
        said.append(
            f"Of the {findings.n_test:,} test images {' and '.join(places)}, pixel by pixel: accuracy on test looks better than it is. "
            "data.duplicates: drop takes them out of train and val."
        )
    if known.get("conflicts"):
        said.append(f"{known['conflicts']:,} images have a twin, pixel by pixel, under another label: nothing gets both right.")
    return said


def remedies(findings: Findings) -> list[str]:
    """Say what would help an exhausted search, the likeliest first; settings by their names."""
    config, last, best = findings.config, findings.depths[-1], findings.best
    found, longer = [], config.mode.longer(config)
    if findings.is_pruned:
        found += [f"cut less: prune.budget {config.prune.budget:g} of the {config.prune.budget_metric}", f"train longer: {longer}"]
    elif findings.config.spreads and last.depth < config.search.schedule[-1]:
        found.append("train the larger rungs all the same: search.mode grid")
    elif findings.config.spreads and last.depth < findings.n_units:
        found.append(f"climb higher: search.schedule ends at rung {last.depth}, and the ladder has {findings.n_units}")
    elif not findings.config.spreads and last.depth < findings.n_blocks:
        found.append(f"go deeper: search.schedule ends at depth {last.depth}, and {findings.backbone} has {findings.n_blocks} blocks")
    elif findings.backbone in NEXT_BACKBONE:
        found.append(f"a deeper backbone: model.backbone {NEXT_BACKBONE[findings.backbone]}")
    if config.model.width < 1:
        found.append(f"a wider backbone: model.width {config.model.width:g}")
    if longer is not None and not findings.is_pruned:
        found.append(f"train longer: {longer}")
    if longer is None and any(one.stopped == "max_epochs" for one in findings.depths):
        found.append(f"train longer: a curve still rose when growth.max_epochs {config.growth.max_epochs} ended it")
    reached = best.accuracy if config.search.accept == "point" else best.interval[0]
    kind = "" if config.search.accept == "point" else "lower bound "
    found.append(f"ask for less: search.target {findings.target:.2%}; the {kind}best on val is {reached:.2%}")
    if (1 - findings.target) * last.n_val < 1:
        found.append(f"a larger val split (data.val_fraction): on {last.n_val} images this target allows no mistake")
    else:
        found.append("more or more varied training images: data.max_images, the augment section")
    return found
