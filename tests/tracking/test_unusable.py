"""A store that cannot be used is named at once, in one line, with what to do; nothing of it or of the search is touched."""

import contextlib
import logging
import os
import random
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from odn.errors import TrackingError
from odn.stages import register

Break = Callable[[Path], object]
MOST_SECONDS = 5.0  # mlflow alone takes 104 s or 208 s for some of these


def flipped(path: Path) -> None:
    """Flip bytes all over the file, behind its header."""
    content, generator = bytearray(path.read_bytes()), random.Random(0)
    for _ in range(2000):
        content[generator.randrange(100, len(content))] ^= 0xFF
    path.write_bytes(content)


def folder(path: Path) -> None:
    """Put a folder where the file was."""
    path.unlink()
    path.mkdir()


def stranger(path: Path) -> None:
    """Put another program's database where the store was."""
    path.unlink()
    executed(path, "CREATE TABLE cats (name)")


def executed(path: Path, statement: str) -> None:
    """Run a statement in a database."""
    with contextlib.closing(sqlite3.connect(path)) as store, store:
        store.execute(statement)


SCHEMA = "UPDATE alembic_version SET version_num = "
BROKEN: dict[str, tuple[Break, str]] = {  # how, and what is said
    "flipped": (flipped, "malformed|damaged"),
    "header": (lambda path: path.write_bytes(b"XXXX" + path.read_bytes()[4:]) and None, "file is not a database"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:300_000]) and None, "malformed|damaged"),
    "text": (lambda path: path.write_text("words " * 999) and None, "file is not a database"),
    "folder": (folder, "this is a folder"),
    "stranger": (stranger, "a database of another program, with a table 'cats'"),
    "older": (lambda path: executed(path, SCHEMA + "'1bd49d398cd23'"), "out-of-date database schema.*mlflow db upgrade"),
    "newer": (lambda path: executed(path, SCHEMA + "'ffff'"), "out-of-date database schema.*mlflow db upgrade"),
}


def refused(made: Any) -> str:
    """Register a search, and return the one line in which that is refused."""
    begin = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        register.run(
            made.config,
            **made.paths(),
            registered_weights=made.root / "work/registered.json",
            registration=made.root / ".odn/registration.json",
        )
    assert time.monotonic() - begin < MOST_SECONDS
    assert not (made.root / ".odn/registration.json").exists()
    (line,) = caught.value.lines
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return line


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_store_is_left_as_it_is(store: Path, make_search: Callable[..., Any], name: str) -> None:
    """Damaged, of another program, of another mlflow: said at once."""
    made = make_search(store)
    breaks, said = BROKEN[name]
    breaks(store / "mlflow.db")
    before = (store / "mlflow.db").read_bytes() if (store / "mlflow.db").is_file() else b""
    line = refused(made)
    assert re.search(f"sqlite:///mlflow.db cannot be used .*({said}).*Mend or move the file", line)
    assert before == ((store / "mlflow.db").read_bytes() if (store / "mlflow.db").is_file() else b"")


def test_tables_that_mlflow_cannot_bring_up_to_date_are_said(store: Path, make_search: Callable[..., Any]) -> None:
    """A later mlflow's tables, of which one is missing: what alembic raises is none of mlflow's own errors."""
    for statement in (SCHEMA + "'ffff'", "DROP TABLE metrics"):
        executed(store / "mlflow.db", statement)
    assert "Can't locate revision identified by 'ffff'" in refused(make_search(store))


def test_what_sqlite_refuses_later_is_one_line_too(store: Path, make_search: Callable[..., Any]) -> None:
    """Tables that lack a column look well until they are used."""
    executed(store / "mlflow.db", "ALTER TABLE experiments DROP COLUMN artifact_location")
    assert "no such column" in refused(make_search(store))


def test_mlflow_s_own_log_is_silent() -> None:
    """It would write a traceback with the whole statement beside our line; it reads its level when a process imports it first."""
    program = (
        "import logging; from odn.tracking.connection import import_mlflow; import_mlflow(); "
        "print(logging.getLogger('mlflow.store').getEffectiveLevel())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_LOGGING_LEVEL"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == str(logging.CRITICAL)


def test_a_file_that_cannot_be_made_is_said(store: Path, make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Below a file there is no folder."""
    (store / "file").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///file/mlflow.db")
    assert "sqlite:///file/mlflow.db cannot be used" in refused(make_search(store))


def test_a_locked_file_is_waited_for_and_given_up(
    store: Path, make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The wait is told with its limit; what locks the file is somebody else's to end."""
    monkeypatch.setattr("odn.tracking.sqlite.LOCK_SECONDS", 0.5)
    monkeypatch.setattr("odn.waiting.FIRST", 0.1)
    with contextlib.closing(sqlite3.connect(store / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "locked by another process, and was not free within 0.5 s" in refused(make_search(store))
    assert "odn: waiting for MLflow at sqlite:///mlflow.db (0 s; a lock of another process is given up after" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("scheme", "package"), [("postgresql", "psycopg"), ("postgresql+psycopg2", "psycopg2-binary"), ("mysql", "mysqlclient")]
)
def test_a_missing_driver_is_named_with_its_package(
    store: Path, make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, scheme: str, package: str
) -> None:
    """What sqlalchemy misses is called otherwise than what pip installs."""
    with socket.create_server(("127.0.0.1", 0)) as database:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://me:hunter22@127.0.0.1:{database.getsockname()[1]}/mlflow")
        line = refused(make_search(store))
    assert f"its driver is not installed: run pip install '{package}" in line
    assert "hunter22" not in line


@contextlib.contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Serve one answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # what mlflow asks first
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/again")
            self.send_header("Content-Length", str(len(body)))
            with contextlib.suppress(ConnectionError):  # a look whether anybody answers reads no more than it needs
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://me:hunter22@127.0.0.1:{web.server_port}"
        web.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b"<html>who are you?\n</html>", "MLFLOW_TRACKING_USERNAME"),
        (403, b"<html>not you</html>", "MLFLOW_TRACKING_USERNAME"),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}', "MLFLOW_TRACKING_USERNAME"),
        (404, b"<html>nothing</html>", "What answers is not MLflow"),
        (200, b"<html>sign in</html>", "What answers is not MLflow"),
        (302, b"", "What answers is not MLflow"),
        (200, b"{}", "What answers is not MLflow"),
        (200, b"[]", "What answers is not MLflow"),
        (200, b'{"experiment": []}', "What answers is not MLflow"),
        (200, b'{"experiment": {"experiment_id": {}}}', "What answers is not MLflow"),
        (500, b"<html>broken</html>", "Start the server"),
    ],
)
def test_an_answer_that_is_not_mlflow_s_is_said(
    store: Path, make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, said: str
) -> None:
    """A page to sign in, a proxy, another service: the way out is the right one."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with answering(status, body) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        line = refused(make_search(store))
    assert said in line
    assert "hunter22" not in line


def test_a_store_in_memory_is_refused(store: Path, make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its registry would vanish with the command that wrote it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///:memory:")
    assert "vanishes when the command ends; name a file" in refused(make_search(store))
