"""Write the page: findings in words, tables and pictures, as one self-contained file whose bytes depend on its inputs alone."""

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odn import __version__
from odn.data.dataset import Manifest
from odn.modes import prune_phases
from odn.report.exports import HEAD, Exports
from odn.report.findings import Depth, Findings, Refinement
from odn.report.mistakes import SMALL_SIDE, Mistakes
from odn.report.words import (
    BUSY,
    PHASES,
    VERDICTS,
    amount,
    backbone_of,
    balanced,
    headline,
    kept_because,
    kept_blocks,
    leaks,
    milliseconds,
    narrow_span,
    range_of,
    remedies,
    saving,
    share,
    short,
    span,
    subline,
)
from odn.sanitize import escaped

STRETCHED = "The scale stretches towards 100%: each halving of the error is the same step up."
TEMPLATE = Path(__file__).parent / "page.html"


@dataclass(frozen=True)
class Picture:
    """Hold a figure on a light and on a dark ground, and what it shows in words."""

    light: bytes
    dark: bytes
    alt: str

    def shown(self) -> dict[str, Any]:
        """Return what the template needs; the figure is drawn at twice the size that it is shown at."""
        width, height = struct.unpack(">II", self.light[16:24])  # of the PNG's header
        return {"light": _data_uri(self.light), "dark": _data_uri(self.dark), "width": width // 2, "height": height // 2, "alt": self.alt}


def write_page(
    findings: Findings,
    *,
    manifest: Manifest,
    mistakes: Mistakes,
    pictures: Mapping[str, Picture],
    weights_sha256: str,
    exports: Exports | None = None,
) -> str:
    """Return the page as HTML; every word that a user chose (class names, paths) is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, finalize=_in_a_line, undefined=StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    content = _top(findings, manifest) | _tables(findings) | _mistakes(mistakes) | _provenance(findings, manifest)
    return template.render(
        **content,
        pictures={name: picture.shown() for name, picture in pictures.items()},
        captions=_captions(findings, mistakes),
        exports=_exports(exports),
        notes=_notes(findings),
        weights_sha256=weights_sha256,
    )


def _in_a_line(value: Any) -> Any:
    return escaped(value) if type(value) is str else value  # and no Markup, which is of ours


def alternatives(findings: Findings) -> dict[str, str]:
    """Say in words what each figure shows, for whoever cannot see it."""
    unit = findings.unit
    accuracies = "; ".join(f"{unit} {one.depth}: {one.accuracy:.2%}, {VERDICTS[one.verdict]}" for one in findings.depths)
    sizes = "; ".join(f"{unit} {one.depth}: {short(one.size_bytes)}B, {one.accuracy:.2%}" for one in findings.depths)
    costs = "; ".join(f"{unit} {entry.depth} {PHASES[entry.phase]}: {entry.full_network_epochs:.2f}" for entry in findings.ledger)
    return {
        "depths": f"Accuracy on val by {unit}, target {findings.target:.2%}. {accuracies}.",
        "cost": f"Accuracy on val by size of the weights. {sizes}. All {findings.n_blocks} blocks: {short(findings.savings[1].full)}B.",
        "ledger": f"Full-network epochs by {unit} and phase. {costs}.",
        "curves": f"Accuracy after each of {sum(entry.epochs for entry in findings.ledger)} epochs, phase by phase.",
    }


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _confidence(findings: Findings) -> str:
    return f"{findings.config.search.confidence:.0%}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _top(findings: Findings, manifest: Manifest) -> dict[str, Any]:
    parameters, size, macs, latency = findings.savings[:4]
    of_all, below = f"of all {findings.n_blocks} blocks", "below " if findings.is_refined else ""
    keys = [
        (
            "Accuracy on test",
            f"{findings.test_accuracy:.2%}",
            f"{span(findings.test_interval)} ({_confidence(findings)} interval){balanced(findings.balanced_accuracy)}",
        ),
        (
            f"{_sentence(findings.unit)} kept",
            f"{below}{findings.depth} of {findings.n_units}{', channels cut' if findings.is_pruned else ''}",
            f"{range_of(findings)} trained",
        ),
        ("Parameters", short(parameters.kept).strip(), f"{share(parameters.kept / parameters.full)} {of_all}"),
        ("Size", f"{short(size.kept)}B", f"{share(size.kept / size.full)} {of_all}"),
        ("MACs an image", short(macs.kept).strip(), f"{share(macs.kept / macs.full)} {of_all}"),
        ("Time an image", f"{milliseconds(latency.kept)} ms", f"{milliseconds(latency.full)} ms with all {findings.n_blocks} blocks"),
    ]
    shape = f"{manifest.channels} × {manifest.height} × {manifest.width}"
    return {
        "title": f"odn: {headline(findings)}",
        "kicker": f"odn report · {backbone_of(findings)} on {findings.data} · {len(findings.classes)} classes, images of {shape}",
        "headline": headline(findings),
        "lead": subline(findings) + ".",
        "is_reached": findings.is_reached,
        "verdict_title": "Target reached" if findings.is_reached else "Search exhausted: the target is not reached",
        "verdict": _sentence(kept_because(findings)),
        "remedies": [] if findings.is_reached else remedies(findings),
        "keys": keys,
    }


def _tables(findings: Findings) -> dict[str, Any]:
    interval = f"{_confidence(findings)} interval"
    total = ("all", "", f"{sum(entry.epochs for entry in findings.ledger)}", f"{findings.full_network_epochs:.2f}")
    return {
        "kept_title": kept_blocks(findings),
        "whole_title": f"all {findings.n_blocks}",
        "savings": [(one.name, amount(one, one.kept), amount(one, one.full), saving(one.saved)) for one in findings.savings],
        "spreads": findings.config.spreads,
        "unit": findings.unit,
        "depth_heads": [
            findings.unit,
            "verdict",
            *(("bytes", "MACs", "val") if findings.config.spreads else ("EMA accuracy", "annealed")),
            interval,
        ],
        "depth_rows": [(one.depth, VERDICTS[one.verdict], *_reached(one, findings), narrow_span(one.interval)) for one in findings.depths]
        + [
            (f"below {findings.depth}", "target reached" if one.reached else "missed", *_measured(one), narrow_span(one.interval))
            for one in findings.refinements
        ],
        "reasons": [
            (f"{_sentence(findings.unit)} {one.depth}, {VERDICTS[one.verdict]}", f"{_sentence(one.reason)}. Training ended: {one.why}.")
            for one in findings.depths
        ]
        + [(f"Below rung {findings.depth}, refinement", f"{_sentence(one.reason)}.") for one in findings.refinements],
        "kept_row": _kept_row(findings),
        "ledger": [
            *((entry.depth, PHASES[entry.phase], entry.epochs, f"{entry.full_network_epochs:.2f}") for entry in findings.ledger),
            total,
        ],
    }


def _kept_row(findings: Findings) -> int:
    reached = [number for number, one in enumerate(findings.refinements) if one.reached]
    return len(findings.depths) + reached[-1] if reached else findings.depths.index(findings.kept)


def _measured(one: Depth | Refinement) -> tuple[str, ...]:
    return f"{one.size_bytes:,}", f"{one.macs:,}", f"{one.accuracy:.2%}"


def _reached(one: Depth, findings: Findings) -> tuple[str, ...]:
    if findings.config.spreads:
        return _measured(one)
    return f"{one.ema_accuracy:.2%}", f"{one.annealed_accuracy:.2%}" if one.annealed_accuracy is not None else "–"


def _mistakes(mistakes: Mistakes) -> dict[str, Any]:
    shown = []
    for one in mistakes.shown:
        height, width = one.pixels.shape[:2]
        shown.append(
            {
                "src": _data_uri(one.png()),
                "width": width,
                "height": height,
                "is_small": max(height, width) <= SMALL_SIDE,
                "index": one.index,
            }
            | {"label": one.label, "predicted": one.predicted, "confidence": f"{one.confidence:.0%}"}
        )
    return {
        "mistakes": shown,
        "confusions": "; ".join(f"{true} taken for {predicted}, {count} times" for true, predicted, count in mistakes.confusions),
    }


def _captions(findings: Findings, mistakes: Mistakes) -> dict[str, str]:
    return {
        "depths": f"{_points(findings)} Bars are {_confidence(findings)} intervals. {_ending(findings)} {STRETCHED}",
        "cost": f"Further left is smaller, and each gridline is ten times the one before; higher is better. {_rungs(findings)}"
        "The dotted line is the whole backbone.",
        "ledger": f"One full-network epoch is one pass over the training images through all {findings.n_blocks} blocks; "
        "an epoch of a shallower network counts in proportion to its MACs.",
        "curves": "Lines with points are accuracy on val after each epoch, dotted ones on the augmented training images. "
        f"{_setting_off(findings)} {STRETCHED}",
        "mistakes": _wrong(findings, mistakes),
    }


def _rungs(findings: Findings) -> str:
    if not findings.config.spreads:
        return ""
    looks = " Diamonds are networks between rungs, tried after a rung was accepted." if findings.refinements else ""
    return f"Circles are rungs, each trained from fresh weights; bars are {_confidence(findings)} intervals. {_ending(findings)}{looks} "


def _points(findings: Findings) -> str:
    if findings.is_pruned:
        return "The point is of the network that pruning left, after its rate went to 0."
    if findings.config.mode.judges_as_trained:
        return f"Each {findings.unit} is judged as training left it."
    return "Hollow points are EMA accuracies during training; filled points are after a trial anneal, and only they can be accepted."


def _setting_off(findings: Findings) -> str:
    if not findings.is_pruned:
        if findings.config.mode.judges_as_trained:
            return "Points stand where val was looked at."
        return "The trial anneal and the finish both start where training ended."
    dense, gated, settle = prune_phases(findings.config.prune)
    without = f"The first {dense} epochs are of the network without gates"
    return f"{without}, the next {gated} of the gated one, the last {settle} of the one that was cut."


def _ending(findings: Findings) -> str:
    if findings.is_pruned:
        return f"It {'reaches' if findings.is_reached else 'misses'} the dashed target."
    if findings.config.mode.judges_as_trained:
        return (
            "The first point that reaches the dashed target ends the search." if findings.is_reached else "None reaches the dashed target."
        )
    if not findings.is_reached:
        any_annealed = any(one.annealed_accuracy is not None for one in findings.depths)
        return "None of them reaches the dashed target." if any_annealed else "For no depth was the target within reach of a trial anneal."
    if findings.config.search.accept == "point":
        return "The first filled point at or above the dashed target ends the search."
    return "The first filled point whose whole bar is at or above the dashed target ends the search."


def _wrong(findings: Findings, mistakes: Mistakes) -> str:
    if mistakes.n_wrong == 0:
        return f"Nothing: all {findings.n_test} test images are right."
    right = f"{findings.n_test - mistakes.n_wrong} of {findings.n_test} test images are right"
    if mistakes.n_wrong == len(mistakes.shown):
        return f"{right}; here is what it got wrong, the surest first."
    return f"{right}; of the {mistakes.n_wrong} others, here are the {len(mistakes.shown)} that it was surest of."


def _notes(findings: Findings) -> list[str]:
    confidence, first = _confidence(findings), findings.depths[0].depth
    return [
        f"Accuracy on test is measured once, on {findings.n_test} images, after everything was chosen. Its {confidence} interval is "
        f"{span(findings.test_interval)}: smaller differences mean little.",
        f"{'What is left was judged' if findings.is_pruned else 'The network was chosen'} on val ({findings.kept.n_val} images), "
        f"where the kept network reaches {findings.val_accuracy:.2%} "
        f"({span(findings.val_interval)}). What is chosen by val looks a little better on val than it is"
        f"{', and each refinement evaluated on it once more' if findings.refinements else ''}.",
        f"This is one run, with seed {findings.config.seed}; another seed may end at another {findings.unit}.",
        *(
            [f"{_sentence(findings.unit)}s below {first} are not in the schedule: a smaller network may be enough."]
            if first > 1 and not findings.is_pruned
            else []
        ),
        _whole_note(findings),
        *(
            f"On the same test images the network of {findings.unit} {one.depth} is right on {one.accuracy:.2%}. "
            "If both were equally good, "
            f"a difference as large would come by chance with p = {one.p:.2g} (McNemar's exact test)."
            for one in findings.comparisons
        ),
        "The ledger counts passes over training images, forward and backward. It leaves out measuring accuracies, re-estimating "
        "BatchNorm, evaluation on test, earlier searches, and trying other settings.",
        f"Latencies are the least of many passes on one machine ({findings.machine}, {_threads(findings)}) and differ elsewhere; "
        f"parameters, bytes and MACs are exact counts.{' ' + BUSY if findings.busy else ''}",
        *leaks(findings),
    ]


def _threads(findings: Findings) -> str:
    if findings.device != "cpu":
        return findings.device
    return "1 thread" if findings.threads == 1 else f"{findings.threads} threads"


def _whole_note(findings: Findings) -> str:
    if findings.is_pruned:
        return (
            f"Savings are against {backbone_of(findings)} with all {findings.n_blocks} blocks and all channels, which is not tested here. "
            f"What pruning began with, depth {findings.kept.pruned_from}, taught what is left of it in the same run."
        )
    if findings.is_whole:
        return "The kept network is the whole backbone: nothing is saved."
    whole = f"Savings are against {backbone_of(findings)} with all {findings.n_blocks} blocks"
    known = [one for one in findings.comparisons if one.depth == findings.n_units]
    if known:
        return f"{whole}, which was trained here too and is right on {known[0].accuracy:.2%} of test."
    unknown = "" if not findings.is_reached else "; that the target does not need it is shown"
    return f"{whole}, which was not trained here. Whether it would be more accurate is not known{unknown}."


def _exports(exports: Exports | None) -> dict[str, Any] | None:
    if exports is None:
        return None
    rows = [row.cells() for row in exports.rows]
    return {"title": f"Each file on the {exports.n_test:,} test images, once", "head": HEAD, "rows": rows, "notes": exports.notes()}


def _provenance(findings: Findings, manifest: Manifest) -> dict[str, Any]:
    import yaml
    from markupsafe import escape

    settings = yaml.safe_dump(findings.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return {
        "provenance": f"odn {__version__}, data {findings.source}, seed {findings.config.seed}; "
        f"weights of {findings.unit} {findings.depth} from its {PHASES[findings.weights_from]}. "
        "The git commit and the DVC versions of data and model are tags of the run in MLflow.",
        "splits": [(name, f"{manifest.counts[name]['total']:,}", findings.data_sha256[name]) for name in ("train", "val", "test")],
        "settings": escape("\n".join(map(escaped, settings.split("\n")))),
    }
