"""Talk to Kubeflow Pipelines: where it is and who asks come from the environment; what goes wrong comes back in plain words.

KFP_HOST      its address, such as http://localhost:8080; a user and password in it are sent as such
KFP_TOKEN     a bearer token, where it asks for one; inside a cluster the pod's own service-account token is taken
KFP_NAMESPACE the namespace (profile) of a multi-user deployment
"""

import contextlib
import datetime
import io
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from kfp import Client
from kfp.client import ServiceAccountTokenVolumeCredentials
from kfp_server_api.exceptions import ApiException
from urllib3.util import make_headers

from odn.errors import ConfigError
from odn.sanitize import sanitized
from pipelines.door import ClusterError, Door, Limits, one_line
from pipelines.errors import RunFailedError
from pipelines.progress import ENDINGS, Step, steps_of, told_in

IN_CLUSTER_HOST = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
TOKEN_FILE = Path("/var/run/secrets/kubeflow/pipelines/token")  # the projected volume that Kubeflow documents
LIMITS = Limits()
ENDED = {"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"}
ENDED_AS = ("target ", "exhausted")  # the last row of a search that has ended
WORDS = 5  # lines of a failed step that are shown
STATES = ENDED | {"RUNTIME_STATE_UNSPECIFIED", "PENDING", "RUNNING", "CANCELING", "PAUSED"}


class _Client(Client):  # type: ignore[misc]  # kfp ships no types
    """Be kfp's client, with a door of ours in place of its own."""

    def __init__(self, *, limits: Limits, basic: str, **named: Any) -> None:
        self.limits, self._basic = limits, basic
        super().__init__(**named)

    def log(self, run_id: str, pod: str) -> str:
        """Return the end of what a pod of a run said; "" where Kubeflow does not show it."""
        api_client, headers = self._healthz_api.api_client, dict(self._healthz_api.api_client.default_headers)
        api_client.update_params_for_auth(headers, [], ["Bearer"])
        door: Door = api_client.rest_client
        return door.text(f"{self._existing_config.host}/apis/v1beta1/runs/{run_id}/nodes/{pod}/log", headers=headers)

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        """Ask once, through a door that the first call opens, which kfp's constructor makes; kfp itself would not say what was answered."""
        api_client = self._healthz_api.api_client
        if not isinstance(api_client.rest_client, Door):
            api_client.rest_client = Door(api_client.configuration, limits=self.limits)
            if self._basic:
                api_client.set_default_header("Authorization", self._basic)
        return self._healthz_api.healthz_service_get_healthz()


def connect(limits: Limits | None = None) -> Client:
    """Return a client of the Kubeflow that the environment names.

    Raises:
        ConfigError: no host is named, or it or the token is malformed.
        ClusterError: it does not answer as Kubeflow does.
    """
    named = os.environ.get("KFP_HOST") or (IN_CLUSTER_HOST if TOKEN_FILE.exists() else "")
    if not named:
        raise ConfigError("KFP_HOST is not set; set it to the address of Kubeflow Pipelines, such as http://localhost:8080")
    host, basic = _address(named)
    token, credentials = os.environ.get("KFP_TOKEN", "").strip(), None
    if not (token.isascii() and token.isprintable()):
        raise ConfigError("KFP_TOKEN: holds characters that no token has; set it anew")
    if not token and not basic and TOKEN_FILE.exists():
        credentials = ServiceAccountTokenVolumeCredentials(path=str(TOKEN_FILE))
    given = {"existing_token": token or None, "credentials": credentials, "namespace": os.environ.get("KFP_NAMESPACE") or "kubeflow"}
    with _understood(host), warnings.catch_warnings(action="ignore"):  # of a client for Kubeflow 2, which this is
        client = _Client(host=host, limits=limits or LIMITS, basic="" if token else basic, **given)
        client.get_kfp_healthz()
    return client


