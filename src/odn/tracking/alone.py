"""Let one process at a time write a search into a store, so that two that begin together make no second run and no second version.

The lock is of this machine and this user. Processes of two machines look again after they have made something: see `runs` and `versions`.
Written out because `filelock` takes 0.03 s to import, and where a file system knows no flock leaves a lock that outlives its process.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from odn.errors import TrackingError
from odn.tracking.connection import answering
from odn.tracking.place import Place
from odn.waiting import waiting

LIMIT = 900.0  # seconds that another process may write: its artifacts may be large
LOOK_SECONDS = 0.1  # between two looks whether the lock is free
TRIES = 3  # where two machines write one search at once
CLASH = re.compile(r"IntegrityError|UniqueViolation|RESOURCE_ALREADY_EXISTS|unique constraint|duplicate", re.IGNORECASE)

Written = TypeVar("Written")


def written(place: Place, write: Callable[[], Written]) -> Written:
    """Let `write` write into a store alone, and tell of a long wait; it finds what is there, and makes what is missing.

    Where another machine made the same thing in the same moment it is done again, and finds it.

    Raises:
        TrackingError: another process holds the lock of the store for too long.
    """
    from mlflow.exceptions import MlflowException

    with alone(place), answering(place):
        for _ in range(TRIES - 1):
            try:
                return write()
            except MlflowException as error:
                if not CLASH.search(str(error)):
                    raise
        return write()


@contextlib.contextmanager
def alone(place: Place, *, tells: bool = True, limit: float = LIMIT) -> Iterator[None]:
    """Hold the lock of a store while the block lasts; the lock of a process that was killed is free.

    Raises:
        TrackingError: another process holds it for longer than the limit.
    """
    name = hashlib.sha256(place.address.encode(errors="surrogateescape")).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"odn-{os.getuid()}-{name}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        what = f"another odn that writes to MLflow at {place.shown}"
        with waiting(what, limit=f"given up after {limit:g} s") if tells else contextlib.nullcontext():
            _lock(descriptor, place, limit=limit)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, place: Place, *, limit: float) -> None:
    deadline = time.monotonic() + limit
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TrackingError(
                    f"another odn has been writing to MLflow at {place.shown} for {limit:g} s; wait for its end, or end it, then try again"
                ) from None
            time.sleep(LOOK_SECONDS)
        else:
            return
