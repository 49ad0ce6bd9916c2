"""What was timed on a quiet machine is timed once; what was timed on a busy one makes way for a better measurement."""

import json
from pathlib import Path
from typing import Any

import pytest

from laws.search_data import small_config
from laws.stage_runs import Stages, read


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Search one depth alone, to a model that is certified and timed."""
    stages = Stages(
        small_config(search={"mode": "climb", "schedule": [1], "looks": 0}, climb={"epochs": 2}), tmp_path_factory.mktemp("latency")
    )
    stages.search()
    stages.truncate()
    stages.evaluate()
    return stages


def again(stages: Stages, **changes: Any) -> tuple[bytes, bytes]:
    """Change the record of the latency, evaluate once more, and return the record before and after."""
    path: Path = stages.folder / "metrics/latency.json"
    path.write_text(json.dumps(read(path) | changes))
    before = path.read_bytes()
    stages.evaluate()
    return before, path.read_bytes()


def test_the_record_says_how_it_was_measured(evaluated: Stages) -> None:
    """Passes, spread, whether the machine was busy, and the threads; what is saved follows from the two times."""
    record = read(evaluated.folder / "metrics/latency.json")
    assert record["passes"] >= 3
    assert record["spread"] >= 0
    assert isinstance(record["busy"], bool)
    assert record["threads"] == 1
    for end in ("", "_batch128"):
        assert record[f"latency_saved{end}"] == 1 - record[f"latency_ms{end}"] / record[f"latency_ms_full{end}"]


def test_a_quiet_measurement_stands(evaluated: Stages) -> None:
    """The pipeline repeats to the byte."""
    before, after = again(evaluated, busy=False, latency_ms=99.0)
    assert after == before


@pytest.mark.parametrize("changes", [{"busy": True, "spread": 1e9}, {"busy": None}, {"threads": 7, "busy": False}])
def test_another_measurement_is_taken_anew(evaluated: Stages, changes: dict[str, Any]) -> None:
    """Of a busy machine, of nobody knows what kind of machine, of another number of threads."""
    _, after = again(evaluated, latency_ms=99.0, **changes)
    assert json.loads(after)["latency_ms"] < 99
