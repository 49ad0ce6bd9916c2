"""Write the short summary of a search that ends a run: plain lines, with a little color on a terminal; starts fast."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odn.report.exports import BUSY as EXPORT_BUSY
from odn.report.exports import HEAD, Exports
from odn.report.findings import Depth, Findings
from odn.report.words import BUSY, PHASES, VERDICTS, amount, balanced, headline, kept_because, kept_blocks, leaks, remedies, saving, span
from odn.sanitize import sanitized

WIDTH = 100  # columns
MOST_DEPTHS = 9  # rows: of a longer search the first are drawn together
INDENT = " " * 10
CODES = {"": "", "bold": "\x1b[1m", "dim": "\x1b[2m", "good": "\x1b[1;32m", "bad": "\x1b[1;33m"}
RESET = "\x1b[0m"


@dataclass(frozen=True)
class Line:
    """Hold one line and how it is shown on a terminal."""

    text: str = ""
    style: str = ""


@dataclass(frozen=True)
class Summary:
    """Hold the summary of a search."""

    lines: tuple[Line, ...]

    def describe(self, *, color: bool = False) -> str:
        """Return the summary as text, with the terminal's codes for bold and color if asked."""
        shown = [(sanitized(line.text), line.style) for line in self.lines]
        return "\n".join(f"{CODES[style]}{text}{RESET}" if color and style else text for text, style in shown)


def summarize(
    findings: Findings,
    *,
    registration: Mapping[str, Any] | None,
    model: Path,
    report: Path | None,
    standing: str = "there",
    exports: Exports | None = None,
    exported: Path = Path("export"),
) -> Summary:
    """Tell what a search found, what it cost, where things are and what to try next; `None`: not there yet.

    `standing` says whether the registered version is there still, gone, or not asked for.
    """
    mood = "good" if findings.is_reached else "bad"
    lines = [Line(headline(findings), mood), Line()]
    lines += _depth_lines(findings)
    lines += [
        Line(),
        *_entry("Verdict", f"{VERDICTS[findings.verdict]}: {kept_because(findings)}", style="" if findings.is_reached else mood),
    ]
    for look in findings.refinements:
        lines += _entry("Refined", f"between rungs: {look.reason}.")
    lines += _entry(
        "Test",
        f"{findings.test_accuracy:.2%} of {findings.n_test:,} images are right, {_interval_name(findings)} {span(findings.test_interval)}"
        f"{balanced(findings.balanced_accuracy)}",
    )
    for said in leaks(findings):
        lines += _entry("Data", said, style="bad")
    lines += [Line(), *_saving_lines(findings), Line()]
    lines += _entry("Latency", BUSY, style="bad") if findings.busy else []
    lines += [*_export_lines(exports, folder=exported), Line()] if exports is not None else []
    lines += _entry("Search", _cost_words(findings))
    lines += _entry("Model", f"{model}/{_registered(findings, registration, standing)}")
    lines += _entry("Report", f"{report}, for a browser" if report is not None else "not written yet: odn report")
    lines += _next_lines(findings, registration)
    return Summary(tuple(lines))


def _entry(name: str, text: str, *, style: str = "") -> list[Line]:
    wrapped = textwrap.wrap(text, WIDTH - len(INDENT), break_long_words=False, break_on_hyphens=False)
    return [Line((f"{name:<{len(INDENT)}}" if not number else INDENT) + part, style) for number, part in enumerate(wrapped)]


