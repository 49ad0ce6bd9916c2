"""Make a missing sqlite store beside other work: its tables take mlflow several seconds, in a process of their own."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from odn.tracking.connection import create_schema


@contextlib.contextmanager
def made_meanwhile(path: Path) -> Iterator[None]:
    """Make the store while the block runs; where that fails, whoever connects next makes it and says what is wrong."""
    command = [sys.executable, "-W", "ignore", "-m", "odn.tracking.schema", str(path)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        yield


if __name__ == "__main__":
    create_schema(Path(sys.argv[1]))