def _address(text: str) -> tuple[str, str]:
    """Return the address without a user and password, and the header that says those; without a scheme, https is meant."""
    whole = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(whole)
        port, place = parts.port, parts.netloc.rpartition("@")[2]
        (parts.hostname or "").encode("idna")  # a ValueError where no host can have the name
    except ValueError:
        port, place, parts = None, "", urlsplit("")
    readable = text.isprintable() and not any(one.isspace() for one in text)
    if not readable or parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or parts.query or parts.fragment:
        raise ConfigError(f"KFP_HOST: expected http://HOST:PORT or https://HOST, without ? or # behind it; got {whole}")
    basic = ""
    if parts.username is not None:
        basic = make_headers(basic_auth=f"{unquote(parts.username)}:{unquote(parts.password or '')}")["authorization"]
    return f"{parts.scheme}://{place}{parts.path}".rstrip("/"), basic


@contextlib.contextmanager
def _understood(host: str) -> Iterator[None]:
    """Keep what kfp's client prints to itself, and turn what it makes of a strange answer into one line.

    Raises:
        ClusterError: an answer is JSON, and not what Kubeflow says.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except (ApiException, ValueError, TypeError, AttributeError, LookupError) as error:
        reason = one_line(getattr(error, "reason", None) or error)
        raise ClusterError(f"Kubeflow Pipelines at {host} answers what kfp's client cannot read ({reason})") from None


def host_of(client: Client) -> str:
    """Return the address that a client talks to; nothing in it is secret."""
    return sanitized(str(client._existing_config.host).rstrip("/"))


def run_url(client: Client, run_id: str) -> str:
    """Return the page of a run."""
    return f"{host_of(client)}/#/runs/details/{sanitized(run_id)}"


def submit(client: Client, package: Path, *, arguments: dict[str, Any], experiment: str, name: str | None) -> str:
    """Start a run of the compiled pipeline, and return its id.

    Raises:
        ClusterError: Kubeflow does not take it.
    """
    with _understood(host_of(client)):
        started = client.create_run_from_pipeline_package(str(package), arguments=arguments, experiment_name=experiment, run_name=name)
    return str(started.run_id)


def schedule(client: Client, package: Path, *, arguments: dict[str, Any], experiment: str, name: str, cron: str) -> str:
    """Let the compiled pipeline run again and again, and return the recurring run's id; runs do not overlap.

    Raises:
        ClusterError: Kubeflow does not take it.
    """
    with _understood(host_of(client)):
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


def wait(client: Client, run_id: str, *, names: Mapping[str, str]) -> None:
    """Wait for a run to end, telling what its steps (`names`: task, name for a person) do; what may pass is waited out for a while.

    Raises:
        RunFailedError: it ended otherwise than well.
        ClusterError: Kubeflow no longer answers; the run itself goes on.
    """
    teller = _Teller(names, limits=client.limits, log=lambda pod: client.log(run_id, pod))
    failing_since, failure = 0.0, ""
    while True:
        try:
            run = _look(client, run_id)
        except ClusterError as error:
            now = time.monotonic()
            failing_since = failing_since or now
            left = client.limits.patience - (now - failing_since)
            if not error.passing or left <= 0:
                raise ClusterError(*error.lines, f"run {run_id} goes on without this command; see {run_url(client, run_id)}") from None
            if str(error) != failure:
                sys.stderr.write(f"odn: {error}\nodn: the run goes on; asking again for at most {left:.0f} s\n")
            failure = str(error)
        else:
            failing_since, failure = 0.0, ""
            teller.tell(run)
            if run.state in ENDED:
                break
        time.sleep(client.limits.poll)
    if run.state not in {"SUCCEEDED", "SKIPPED"}:
        raise _failure(client, run, steps=teller.steps)


class _Teller:
    """Tell each change of a run's steps in a line, the rows of the table of depths as they come, and now and then that it goes on."""

    def __init__(self, names: Mapping[str, str], *, limits: Limits, log: Callable[[str], str]) -> None:
        self._names, self._limits, self._log = names, limits, log
        self._rows: list[str] = []
        self.steps: list[Step] = []
        self._told: dict[str, str] = {}  # state by step
        self._state = ""
        self._began = self._last_line = self._last_change = time.monotonic()
        self._frozen = False

    def tell(self, run: Any) -> None:
        """Tell what has changed since the last time."""
        self.steps = steps_of(run, self._names, now=datetime.datetime.now(datetime.UTC))
        now = time.monotonic()
        changed = [one for one in self.steps if self._told.get(one.name) != one.state]
        for one in changed:
            self._told[one.name] = one.state
            self._line(one.describe() if not one.is_running else f"{one.name}: begins")
            if one.tells:
                self._tell_rows(one)
        if run.state != self._state and (run.state in ENDED or not changed):
            self._line(self._ending(run) if run.state in ENDED else f"the run is {str(run.state).lower()}")
        self._state = run.state
        running = [one for one in self.steps if one.is_running]
        self._last_change = now if changed or running else self._last_change
        if run.state in ENDED:
            return
        if not self._frozen and now - self._last_change > self._limits.frozen:
            self._frozen = True
            self._line("Kubeflow no longer tells what the steps do (it stops where Argo's record of a run is too large); the run goes on")
        if now - self._last_line > self._limits.heartbeat:
            what = ", ".join(one.describe() for one in running) or "no step is running now"
            self._line(f"the run goes on; {what}")

    def _tell_rows(self, step: Step) -> None:
        """Tell what is new in a step's log; each such log tells all that is known so far, and so one that is gone costs nothing."""
        for row in [row for pod in step.pods[-1:] for row in told_in(self._log(pod)) if row not in self._rows]:
            self._rows.append(row)
            self._line(row)

    def _ending(self, run: Any) -> str:
        done = sum(one.state == "SUCCEEDED" for one in self.steps)
        if run.state not in {"SUCCEEDED", "SKIPPED"}:
            return f"the run has {ENDINGS[run.state]}; steps done: {done}"
        found = [f"{row}; " for row in self._rows[-1:] if row.startswith(ENDED_AS)]
        return f"the run has succeeded; {''.join(found)}steps done: {done}"

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        sys.stdout.write(f"{self._last_line - self._began:6.0f} s  {sanitized(text)}\n")
        sys.stdout.flush()


