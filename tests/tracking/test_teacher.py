"""A registered model teaches: it is fetched from a real registry once, handed on in files, and refused where it is for other data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from laws.search_data import small_config
from laws.stage_runs import Stages, read
from odn.errors import DataError, TrackingError
from odn.files import write_json
from odn.models.stored_networks import load_network
from odn.stages import register

TEACHER = "models:/odn-digits/1"


def searched(folder: Path, **search: Any) -> Stages:
    """Train and judge two depths that the registered model teaches."""
    growth = {"min_epochs": 1, "max_epochs": 1}
    stages = Stages(small_config(search={"distill": TEACHER, "target": 0.999, "schedule": [1, 2], **search}, growth=growth), folder)
    stages.search()
    return stages


@pytest.fixture
def registered(store: Path, make_search: Callable[..., Any]) -> Any:
    """Register a made-up search's model, of digits 8 x 8, as version 1."""
    made = make_search(store)
    records = {"registered_weights": made.root / "work/registered.json", "registration": made.root / ".odn/registration.json"}
    register.run(made.config, **made.paths(), **records, tags={})
    return made


@pytest.mark.slow
def test_a_registered_model_teaches_every_depth(registered: Any, tmp_path: Path) -> None:
    """The first depth fetches it, the second has it from the first, and its name, weights and normalisation stand beside them."""
    stages = searched(tmp_path / "taught")
    first, second = (stages.depths / str(depth) / "teacher" for depth in (1, 2))
    assert [(path.name, path.read_bytes()) for path in sorted(first.iterdir())] == [
        (path.name, path.read_bytes()) for path in sorted(second.iterdir())
    ]
    assert (first / "weights.safetensors").read_bytes() == (registered.root / "model/weights.safetensors").read_bytes()
    assert (read(first / "teacher.json")["name"], read(first / "teacher.json")["mean"]) == (TEACHER, list(registered.manifest.mean))
    assert load_network(first).depth == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reference", "message"),
    [("models:/odn-digits/9", "has no models:/odn-digits/9"), ("models:/cats@champion", "has no models:/cats@champion")],
)
def test_a_teacher_that_is_not_there_is_named(registered: Any, tmp_path: Path, reference: str, message: str) -> None:
    """An unknown version and an unknown model; nothing half-trained is left."""
    with pytest.raises(TrackingError, match=f"^search.distill: MLflow at .* {message}"):
        searched(tmp_path / "taught", distill=reference)
    assert not (tmp_path / "taught/work/depths/1").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 28, "width": 28}, r"knows images \(C x H x W\) 1 x 28 x 28, and the data has 1 x 8 x 8"),
        ({"channels": 3}, r"knows images \(C x H x W\) 3 x 8 x 8, and the data has 1 x 8 x 8"),
        ({"classes": ["cat", "dog"]}, "knows classes cat, dog, and the data has 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
    ],
)
def test_a_teacher_of_other_data_is_refused(
    store: Path, make_search: Callable[..., Any], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """Both are named: what the teacher knows and what the data has."""
    made = make_search(store)
    card = json.loads((store / "model/card.json").read_text())
    write_json(store / "model/card.json", card | change)
    records = {"registered_weights": made.root / "work/registered.json", "registration": made.root / ".odn/registration.json"}
    register.run(made.config, **made.paths(), **records, tags={})
    with pytest.raises(DataError, match=message):
        searched(tmp_path / "taught")
