"""Where tracking goes: the environment's MLflow, or a sqlite file in the current folder. No mlflow is imported here."""

import os
import re
import socket
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

DEFAULT_URI = "sqlite:///mlflow.db"
DEFAULT_EXPERIMENT = "odn"
ARTIFACTS = "mlartifacts"  # folder of the artifacts of a sqlite store, in the current folder
CONNECT_SECONDS = 5.0
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}

QUIET = {  # mlflow reads these when it is imported; what the user has set stays
    # through the server, not past it to an object store that may have a name only where the server is
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # its default of 7 means four minutes before a dead server is called dead
}


@dataclass(frozen=True)
class Place:
    """Name a tracking store and the experiment in it."""

    uri: str = field(repr=False)  # may hold a password: show `shown` instead
    experiment: str

    @property
    def shown(self) -> str:
        """Return the address without secrets."""
        return without_secrets(self.uri, uri=self.uri)

    @property
    def address(self) -> str:
        """Return the address for mlflow, which remembers stores by it: a sqlite file in whole, not relative to the current folder."""
        return self.uri if self.sqlite_file is None else self.uri.replace(str(self.sqlite_file), str(self.sqlite_file.absolute()), 1)

    @property
    def sqlite_file(self) -> Path | None:
        """Return the file of a sqlite store, None for any other store."""
        path = self.uri.removeprefix("sqlite:///")
        return None if path == self.uri or path in {"", ":memory:"} else Path(path.split("?")[0])

    @property
    def artifact_location(self) -> str | None:
        """Return where a new experiment keeps artifacts: in the current folder for sqlite, None (its own choice) for a server."""
        return None if self.sqlite_file is None else Path(ARTIFACTS).absolute().as_uri()


def tracking_place() -> Place:
    """Read MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME from the environment."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    return Place(uri=uri, experiment=os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT)


def without_secrets(text: str, *, uri: str) -> str:
    """Return `text` without the user, password and query of `uri`, wherever they stand in it."""
    parts = urlsplit(uri)
    userinfo, found, _ = parts.netloc.rpartition("@")
    if found:
        text = text.replace(f"{userinfo}@", "")
        secret = userinfo.partition(":")[2]
        for form in {secret, unquote(secret)} - {""}:
            text = text.replace(form, "***")
    if parts.query:
        text = text.replace(f"?{parts.query}", "").replace(parts.query, "***")
    return re.sub(r"(?<=://)[^/@\s]+:[^/@\s]*@", "", text)


def why_unreachable(place: Place) -> str | None:
    """Return why nothing answers at a server's address, after at most a few seconds; None where it answers or cannot be asked."""
    parts = urlsplit(place.uri)
    scheme = parts.scheme.split("+")[0]
    try:
        host, port = parts.hostname, parts.port or PORTS.get(scheme)
    except ValueError as error:
        return str(error)
    behind_proxy = scheme in urllib.request.getproxies() and host is not None and not urllib.request.proxy_bypass(host)
    if scheme not in PORTS or host is None or port is None or behind_proxy:
        return None
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return None
