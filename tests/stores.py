"""An MLflow store without runs: making its tables takes mlflow several seconds, so that it is done once, and copied."""

import fcntl
import shutil
from importlib.metadata import version
from pathlib import Path

from odn.tracking.connection import create_schema

KEPT = Path(__file__).parents[1] / ".pytest_cache"  # from run to run, for all workers


def put_store(folder: Path) -> None:
    """Put an empty `mlflow.db` into a folder."""
    KEPT.mkdir(exist_ok=True)
    made = KEPT / f"mlflow-{version('mlflow')}.db"
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a worker that comes second waits
        create_schema(made)
    shutil.copyfile(made, folder / "mlflow.db")
