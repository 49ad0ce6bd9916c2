"""What one run of a benchmark gives, and the file that many of them are kept in."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from odn.files import write_text

FOLDER = Path("benchmarks/results")


@dataclass(frozen=True, kw_only=True)
class Result:
    """Hold what one arm found on one seed."""

    arm: str
    seed: int
    depth: int
    verdict: str
    val_accuracy: float
    test_accuracy: float
    n_test: int
    n_params: int
    size_bytes: int
    macs: int  # of one image
    full_network_epochs: float  # all training, search included
    seconds: float
    by_depth: dict[str, float] = field(default_factory=dict)  # judged val accuracy of each depth that was trained
    latency_ms: float = 0.0  # of one image, median; 0 where it was not measured
    n_val: int = 0  # images of val; 0 where it is not known
    note: str = ""


@dataclass(frozen=True)
class ResultFile:
    """Hold the results of a benchmark with what they were made under."""

    about: dict[str, Any]
    results: tuple[Result, ...]

    def of(self, arm: str) -> list[Result]:
        """List the results of an arm, by seed."""
        return sorted((one for one in self.results if one.arm == arm), key=lambda one: one.seed)

    def arms(self) -> list[str]:
        """List the arms in the order in which they first ran."""
        return list(dict.fromkeys(one.arm for one in self.results))


def read_results(path: Path) -> ResultFile | None:
    """Read a file of results; None where there is none yet."""
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    return ResultFile(content["about"], tuple(Result(**one) for one in content["results"]))


def write_results(path: Path, about: dict[str, Any], results: Sequence[Result]) -> None:
    """Write all results anew, atomically: what has run is never lost to what comes after it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"about": about, "results": [asdict(one) for one in results]}, indent=1) + "\n")
