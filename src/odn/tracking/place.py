"""Where tracking goes: the environment's MLflow, or a sqlite file in the current folder. No mlflow is imported here."""

import os
import re
import socket
import ssl
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, quote, urlsplit

from odn.sanitize import redacted

DEFAULT_URI = "sqlite:///mlflow.db"
DEFAULT_EXPERIMENT = "odn"
ARTIFACTS = "mlartifacts"  # folder of the artifacts of a sqlite store, in the current folder
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60  # for a request; MLFLOW_HTTP_REQUEST_TIMEOUT changes it
RETRIES = 3  # mlflow's default of 7 means four minutes before a dead server is called dead
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
SQLITE = re.compile(r"sqlite(\+\w+)?:///(?P<path>[^?]+)")
KNOWN = "name sqlite:///FILE, http(s)://HOST, or postgresql://, mysql:// or mssql:// with a host and a database"

QUIET = {  # mlflow reads these when it is imported; what the user has set stays
    # through the server, not past it to an object store that may have a name only where the server is
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # what goes wrong is raised too, and told in one line
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(RETRIES),
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(ANSWER_SECONDS),
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # which may ask for hours
    "PGCONNECT_TIMEOUT": "10",  # PostgreSQL's own default is to wait for ever
}


@dataclass(frozen=True)
class Place:
    """Name a tracking store and the experiment in it."""

    uri: str = field(repr=False)  # may hold a password: show `shown` instead
    experiment: str

    @property
    def shown(self) -> str:
        """Return the address without secrets."""
        return redacted(self.uri)

    @property
    def address(self) -> str:
        """Return the address for mlflow, which remembers stores by it: a sqlite file in whole, not relative to the current folder."""
        return self.uri if self.sqlite_file is None else self.uri.replace(str(self.sqlite_file), str(self.sqlite_file.absolute()), 1)

    @property
    def is_server(self) -> bool:
        """Tell whether the store is a server of MLflow."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def sqlite_file(self) -> Path | None:
        """Return the file of a sqlite store, None for any other store and for one in memory."""
        found = SQLITE.match(self.uri)
        return Path(found["path"]) if found is not None and found["path"] != ":memory:" else None

    @property
    def artifact_location(self) -> str | None:
        """Return where a new experiment keeps artifacts: in the current folder for sqlite, None (its own choice) for a server."""
        return None if self.sqlite_file is None else Path(ARTIFACTS).absolute().as_uri()


def tracking_place() -> Place:
    """Read MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME from the environment."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or DEFAULT_URI
    return Place(uri=uri, experiment=os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT)


def why_unreachable(place: Place, *, answer_seconds: float | None = None) -> str | None:
    """Return why the address is none to track at, or why nothing answers there, after at most `longest_wait` seconds.

    None where it answers, or cannot be asked without mlflow. `answer_seconds` is MLFLOW_HTTP_REQUEST_TIMEOUT unless it is given.
    """
    try:
        parts = urlsplit(place.uri)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return str(error)
    scheme = parts.scheme.split("+")[0]
    if scheme == "sqlite":
        return _why_no_file(place)
    if scheme in {"", "file"}:
        return f"MLflow keeps no new runs in a folder; {KNOWN}"
    if scheme not in PORTS:
        return None if "databricks" in (scheme, place.uri) else f"no store of MLflow begins with {scheme}:; {KNOWN}"
    if host is None:
        return f"the address names no host; {KNOWN}" if place.is_server else None
    if scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return None
    return _why_silent(parts, port or PORTS[scheme], _answer_seconds() if answer_seconds is None else answer_seconds)


def longest_wait() -> float:
    """Return the seconds after which a server that does not answer is given up, before anything is sent to it."""
    return CONNECT_SECONDS + _answer_seconds()


def _answer_seconds() -> float:
    try:
        return float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT") or ANSWER_SECONDS)
    except ValueError:
        return ANSWER_SECONDS  # mlflow says what is wrong with it


def _why_no_file(place: Place) -> str | None:
    if not place.uri.partition(":")[2].startswith("///"):
        return "a sqlite address has three slashes, and a fourth before an absolute path; name a file: sqlite:///mlflow.db"
    if place.sqlite_file is None or ":memory:" in place.uri:
        return "a store in memory vanishes when the command ends; name a file: sqlite:///mlflow.db"
    return None


def _why_silent(parts: SplitResult, port: int, seconds: float) -> str | None:
    """Connect, and ask a web server for anything at all; what it answers is mlflow's to judge."""
    try:
        plain = socket.create_connection((str(parts.hostname), port), timeout=CONNECT_SECONDS)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that is no host's
        return getattr(error, "strerror", None) or str(error)
    with plain:
        if parts.scheme not in {"http", "https"}:
            return None
        plain.settimeout(seconds)
        try:
            with _wrapped(plain, parts) as connection:
                connection.sendall(f"GET {quote(parts.path)}/health HTTP/1.0\r\nHost: {parts.netloc.rpartition('@')[2]}\r\n\r\n".encode())
                connection.recv(1)
        except TimeoutError:
            return f"it takes connections, and does not answer within {seconds:g} s"
        except OSError:
            return None  # it answers, and mlflow may know how to please it
    return None


def _wrapped(plain: socket.socket, parts: SplitResult) -> socket.socket:
    """Return the socket as it is spoken to: whose certificate it is matters to mlflow, and nothing secret is sent here."""
    if parts.scheme == "http":
        return plain
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(plain, server_hostname=parts.hostname)
