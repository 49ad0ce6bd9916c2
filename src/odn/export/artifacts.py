"""What exporting a network leaves in files, as types: each artifact with its certificate, and what was refused; no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from odn.export.names import FILES, NETWORK, RECORD, RUNTIMES
from odn.files import sha256_of
from odn.records import Amount, Fraction, Milliseconds, Positive, Record, Sha256, damaged, read_record

FormatName = Literal["onnx", "onnx-int8", "torch", "executorch", "executorch-int8"]


@dataclass(frozen=True, kw_only=True)
class Certificate(Record):
    """Hold an accuracy on test with its Wilson interval."""

    accuracy: Fraction
    low: Fraction
    high: Fraction
    n: Positive


@dataclass(frozen=True, kw_only=True)
class Artifact(Record):
    """Hold one file and what it does, in its own runtime."""

    format: FormatName
    runtime: str
    file: str
    sha256: Sha256
    bytes: Positive
    val_accuracy: Fraction
    logit_difference: Amount  # from the network's, the largest on val
    accuracy: Fraction  # on test
    low: Fraction
    high: Fraction
    n: Positive
    mcnemar_p: Fraction  # that it errs as often as the network in torch, float32
    weight_bits: Literal[7, 8] | None = None  # of a file of 8 bits
    float_layers: tuple[str, ...] = ()  # that are not quantised there

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if (self.file, self.runtime) != (FILES[self.format], RUNTIMES[self.format]):
            raise ValueError(f"file, runtime: {self.file}, {self.runtime} are not those of {self.format}")
        return self


@dataclass(frozen=True, kw_only=True)
class Refused(Record):
    """Say why a format that was asked for is not there."""

    format: FormatName
    reason: str


@dataclass(frozen=True, kw_only=True)
class Exported(Record):
    """Hold what became of a network: the content of export.json."""

    format_version: Literal["1"]
    source: str
    model_sha256: Sha256
    data_sha256: dict[str, Sha256]
    max_drop: Fraction
    network_val_accuracy: Fraction
    network: Certificate  # of the network itself, in torch, float32
    artifacts: tuple[Artifact, ...]
    refused: tuple[Refused, ...]

    def numbers(self) -> dict[str, dict[str, Any]]:
        """Return the numbers of each format by name, for whoever compares runs."""
        network = {"val_accuracy": self.network_val_accuracy, **_on_test(self.network)}
        formats: dict[str, dict[str, Any]] = {
            one.format: {"bytes": one.bytes, "val_accuracy": one.val_accuracy, **_on_test(one), "mcnemar_p": one.mcnemar_p}
            for one in self.artifacts
        }
        return {NETWORK: network, **formats}


def _on_test(one: Certificate | Artifact) -> dict[str, float]:
    return {"test_accuracy": one.accuracy, "test_accuracy_low": one.low, "test_accuracy_high": one.high}


def read_exported(folder: Path) -> Exported:
    """Read what was exported into a folder, and hold each file to its digest.

    Raises:
        MissingInputError: nothing was exported there, or a file is missing.
        DataError: the record or a file is damaged.
    """
    path = folder / RECORD
    exported = read_record(Exported, path, made_by="export")
    for one in exported.artifacts:
        file = folder / one.file
        if not file.is_file():
            raise damaged(path, f"it lists {one.file}, which is not there", made_by="export")
        if sha256_of(file) != one.sha256:
            raise damaged(file, f"its sha256 is not the one that {RECORD} lists", made_by="export")
    return exported


@dataclass(frozen=True, kw_only=True)
class Speed(Record):
    """Hold what one row takes: milliseconds for one image and for a batch, median and 95th percentile, and memory."""

    ms: Milliseconds
    p95_ms: Milliseconds
    ms_batch128: Milliseconds
    p95_ms_batch128: Milliseconds
    peak_bytes: Positive  # resident, of a process that does nothing but load it and classify an image


@dataclass(frozen=True, kw_only=True)
class ExportLatency(Record):
    """Hold what was measured of each artifact beside the network in torch, and on what: the content of metrics/export_latency.json."""

    machine: str
    threads: Positive
    torch: str
    onnxruntime: str
    image: tuple[Positive, Positive, Positive]  # (C, H, W)
    files: dict[str, Sha256]
    speeds: dict[str, Speed]
    passes: Positive
    spread: Amount
    busy: bool
    executorch: str | None = None  # where it runs one of the files

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if set(self.files) != set(self.speeds):
            raise ValueError(f"speeds: expected those of {', '.join(self.files)}; got {', '.join(self.speeds)}")
        return self
