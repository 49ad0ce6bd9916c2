"""Two that begin together make one run and one version, and nothing secret reaches a store, a file or a line: on a real server."""

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from odn.tracking.connection import Connection, connect
from odn.tracking.place import Place
from tracking.planted import SECRETS, files_with_secrets, secrets_in

NAME = "together"  # of the experiment and of the registered model: others are on the server too


def at_once(made: Any, command: Sequence[str], *, odn: Path, uri: str, machines: bool) -> list[str]:
    """Run two commands of odn at once on one search, as if on two machines if asked; return what each said."""
    (made.root / "params.yaml").write_text(made.config.to_json())
    running = []
    for number in range(2):
        temporary = made.root / f"tmp-{number if machines else 0}"  # where locks are
        temporary.mkdir(exist_ok=True)
        environment = {**os.environ, **SECRETS, "MLFLOW_EXPERIMENT_NAME": NAME, "MLFLOW_TRACKING_URI": uri, "TMPDIR": str(temporary)}
        records = ["--registration", f".odn/{number}.json"] if "register" in command else []
        process = subprocess.Popen(
            [odn, *command, *records],
            cwd=made.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        running.append(process)
    said = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    return said


def runs(connection: Connection, tag: str) -> list[Any]:
    """List the runs that have a tag."""
    return [run for run in connection.client.search_runs([connection.experiment_id]) if tag in run.data.tags]


@pytest.mark.slow
def test_two_registrations_on_two_machines_make_one_version_and_tell_no_secret(
    server: Any, store: Path, programs: Path, settings: dict[str, Any], make_search: Callable[..., Any]
) -> None:
    """Neither sees the other's lock: each looks again after it has made something. All that is said and written is read for secrets."""
    settings["registry"]["name"] = NAME
    made = make_search(store)
    uri = server.uri.replace("://", "://somebody:hunter-uri@")
    said = at_once(made, ["register"], odn=programs / "odn", uri=uri, machines=True)
    connection = connect(Place(server.uri, NAME))
    assert all(f"{NAME} version" in one for one in said), said
    assert len(runs(connection, "odn.search")) == 1
    assert sorted(run.info.run_name for run in runs(connection, "odn.depth")) == ["depth-1", "depth-2"]
    (version,) = connection.client.search_model_versions(f"name = '{NAME}'")
    assert set(connection.client.get_model_version(NAME, version.version).aliases) == {"candidate", "champion"}
    assert all(f"version {version.version} " in one for one in said), said
    assert files_with_secrets(store, server.folder) == {}
    assert secrets_in("".join(said)) == []


@pytest.mark.slow
def test_two_replays_on_one_machine_make_one_run(store: Path, programs: Path, make_search: Callable[..., Any]) -> None:
    """The second waits for the first, and finds everything there."""
    command = ["track", "--replay"]
    said = at_once(make_search(store), command, odn=programs / "odn", uri="sqlite:///mlflow.db", machines=False)
    connection = connect(Place("sqlite:///mlflow.db", NAME))
    assert sorted("every depth was there already" in one for one in said) == [False, True]
    assert (len(runs(connection, "odn.search")), len(runs(connection, "odn.depth"))) == (1, 2)
    assert files_with_secrets(store) == {}
    assert secrets_in("".join(said)) == []
