"""Read what the model was exported as, beside the network itself, as rows for the terminal, the page and Markdown; no torch."""

from dataclasses import dataclass
from pathlib import Path

from odn.errors import MissingInputError
from odn.export.artifacts import Artifact, Certificate, Exported, ExportLatency, Speed, read_exported
from odn.export.names import NETWORK, RECORD
from odn.records import read_record
from odn.report.findings import Interval
from odn.report.words import milliseconds, share, short, span

TITLES = {
    NETWORK: "torch, float32",
    "onnx": "ONNX, float32",
    "onnx-int8": "ONNX, 8 bits",
    "torch": "torch's own file",
    "executorch": "ExecuTorch, float32",
    "executorch-int8": "ExecuTorch, 8 bits",
}
PAIRS = (("onnx", "onnx-int8"), ("executorch", "executorch-int8"))  # in float32, and in 8 bits
HEAD = ("file", "bytes", "test", "interval", "McNemar p", "ms", "p95 ms", "ms, 128", "memory")
BUSY = "The machine was busy while the files were timed: 'dvc repro -sf export' measures again."
OVERFLOWS = (
    "Weights of 7 bits cost too much accuracy, so they have 8: x86 processors without VNNI (most before 2019) may overflow and compute "
    "something else; ARM and newer x86 do not."
)
BINDINGS = (
    "An ExecuTorch file takes one image: 128 are as many calls. Its memory is that of bindings for Python, which load torch; the runtime "
    "of a device does not."
)
SLOWER = 1.02  # times the other: less is no difference on a machine that does other things too


@dataclass(frozen=True, kw_only=True)
class Row:
    """Hold the network itself, or a file of it: what it is, what it does on test, what it takes."""

    name: str
    file: str  # empty for the network itself
    size_bytes: int | None
    accuracy: float
    interval: Interval
    p: float | None  # McNemar's, against the network
    speed: Speed
    weight_bits: int | None = None
    float_layers: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Name it for a person."""
        return TITLES[self.name]

    def cells(self) -> tuple[str, ...]:
        """Return what a table says of it, under `HEAD`."""
        speed = self.speed
        return (
            self.file or self.title,
            f"{self.size_bytes:,}" if self.size_bytes is not None else "",
            f"{self.accuracy:.2%}",
            span(self.interval),
            "" if self.p is None else "< 0.0001" if self.p < 0.0001 else f"{self.p:.4f}",
            *(fine(value) for value in (speed.ms, speed.p95_ms, speed.ms_batch128)),
            f"{short(speed.peak_bytes)}B",
        )


@dataclass(frozen=True, kw_only=True)
class Exports:
    """Hold all rows, the network first, and what is to be said of them."""

    rows: tuple[Row, ...]
    refused: tuple[tuple[str, str], ...]  # format, reason
    n_test: int
    machine: str
    threads: int
    runtimes: str
    busy: bool

    def row(self, name: str) -> Row | None:
        """Return the row of a format, if there is one."""
        return next((one for one in self.rows if one.name == name), None)

    def notes(self) -> list[str]:
        """Say what a table does not: what 8 bits bought, which layers they spared, what was refused, and how it was measured."""
        said = []
        for whole, eight in ((self.row(one), self.row(other)) for one, other in PAIRS):
            if whole is not None and eight is not None:
                said.append(_bought(whole, eight))
            if eight is not None and eight.weight_bits == 8 and eight.name == "onnx-int8":
                said.append(OVERFLOWS)
            if eight is not None and eight.float_layers:
                said.append(f"Layers that 8 bits would hurt are in float32 in {eight.file}: {', '.join(eight.float_layers)}.")
        said += [f"{TITLES[name]} is not there: {reason}." for name, reason in self.refused]
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        said.append(
            f"Times are medians on {self.machine}, {threads}, {self.runtimes}; memory is the peak of a process that loads the file and "
            "classifies one image."
        )
        if any(row.name.startswith("executorch") for row in self.rows):
            said.append(BINDINGS)
        return [*said, BUSY] if self.busy else said


def _bought(whole: Row, eight: Row) -> str:
    assert whole.size_bytes is not None
    assert eight.size_bytes is not None
    where = "" if whole.name == "onnx" else " in ExecuTorch"
    smaller = f"8 bits{where} take {share(eight.size_bytes / whole.size_bytes)} of the bytes"
    before, after = whole.speed.ms, eight.speed.ms
    if after > before * SLOWER:
        return f"{smaller}, and are no faster here: {fine(after)} ms an image, {fine(before)} in float32. Take them for the bytes alone."
    if before > after * SLOWER:
        return f"{smaller} and {share(after / before)} of the time an image."
    return f"{smaller}, and as much time an image."


def in_words(exports: Exports) -> str:
    """Say what the figure shows, for whoever cannot see it."""
    said = []
    for row in exports.rows:
        size = f"{row.size_bytes:,} bytes, " if row.size_bytes is not None else ""
        said.append(f"{row.title}: {row.accuracy:.2%}, {size}{fine(row.speed.ms)} ms an image")
    return f"Accuracy on test by bytes and by milliseconds. {'; '.join(said)}."


def fine(ms: float) -> str:
    """Write a time to about three digits, also below a hundredth of a millisecond."""
    return milliseconds(ms) if ms >= 1 else f"{ms:.3f}"


def read_exports(exported: Path, *, latency: Path, weights_sha256: str) -> Exports | None:
    """Read what a model was exported as; None where it was not yet, or where no format was asked for.

    Raises:
        MissingInputError: the files are of another model, or are not measured.
        DataError: a record or a file is damaged.
    """
    if not (exported / RECORD).exists():
        return None
    found = read_exported(exported)
    if found.model_sha256 != weights_sha256:
        raise MissingInputError(f"{exported}/ holds another model than the one that is kept; run 'dvc repro export' first")
    measured = read_record(ExportLatency, latency, made_by="export")
    files = {NETWORK: found.model_sha256} | {one.format: one.sha256 for one in found.artifacts}
    if measured.files != files:
        raise MissingInputError(f"{latency} is of other files than those in {exported}/; run 'dvc repro -f export' first")
    return exports_of(found, measured) if found.artifacts or found.refused else None


def exports_of(found: Exported, measured: ExportLatency) -> Exports:
    """Join what files do with what they take."""
    rows = [_row(NETWORK, found.network, measured)]
    rows += [_row(one.format, one, measured) for one in found.artifacts]
    return Exports(
        rows=tuple(rows),
        refused=tuple((one.format, one.reason) for one in found.refused),
        n_test=found.network.n,
        machine=measured.machine,
        threads=measured.threads,
        runtimes=_runtimes(measured),
        busy=measured.busy,
    )


def _runtimes(measured: ExportLatency) -> str:
    executorch = f", ExecuTorch {measured.executorch}" if measured.executorch is not None else ""
    return f"torch {measured.torch.partition('+')[0]}, ONNX Runtime {measured.onnxruntime}{executorch}"


def _row(name: str, one: Certificate | Artifact, measured: ExportLatency) -> Row:
    file = one if isinstance(one, Artifact) else None
    return Row(
        name=name,
        file=file.file if file is not None else "",
        size_bytes=file.bytes if file is not None else None,
        accuracy=one.accuracy,
        interval=(one.low, one.high),
        p=file.mcnemar_p if file is not None else None,
        speed=measured.speeds[name],
        weight_bits=file.weight_bits if file is not None else None,
        float_layers=file.float_layers if file is not None else (),
    )
