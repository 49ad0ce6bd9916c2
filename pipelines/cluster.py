"""Talk to Kubeflow Pipelines: where it is and who asks come from the environment; what goes wrong comes back in plain words.

KFP_HOST      its address, such as http://localhost:8080
KFP_TOKEN     a bearer token, where it asks for one; inside a cluster the pod's own service-account token is taken
KFP_NAMESPACE the namespace (profile) of a multi-user deployment
"""

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kfp import Client
from kfp.client import ServiceAccountTokenVolumeCredentials

from odn.errors import ConfigError, OdnError
from pipelines.errors import RunFailedError

IN_CLUSTER_HOST = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
TOKEN_FILE = Path("/var/run/secrets/kubeflow/pipelines/token")  # the projected volume that Kubeflow documents
POLL_SECONDS, CONNECT_SECONDS = 5.0, 5.0
ENDED = {"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"}
HOW_TO_BE_LET_IN = "set KFP_TOKEN to a token that may use it, or submit from a pod with a service-account token"


class ClusterError(OdnError):
    """Report a Kubeflow that cannot be reached or refuses."""


def connect() -> Client:
    """Return a client of the Kubeflow that the environment names.

    Raises:
        ConfigError: no host is named.
        ClusterError: it does not answer.
    """
    host = os.environ.get("KFP_HOST") or (IN_CLUSTER_HOST if TOKEN_FILE.exists() else "")
    if not host:
        raise ConfigError("KFP_HOST is not set; set it to the address of Kubeflow Pipelines, such as http://localhost:8080")
    _require_answer(host)
    token, credentials = os.environ.get("KFP_TOKEN"), None
    if not token and TOKEN_FILE.exists():
        credentials = ServiceAccountTokenVolumeCredentials(path=str(TOKEN_FILE))
    with plain_words(host):
        return Client(host=host, existing_token=token, credentials=credentials, namespace=os.environ.get("KFP_NAMESPACE") or "kubeflow")


def _require_answer(host: str) -> None:
    parts = urlsplit(host if "//" in host else f"http://{host}")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClusterError(f"Kubeflow Pipelines at {host} does not answer ({reason}); check KFP_HOST, or start the port-forward") from None


@contextlib.contextmanager
def plain_words(host: str) -> Iterator[None]:
    """Turn what the client raises into one line with a way out.

    Raises:
        ClusterError: the server refuses, or the connection breaks.
    """
    from kfp_server_api.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        if error.status in {401, 403}:
            raise ClusterError(f"Kubeflow Pipelines at {host} refuses ({error.status} {error.reason}); {HOW_TO_BE_LET_IN}") from None
        said = str(error.body or error.reason).strip().splitlines()
        raise ClusterError(f"Kubeflow Pipelines at {host} refuses ({error.status}: {said[0][:300] if said else 'no reason'})") from None
    except HTTPError as error:
        raise ClusterError(f"the connection to Kubeflow Pipelines at {host} broke ({error}); try again") from None


def host_of(client: Client) -> str:
    """Return the address that a client talks to."""
    return str(client._existing_config.host).rstrip("/")


def run_url(client: Client, run_id: str) -> str:
    """Return the page of a run."""
    return f"{host_of(client)}/#/runs/details/{run_id}"


def submit(client: Client, package: Path, *, arguments: dict[str, Any], experiment: str, name: str | None) -> str:
    """Start a run of the compiled pipeline, and return its id.

    Raises:
        ClusterError: see `plain_words`.
    """
    with plain_words(host_of(client)):
        started = client.create_run_from_pipeline_package(str(package), arguments=arguments, experiment_name=experiment, run_name=name)
    return str(started.run_id)


def schedule(client: Client, package: Path, *, arguments: dict[str, Any], experiment: str, name: str, cron: str) -> str:
    """Let the compiled pipeline run again and again, and return the recurring run's id; runs do not overlap.

    Raises:
        ClusterError: see `plain_words`.
    """
    with plain_words(host_of(client)):
        place = client.create_experiment(experiment)
        made = client.create_recurring_run(
            place.experiment_id,
            job_name=name,
            cron_expression=cron,
            pipeline_package_path=str(package),
            params=arguments,
            max_concurrency=1,
            no_catchup=True,
        )
    return str(made.recurring_run_id)


def wait(client: Client, run_id: str, *, poll_seconds: float = POLL_SECONDS) -> None:
    """Wait for a run to end, telling each change of it in a line.

    Raises:
        RunFailedError: it ended otherwise than well.
        ClusterError: see `plain_words`.
    """
    told, began = "", time.monotonic()
    while True:
        with plain_words(host_of(client)):
            run = client.get_run(run_id)
        state = _progress(run)
        if state != told:
            sys.stdout.write(f"{time.monotonic() - began:6.0f} s  {state}\n")
            sys.stdout.flush()
            told = state
        if run.state in ENDED:
            break
        time.sleep(poll_seconds)
    if run.state not in {"SUCCEEDED", "SKIPPED"}:
        reason = run.error.message if run.error else "no reason is given"
        raise RunFailedError(f"run {run_id} ended as {run.state} ({reason}); see {run_url(client, run_id)}")


def _progress(run: Any) -> str:
    """Say how far a run is: its state, and the tasks that are running or have failed."""
    tasks = run.run_details.task_details if run.run_details and run.run_details.task_details else []
    done = sum(task.state == "SUCCEEDED" for task in tasks)
    now = sorted(f"{task.display_name} {task.state.lower()}" for task in tasks if task.state in {"RUNNING", "FAILED"})
    return f"{run.state or 'PENDING'}, {done} tasks done{': ' + ', '.join(now) if now else ''}"