def _table(rows: Sequence[Sequence[str]], *, left: tuple[int, ...]) -> list[str]:
    """Align columns to the right, those in `left` to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _interval_name(findings: Findings) -> str:
    return f"{findings.config.search.confidence:.0%} interval"


def _depth_lines(findings: Findings) -> Iterator[Line]:
    folded = findings.depths[: 1 - MOST_DEPTHS] if len(findings.depths) > MOST_DEPTHS else ()
    head, row = (_RUNG_HEAD, _rung_row) if findings.config.spreads else (_DEPTH_HEAD, _depth_row)
    rows: list[tuple[str, ...]] = [(findings.unit, *head, _interval_name(findings), "verdict")]
    if folded:
        least, empty = f"{min(one.ema_accuracy for one in folded):.2%}+", [""] * len(head)
        empty[2 if findings.config.spreads else 0] = least
        rows.append((f"{folded[0].depth}-{folded[-1].depth}", *empty, "", f"{len(folded)} {findings.unit}s: expand"))
    rows += [row(one, findings) for one in findings.depths[len(folded) :]]
    for number, text in enumerate(_table(rows, left=(len(rows[0]) - 1,))):
        one = findings.depths[number - 1 - bool(folded) + len(folded)] if number > bool(folded) else None
        yield Line(text, "dim" if number == 0 else "bold" if one is not None and _is_kept(one, findings) else "")


_DEPTH_HEAD = ("val, EMA", "val, annealed")
_RUNG_HEAD = ("bytes", "MACs", "val")


def _is_kept(one: Depth, findings: Findings) -> bool:
    return one.depth == findings.depth and not findings.is_refined


def _depth_row(one: Depth, findings: Findings) -> tuple[str, ...]:
    return (
        str(one.depth),
        f"{one.ema_accuracy:.2%}",
        f"{one.annealed_accuracy:.2%}" if one.annealed_accuracy is not None else "-",
        span(one.interval),
        VERDICTS[one.verdict] + ("  <- kept" if _is_kept(one, findings) else ""),
    )


def _rung_row(one: Depth, findings: Findings) -> tuple[str, ...]:
    kept = "  <- kept" if _is_kept(one, findings) else ""
    return (str(one.depth), f"{one.size_bytes:,}", f"{one.macs:,}", f"{one.accuracy:.2%}", span(one.interval), VERDICTS[one.verdict] + kept)


def _saving_lines(findings: Findings) -> Iterator[Line]:
    rows = [("", kept_blocks(findings), f"all {findings.n_blocks}", "saved")]
    rows += [(one.name, amount(one, one.kept), amount(one, one.full), saving(one.saved)) for one in findings.savings]
    for number, text in enumerate(_table(rows, left=(0,))):
        yield Line(text, "dim" if number == 0 else "")


def _export_lines(exports: Exports, *, folder: Path) -> Iterator[Line]:
    yield from _entry("Export", f"{folder}/: each file was run once on the {exports.n_test:,} test images, by the runtime that it is for")
    head = ("", *HEAD[1:])
    for number, text in enumerate(_table([head, *(row.cells() for row in exports.rows)], left=(0,))):
        yield Line(text, "dim" if number == 0 else "")
    for note in exports.notes():
        yield from _entry("", note, style="bad" if note == EXPORT_BUSY else "")


def _cost_words(findings: Findings) -> str:
    parts = ", ".join(f"{PHASES[name]} {cost:.2f}" for name, cost in findings.by_phase().items())
    return f"cost {findings.full_network_epochs:.2f} full-network epochs (of all {findings.n_blocks} blocks): {parts}"


def _registered(findings: Findings, registration: Mapping[str, Any] | None, standing: str) -> str:
    if registration is None:
        return f"; not in the registry as {findings.config.registry.name} yet: odn register"
    version, place = f"{registration['name']} version {registration['version']}", registration["tracking_uri"]
    if standing == "gone":
        return f"; it was registered as {version} at {place}, which does not hold it any more: odn register"
    aliases = " and ".join(registration["aliases"]) or "without an alias"
    when = " (as it was registered; not asked again)" if standing == "unasked" else ""
    why = "" if registration["champion"] or not findings.is_reached else f"; not champion: {registration['reason']}"
    return f", in the registry {version}, {aliases}, at {place}{when}{why}"


def _next_lines(findings: Findings, registration: Mapping[str, Any] | None) -> Iterator[Line]:
    if not findings.is_reached:
        yield from _entry("Next", "change params.yaml, then make repro:", style="bold")
        for remedy in remedies(findings):
            yield from _entry("", f"- {remedy}")
        return
    uri = str(registration["tracking_uri"]) if registration is not None else ""
    yield Line(
        f"{'Next':<{len(INDENT)}}{f'open {uri}' if uri.startswith('http') else 'make ui'}: browse the runs, the curves and the registry"
    )
    if findings.is_pruned:
        yield Line(f"{INDENT}lower prune.budget in params.yaml, then make repro: the training is done again, and cuts more")
    elif findings.config.search.budget:
        limits = " or ".join(f"search.max_{metric}" for metric in findings.config.search.budget)
        yield Line(f"{INDENT}change {limits} in params.yaml, then make repro: another network is trained")
    elif findings.depth != findings.config.search.schedule[-1]:
        yield Line(f"{INDENT}raise search.target in params.yaml, then make repro: only {findings.unit}s beyond are trained")
