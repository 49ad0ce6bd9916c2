"""Mend what a DVC that was killed left half-written: it writes its own records in place, and cannot read half of one.

A record is mended only while no DVC process holds the locks under which DVC writes it.
"""

import contextlib
import fcntl
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

RWLOCK = Path(".dvc/tmp/rwlock")  # who reads and writes which file; without it DVC begins a new one
LOCKS = (Path(".dvc/tmp/lock"), Path(".dvc/tmp/rwlock.lock"))
DIGEST, NO_DIGEST = re.compile(r"[0-9a-f]{32}(\.dir)?"), "0" * 32
PATIENCE = 2.0  # seconds; DVC holds the second lock for milliseconds
TYPES = {
    "path": str,
    "md5": str,
    "hash": str,
    "size": int,
    "nfiles": int,
    "isexec": bool,
    "persist": bool,
}  # of what dvc.lock says of a file


def mend() -> list[str]:
    """Mend the records in the current project, and say in a line each what was done."""
    broken = [path for path, reads in READERS.items() if not reads(path)]
    if not broken:
        return []
    with _locks() as held:
        if not held:
            return [f"{_names(broken)} cannot be read now, and another DVC process is at work; it was left as it is"]
        return [_mended(path) for path in broken if not READERS[path](path)]


def _mended(path: Path) -> str:
    if path == RWLOCK:
        path.unlink()
        return f"{path} was left by a DVC that was killed; it was removed"
    committed = subprocess.run(["git", "show", f"HEAD:./{path}"], capture_output=True, check=False)
    if committed.returncode == 0:
        path.write_bytes(committed.stdout)
        return (
            f"{path} was left half-written by a DVC that was killed; it is now as in the last commit, and what ran since is in DVC's cache"
        )
    path.unlink()
    return f"{path} was left half-written by a DVC that was killed; it was removed, and what ran is in DVC's cache"


@contextlib.contextmanager
def _locks() -> Iterator[bool]:
    """Hold DVC's locks, which are zc.lockfile's and so flock's; yield whether they could be had."""
    with contextlib.ExitStack() as stack:
        files = []
        for path in LOCKS:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.append(stack.enter_context(path.open("a")))
        deadline = time.monotonic() + PATIENCE
        for file in files:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        yield False
                        return
                time.sleep(0.05)
        yield True


def _reads_rwlock(path: Path) -> bool:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    if not isinstance(value, dict) or not value.keys() <= {"read", "write"} or not all(isinstance(part, dict) for part in value.values()):
        return False
    holders = [*value.get("write", {}).values()]
    for readers in value.get("read", {}).values():
        if not isinstance(readers, list):
            return False
        holders.extend(readers)
    whole = all(
        isinstance(holder, dict) and holder.keys() == {"pid", "cmd"} and type(holder["pid"]) is int and isinstance(holder["cmd"], str)
        for holder in holders
    )
    return whole and (not holders or any(_runs(holder["pid"]) for holder in holders))


def _runs(pid: int) -> bool:
    """Tell whether a process is a DVC at work: DVC itself takes one for it that is dead and not buried, or that got its number since."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and any("dvc" in Path(word).name for word in process.cmdline()[:3])
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _reads_lock(path: Path) -> bool:
    """Tell whether DVC takes it for a dvc.lock; what is in conflict after a merge is the user's to mend."""
    record, is_users = _yaml(path)
    if is_users:
        return True
    stages = record.get("stages", {}) if isinstance(record, dict) and record.get("schema") == "2.0" else None
    return isinstance(stages, dict) and all(_is_stage(stage) for stage in stages.values())


def _is_stage(stage: Any) -> bool:
    if not isinstance(stage, dict) or not isinstance(stage.get("cmd"), (str, list)):
        return False
    params = stage.get("params", {})
    return (
        isinstance(params, dict)
        and all(isinstance(settings, dict) and all(isinstance(name, str) for name in settings) for settings in params.values())
        and all(_are_files(stage.get(part, [])) for part in ("deps", "outs"))
    )


def _are_files(files: Any) -> bool:
    return isinstance(files, list) and all(isinstance(file, dict) and "path" in file and _is_file(file) for file in files)


def _is_file(file: dict[Any, Any]) -> bool:
    """Tell whether each thing said of a file is whole; what is not known here is DVC's to judge."""
    return all(type(value) is TYPES.get(key, type(value)) for key, value in file.items()) and bool(
        DIGEST.fullmatch(file.get("md5", NO_DIGEST))
    )


def _reads_import(path: Path) -> bool:
    """Tell whether it is a whole data.dvc: its outputs come last."""
    record, is_users = _yaml(path)
    if is_users:
        return True
    return isinstance(record, dict) and all(record.get(part) and _are_files(record[part]) for part in ("deps", "outs"))


def _yaml(path: Path) -> tuple[Any, bool]:
    """Read YAML, None where it is half; the second value tells of a file that is not there, or is a user's to mend."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None, True
    except UnicodeDecodeError:
        return None, False
    if "<<<<<<< " in text:
        return None, True
    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), False  # noqa: S506
    except yaml.YAMLError:
        return None, False


def _names(paths: list[Path]) -> str:
    return " and ".join(map(str, paths))


READERS: dict[Path, Callable[[Path], bool]] = {RWLOCK: _reads_rwlock, Path("dvc.lock"): _reads_lock, Path("data.dvc"): _reads_import}
