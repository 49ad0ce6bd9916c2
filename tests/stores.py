"""An MLflow store without runs: making its tables takes mlflow several seconds, so that it is done once, and copied."""

import functools
import tempfile
from pathlib import Path

from odn.tracking.connection import create_schema


def put_store(folder: Path) -> None:
    """Put an empty `mlflow.db` into a folder."""
    (folder / "mlflow.db").write_bytes(_empty())


@functools.cache
def _empty() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        create_schema(path := Path(folder) / "mlflow.db")
        return path.read_bytes()
