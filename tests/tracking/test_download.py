"""A registered model comes back with the bytes that were certified, or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from odn.errors import TrackingError
from odn.files import MANIFEST, sha256_of
from odn.stages import register
from odn.tracking.connection import connect
from odn.tracking.download import RUN_TAG, download_model
from odn.tracking.place import tracking_place


def registered(made: Any, *, run: str) -> Any:
    """Run the stage on a made-up search, as a Kubeflow run of that id."""
    records = {"registered_weights": made.root / "work/registered.json", "registration": made.root / ".odn/registration.json"}
    tags = {"odn.kfp.run": run, f"{RUN_TAG}{run}": "true", "mlflow.source.git.commit": f"commit of {run}"}
    return register.run(made.config, **made.paths(), **records, tags=tags)


@pytest.mark.slow
def test_a_model_comes_back_by_alias_by_version_and_by_run(store: Path, make_search: Callable[..., Any], tmp_path: Path) -> None:
    """Each way gives the folder model/ of the search, byte for byte; a run that registered the same again is found too."""
    made = make_search(store)
    registered(made, run="1a-2b")
    registered(made, run="3c-4d")
    client = connect(tracking_place()).client
    version = client.get_model_version("odn-digits", "1")
    for told in (version.tags, client.get_run(str(version.run_id)).data.tags):  # of where it came from first
        assert (told["odn.kfp.run"], told["mlflow.source.git.commit"]) == ("1a-2b", "commit of 1a-2b")
    original = {path.name: path.read_bytes() for path in (store / "model").iterdir()}
    for reference in ("models:/odn-digits@candidate", "models:/odn-digits/1", "1a-2b", "3c-4d"):
        got = download_model(reference, folder=tmp_path / "models")
        assert (got.name, got.version) == ("odn-digits", "1")
        assert {path.name: path.read_bytes() for path in got.folder.iterdir() if path.name != MANIFEST} == original
        assert got.weights_sha256 == sha256_of(store / "model/weights.safetensors")


@pytest.mark.slow
def test_what_is_not_there_is_said_and_leaves_nothing(store: Path, make_search: Callable[..., Any], tmp_path: Path) -> None:
    """An unknown alias, version, model and run, and a reference of no known form."""
    registered(make_search(store), run="1a-2b")
    cases = {
        "models:/odn-digits@best": "has no models:/odn-digits@best",
        "models:/odn-digits/9": "has no models:/odn-digits/9",
        "models:/cats@champion": "has no models:/cats@champion",
        "5e-6f": "knows no model that run 5e-6f registered",
        "models:/odn-digits": "expected a run's id, models:/NAME@ALIAS",
    }
    for reference, message in cases.items():
        with pytest.raises(TrackingError, match=message):
            download_model(reference, folder=tmp_path / "models")
    assert not (tmp_path / "models").exists() or not list((tmp_path / "models").iterdir())


@pytest.mark.slow
def test_other_weights_than_were_registered_are_refused(store: Path, make_search: Callable[..., Any], tmp_path: Path) -> None:
    """A file that was changed in the artifact store is noticed by its digest, and what was there before stays."""
    registered(make_search(store), run="1a-2b")
    kept = download_model("models:/odn-digits/1", folder=tmp_path).folder / "weights.safetensors"
    before = kept.read_bytes()
    (changed,) = (path for path in store.rglob("weights.safetensors") if "mlartifacts" in path.parts)
    changed.write_bytes(b"other weights")
    with pytest.raises(TrackingError, match="are not those that were registered"):
        download_model("models:/odn-digits/1", folder=tmp_path)
    assert kept.read_bytes() == before