def _failure(client: Client, run: Any, *, steps: Sequence[Step]) -> RunFailedError:
    """Say which step failed, in its own words where they can be read, and where to read more."""
    reason = one_line(run.error.message) if run.error and run.error.message else ""
    failed = next((one for one in reversed(steps) if one.state == "FAILED"), None)
    said = _own_words(client, run.run_id, pods=failed.pods) if failed is not None else []
    where = f" at the step '{failed.name}'" if failed is not None else ""
    because = f" ({reason})" if reason and not said else ""
    logs = f"kubectl -n {client.get_user_namespace() or 'kubeflow'} logs -c main --tail=20 --prefix -l pipeline/runid={run.run_id}"
    return RunFailedError(
        f"run {run.run_id} ended as {run.state}{where}{because}; see {run_url(client, run.run_id)}",
        *[f"the step said: {line}" for line in said],
        f"what its pods said: {logs}",
    )


def _own_words(client: Client, run_id: str, *, pods: Sequence[str]) -> list[str]:
    """Return what odn wrote for a person in the log of a step, "" where Kubeflow does not show it."""
    for pod in reversed(pods):
        said = [line.removeprefix("odn: ").strip() for line in client.log(run_id, pod).splitlines() if line.startswith("odn: ")]
        if said:
            return said[-WORDS:]
    return []


def _look(client: Client, run_id: str) -> Any:
    """Return what Kubeflow says of a run now; an answer about another, or in a state that there is not, is none."""
    with _understood(host_of(client)):
        run = client.get_run(run_id)
    if run.run_id != run_id:
        raise ClusterError(f"Kubeflow Pipelines at {host_of(client)} was asked for run {run_id}, and answers of {run.run_id}")
    if run.state is None:
        raise ClusterError(f"Kubeflow Pipelines at {host_of(client)} answers without a state of run {run_id}", passing=True)
    if not (isinstance(run.state, str) and run.state in STATES):
        raise ClusterError(f"Kubeflow Pipelines at {host_of(client)} says that run {run_id} is {run.state!r}, which no run can be")
    return run
