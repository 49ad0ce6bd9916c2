"""Secrets in every variable that may hold one, and a search for them in all that is said and written."""

import re
from pathlib import Path

SECRETS = {
    "MLFLOW_TRACKING_USERNAME": "ann",  # no secret: MLflow shows who made a version
    "MLFLOW_TRACKING_PASSWORD": "hunter-mlflow",
    "MLFLOW_S3_SECRET": "hunter-s3",
    "AWS_SECRET_ACCESS_KEY": "hunter-aws",
    "AWS_SESSION_TOKEN": "hunter-session",
    "AWS_ENDPOINT_URL": "http://minio:hunter-endpoint@127.0.0.1:9/?token=hunter-query",
    "KFP_TOKEN": "hunter-kfp",
    "KFP_HOST": "http://me:hunter-host@127.0.0.1:9",
}


def secrets_in(text: str) -> list[str]:
    """List the secrets that are in the text."""
    return re.findall(r"hunter-\w+", text)


def files_with_secrets(*folders: Path) -> dict[str, list[str]]:
    """Read every file below the folders, databases too, and say which hold which secrets."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert files
    return {str(path): found for path in files if (found := secrets_in(path.read_bytes().decode(errors="replace")))}
