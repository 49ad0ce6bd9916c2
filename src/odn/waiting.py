"""Show that a wait goes on: a plain line on standard error after a few seconds, and ever more rarely behind it."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from odn.sanitize import sanitized

FIRST = 5.0  # seconds before the first line
RAREST = 300.0  # seconds between two lines, at most


@contextlib.contextmanager
def waiting(what: str, *, limit: str, so_far: Callable[[], str] | None = None) -> Iterator[None]:
    """Say what is waited for, and when it is given up, while the block lasts; nothing about a block that is quick.

    The limit is kept by the block itself. `so_far` counts what is done already.
    """
    over = threading.Event()

    def tell() -> None:
        begin, pause = time.monotonic(), FIRST
        while not over.wait(pause):
            passed = time.monotonic() - begin
            done = f", {so_far()}" if so_far is not None else ""
            sys.stderr.write(sanitized(f"odn: waiting for {what} ({passed:.0f} s{done}; {limit})") + "\n")
            sys.stderr.flush()
            pause = min(passed, RAREST)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
