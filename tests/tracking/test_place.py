"""Where tracking goes, and what is never shown of it."""

import subprocess
import sys
import time

import pytest

from odn.config import make_config
from odn.tracking.identity import flat_params, search_id
from odn.tracking.place import Place, tracking_place, why_unreachable, without_secrets

SECRET = "postgresql+psycopg2://ann:pa%40ss@db.example:5432/mlflow?sslpassword=hush"


def test_the_default_is_a_sqlite_file_in_the_current_folder(store: object) -> None:
    """Without MLFLOW_TRACKING_URI everything stays in the folder: the store and its artifacts."""
    place = tracking_place()
    assert (place.uri, place.experiment) == ("sqlite:///mlflow.db", "odn")
    assert str(place.artifact_location).startswith("file:///")


def test_a_server_chooses_where_artifacts_go() -> None:
    """The location of artifacts is given to a sqlite store only."""
    assert Place("http://mlflow.example", "odn").artifact_location is None


@pytest.mark.parametrize("text", [SECRET, f"cannot reach {SECRET}", "ann:pa%40ss@db failed", "wrong password pa@ss", "sslpassword=hush"])
def test_secrets_are_never_shown(text: str) -> None:
    """Neither password nor query of the address is left, as it was typed or decoded."""
    shown = without_secrets(text, uri=SECRET)
    assert not any(secret in shown for secret in ("pa%40ss", "pa@ss", "sslpassword=hush"))


def test_an_address_without_secrets_is_shown_as_it_is() -> None:
    """Host, port and path stay readable."""
    assert Place("http://user:word@mlflow.example:5000/x", "odn").shown == "http://mlflow.example:5000/x"
    assert Place("sqlite:///mlflow.db", "odn").shown == "sqlite:///mlflow.db"


def test_a_dead_server_is_noticed_at_once() -> None:
    """A refused connection is known before mlflow is imported."""
    begin = time.monotonic()
    assert why_unreachable(Place("http://127.0.0.1:9", "odn")) == "Connection refused"
    assert time.monotonic() - begin < 2


def test_what_training_needs_of_tracking_imports_no_mlflow() -> None:
    """A short training pays nothing: not even the modules that talk to MLflow are imported."""
    code = "import sys, odn.tracking; print(sorted(m for m in sys.modules if m.startswith(('mlflow', 'torch', 'odn.tracking'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['odn.tracking', 'odn.tracking.live', 'odn.tracking.place']"


def test_a_search_is_named_by_its_settings_and_its_data(settings: dict[str, object]) -> None:
    """Equal settings on equal data give the same name; another seed or other images another."""
    config, other = make_config(settings), make_config({**settings, "seed": 1})
    names = [search_id(config, {"train": "a"}), search_id(config, {"train": "b"}), search_id(other, {"train": "a"})]
    assert len(set(names)) == 3
    assert all(len(name) == 16 for name in names)
    assert search_id(make_config(config.to_json()), {"train": "a"}) == names[0]


def test_every_setting_is_a_param(settings: dict[str, object]) -> None:
    """Params are strings, named section.name."""
    params = flat_params(make_config(settings))
    assert (params["seed"], params["search.target"], params["data.source"], params["data.root"]) == ("0", "0.97", "digits", "null")
