"""Where tracking goes, and what is never shown of it."""

import re
import socket
import subprocess
import sys
import time

import pytest

from odn.config import make_config
from odn.tracking.identity import flat_params, search_id
from odn.tracking.place import Place, tracking_place, why_unreachable

SECRET = "postgresql+psycopg2://ann:pa%40ss@db.example:5432/mlflow?sslpassword=hush"


def test_the_default_is_a_sqlite_file_in_the_current_folder(store: object) -> None:
    """Without MLFLOW_TRACKING_URI everything stays in the folder: the store and its artifacts."""
    place = tracking_place()
    assert (place.uri, place.experiment) == ("sqlite:///mlflow.db", "odn")
    assert str(place.artifact_location).startswith("file:///")


def test_a_server_chooses_where_artifacts_go() -> None:
    """The location of artifacts is given to a sqlite store only."""
    assert Place("http://mlflow.example", "odn").artifact_location is None


def test_secrets_are_never_shown() -> None:
    """Neither user, password nor query of the address is left; host, port and path stay readable."""
    assert Place(SECRET, "odn").shown == "postgresql+psycopg2://***@db.example:5432/mlflow?***"
    assert Place("http://user:word@mlflow.example:5000/x", "odn").shown == "http://***@mlflow.example:5000/x"
    assert Place("sqlite:///mlflow.db", "odn").shown == "sqlite:///mlflow.db"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("sqlite://", "three slashes"),
        ("sqlite://mlflow.db", "three slashes"),
        ("sqlite:///", "vanishes when the command ends"),
        ("sqlite:///:memory:", "vanishes when the command ends"),
        ("sqlite:///file::memory:?uri=true", "vanishes when the command ends"),
        ("mlruns", "keeps no new runs in a folder"),
        ("file:///tmp/mlruns", "keeps no new runs in a folder"),
        ("s3://bucket/mlruns", "no store of MLflow begins with s3:"),
        ("foo://bar", "no store of MLflow begins with foo:"),
        ("http://", "names no host"),
        ("http://[::1", "Invalid IPv6 URL"),
        ("http://h:99999", "Port out of range"),
        ("http://h:port", "Port could not be cast"),
        ("http://a..b", "label empty or too long"),
        ("http://u:p@[::1]:9", "Connection refused|Cannot assign|not supported"),
    ],
)
def test_an_address_that_is_no_store_s_is_refused(uri: str, said: str) -> None:
    """Before mlflow is imported, with what would do."""
    assert re.search(said, str(why_unreachable(Place(uri, "odn"))))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_never_answers_is_given_up(scheme: str) -> None:
    """It takes the connection, and that is all."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begin = time.monotonic()
        said = why_unreachable(Place(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}", "odn"), answer_seconds=0.2)
    assert said == "it takes connections, and does not answer within 0.2 s"
    assert time.monotonic() - begin < 20


def test_a_dead_server_is_noticed_at_once() -> None:
    """A refused connection is known before mlflow is imported."""
    begin = time.monotonic()
    assert why_unreachable(Place("http://127.0.0.1:9", "odn")) == "Connection refused"
    assert time.monotonic() - begin < 20


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
