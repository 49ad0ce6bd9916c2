"""Read and write files so that a reader sees a whole one or none."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from odn.errors import OutputError
from odn.sanitize import sanitized

MANIFEST = ".odn-manifest.json"  # in each folder that is made here: the names of the files that odn wrote
MARK, OLD = "odn-", ".old"  # in the names of folders that are being made, or replaced
LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}  # that file managers strew
SHOWN = 3  # names in an error
ELSEWHERE = "name another folder"


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: a temporary file beside it, synced, then renamed onto it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with named(path):
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, ending in a newline; NaN and infinity are refused (`ValueError`)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends well, and vanishes when it does not.

    What it replaces must be odn's own (see `require_own_folder`). What a run that was killed left of the same folder is mended first.

    Raises:
        OutputError: `path` holds what odn did not write, before the block or after it.
        OSError: the disk is full, or the like; it names the folder where nothing better is known.
    """
    require_own_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _mend(path)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.{MARK}"))
    try:
        with named(path):
            yield temporary
            _write_manifest(temporary)
            temporary.chmod(0o755)
            _replace(path, temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_folder(path: Path) -> None:
    """Remove a folder that `new_folder` made, if it is there.

    Raises:
        OutputError: it holds what odn did not write.
    """
    require_own_folder(path)
    if path.exists():
        aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.{MARK}"))
        path.rename(aside / path.name)  # what is written there from now on is not removed with it
        shutil.rmtree(aside)


def require_own_folder(path: Path) -> None:
    """Require that nothing of a user's is lost where `path` is replaced: it is absent or empty, or odn wrote every file in it.

    Raises:
        OutputError: it holds what odn did not write, or see `require_place`.
    """
    require_place(path)
    if foreign := foreign_names(path):
        more = f" and {len(foreign) - SHOWN} more" if len(foreign) > SHOWN else ""
        names = ", ".join(str(path / name) for name in foreign[:SHOWN])
        raise OutputError(f"{path} is replaced as a whole, and holds what odn did not write: {names}{more}; move that away, or {ELSEWHERE}")


def require_place(path: Path) -> None:
    """Require that `path` may be a folder that is replaced as a whole, whatever is in it.

    Raises:
        OutputError: it is another thing than a folder, the current folder, one that holds it, or a home.
    """
    place, here, home = path.resolve(), Path.cwd().resolve(), os.environ.get("HOME")
    if place == Path(place.anchor) or place == here or place in here.parents or (home and place == Path(home).resolve()):
        raise OutputError(f"{path} cannot be replaced: it is the current folder, one that holds it, or a home; {ELSEWHERE}")
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise OutputError(f"{path} cannot be replaced: it is {'a link' if path.is_symlink() else 'no folder'}; {ELSEWHERE}")


def foreign_names(folder: Path) -> list[str]:
    """List what is below a folder and not in the manifest that `new_folder` left there: files, links and empty folders, in order."""
    own, found = {MANIFEST, *own_names(folder)}, []
    for name, _, _ in _below(folder):
        if name not in own and Path(name).name not in LITTER:
            found.append(name)
    return sorted(found)


def _below(folder: Path) -> Iterator[tuple[str, Path, bool]]:
    """Yield the relative name, the path and whether it is a folder, of every file, link and empty folder below a folder."""
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        for name in (*files, *links):
            path = Path(place, name)
            yield path.relative_to(folder).as_posix(), path, False
        if not files and not folders and Path(place) != folder:
            yield Path(place).relative_to(folder).as_posix(), Path(place), True


def own_names(folder: Path) -> list[str]:
    """List what odn wrote into a folder, by the manifest that it left there; nothing where there is none of odn's."""
    try:
        names = json.loads((folder / MANIFEST).read_bytes())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # a folder that odn did not make, or whose manifest is damaged: nothing in it counts as odn's
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def list_also(folder: Path, name: str) -> None:
    """List a file that is about to be written into a folder that `new_folder` made: whenever it is there, it is known as odn's."""
    _write_names(folder, {*own_names(folder), name})


def _write_manifest(folder: Path) -> None:
    _write_names(folder, {name for name, _, _ in _below(folder)} - {MANIFEST})


def _write_names(folder: Path, names: set[str]) -> None:
    write_text(folder / MANIFEST, json.dumps({"files": sorted(names)}, indent=1, ensure_ascii=True) + "\n")


def _replace(path: Path, new: Path) -> None:
    """Put a finished folder in the place of another, so that one of the two is there whenever this is broken off."""
    require_own_folder(path)
    if not path.exists():
        new.rename(path)
        return
    old = new.with_name(new.name + OLD)
    path.rename(old)
    new.rename(path)
    shutil.rmtree(old)


def _mend(path: Path) -> None:
    """Put back what a kill left aside between two names, and remove what it left unfinished."""
    made = re.compile(rf"\.{re.escape(path.name)}\.{MARK}[a-z0-9_]{{8}}({re.escape(OLD)})?")  # tempfile's own eight characters
    leftovers = [one for one in path.parent.iterdir() if made.fullmatch(one.name) and one.is_dir() and not one.is_symlink()]
    for leftover in leftovers:
        if leftover.name.endswith(OLD) and not path.exists():
            leftover.rename(path)
        else:
            shutil.rmtree(leftover)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for one process: a second one (a `make repro` after its predecessor's shell was killed) waits for the first."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:  # filelock would look again and again where flock waits
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write(f"odn: waiting for another process that works in {sanitized(folder)}\n")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Let a failure of the disk that names no file name this one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def sha256_of(*paths: Path) -> str:
    """Return the hex SHA-256 of the files' bytes, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()
