"""What certifying a model leaves in files, as types: what it does on test, what it saves, how fast it is; no torch."""

from dataclasses import dataclass
from typing import Self

from pydantic import model_validator

from odn.models.architecture import Architecture
from odn.records import Amount, Count, Fraction, Milliseconds, Positive, Record, Saved

OTHERS = ("shallower", "full_depth")  # depths that the kept one is compared with on test


@dataclass(frozen=True, kw_only=True)
class PredictionRow(Record):
    """Hold a line of predictions.csv: the model's prediction of a test image."""

    index: Count
    label: Count
    predicted: Count
    confidence: Fraction


@dataclass(frozen=True, kw_only=True)
class Evaluation(Record):
    """Hold what the model does on test, and what it costs beside the whole backbone: the content of metrics/evaluation.json."""

    test_accuracy: Fraction
    test_accuracy_low: Fraction
    test_accuracy_high: Fraction
    n_test: Positive
    test_balanced_accuracy: Fraction | None = None  # where classes of test are imbalanced
    n_params: Positive
    n_params_full: Positive
    params_saved: Saved
    size_bytes: Positive
    size_bytes_full: Positive
    bytes_saved: Saved
    macs: Positive
    macs_full: Positive
    macs_saved: Saved
    shallower_depth: Positive | None = None
    test_accuracy_shallower: Fraction | None = None
    mcnemar_p_shallower: Fraction | None = None
    full_depth_depth: Positive | None = None
    test_accuracy_full_depth: Fraction | None = None
    mcnemar_p_full_depth: Fraction | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        for name in OTHERS:
            trio = [getattr(self, one) for one in (f"{name}_depth", f"test_accuracy_{name}", f"mcnemar_p_{name}")]
            if trio.count(None) not in {0, len(trio)}:
                raise ValueError(f"{name}_depth, test_accuracy_{name} and mcnemar_p_{name} stand together")
        return self


@dataclass(frozen=True, kw_only=True)
class LatencyRecord(Record):
    """Hold what was measured of the kept and of the whole network, and on what: the content of metrics/latency.json."""

    machine: str
    device: str
    threads: Positive
    torch: str
    precision: str
    height: Positive
    width: Positive
    architecture: Architecture
    latency_ms: Milliseconds
    latency_ms_full: Milliseconds
    latency_saved: Saved
    latency_ms_batch128: Milliseconds
    latency_ms_full_batch128: Milliseconds
    latency_saved_batch128: Saved
    passes: Positive  # of each network, in turn
    spread: Amount  # of the least times
    busy: bool  # the machine did something else meanwhile
