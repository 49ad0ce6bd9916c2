"""Look into the sqlite file of a store without mlflow: whether it can be used at all, and which versions it holds."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

LOCK_SECONDS = 20.0  # that another process may hold the file; mlflow's own limit for a statement
CHECK_SECONDS = 5.0  # that a look for damage may take: of a huge file only the beginning is looked through
BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
DELETED = "Deleted_Internal"  # what mlflow writes as the stage of a version that was deleted


def why_unusable(path: Path) -> str | None:
    """Return why mlflow could not write to the file; None where it can, or where there is none yet.

    mlflow itself tries ten times in a hundred silent seconds to open what cannot be opened.
    """
    try:
        if not path.exists():
            return None
        if not path.is_file():
            return "this is a folder, or another thing that is no file"
        with _opened(path, mode="rw", timeout=LOCK_SECONDS) as store:
            reason = _damage(store) or _stranger(store)
            store.execute("BEGIN IMMEDIATE")  # as every writer does
            store.execute("ROLLBACK")
            return reason
    except UnicodeDecodeError as error:
        return f"the database is damaged: {error}"
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in BUSY:
            return (
                f"the database is locked by another process, and was not free within {LOCK_SECONDS:g} s; end that process, or wait for it"
            )
        return getattr(error, "strerror", None) or str(error)


def version_aliases(path: Path, name: str, version: str, *, weights_sha256: str) -> tuple[str, ...] | None:
    """Return the aliases of a registered version that has these weights; None where the store holds no such version.

    Raises:
        sqlite3.Error: the file cannot be read, or is no store of MLflow.
    """
    held = (
        "SELECT 1 FROM model_versions AS v JOIN model_version_tags AS t ON t.name = v.name AND t.version = v.version "
        "WHERE v.name = ? AND v.version = ? AND v.current_stage != ? AND t.key = 'odn.weights_sha256' AND t.value = ?"
    )
    with _opened(path, mode="ro", timeout=1.0) as store:
        if store.execute(held, (name, version, DELETED, weights_sha256)).fetchone() is None:
            return None
        aliases = store.execute("SELECT alias FROM registered_model_aliases WHERE name = ? AND version = ? ORDER BY alias", (name, version))
        return tuple(str(alias) for (alias,) in aliases)


@contextlib.contextmanager
def _opened(path: Path, *, mode: str, timeout: float) -> Iterator[sqlite3.Connection]:
    address = f"file:{quote(str(path.absolute()))}?mode={mode}"
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=timeout, isolation_level=None)) as store:
        yield store


def _damage(store: sqlite3.Connection) -> str | None:
    deadline = time.monotonic() + CHECK_SECONDS
    store.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
    try:
        (found,) = store.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return None
    finally:
        store.set_progress_handler(None, 0)
    return None if found == "ok" else f"the database is damaged: {' '.join(str(found).split())}"


def _stranger(store: sqlite3.Connection) -> str | None:
    """Refuse a database that something else made: mlflow would put its tables beside the others."""
    tables = {str(name) for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")}
    if not tables or tables & {"alembic_version", "experiments"}:
        return None
    return f"this is a database of another program, with a table {min(tables)!r}"
