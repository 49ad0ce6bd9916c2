"""The one way through which kfp's client reaches Kubeflow: every request has a limit that is told, and its answer is looked at.

kfp's own client waits for ever, follows a proxy's login page, and reads it as an answer without content.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import TimeoutError as OutOfTimeError
from multiprocessing.pool import ThreadPool
from typing import Any, TypeVar
from urllib.parse import urlsplit

from kfp_server_api.exceptions import ApiException
from kfp_server_api.rest import RESTClientObject, RESTResponse
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.exceptions import TimeoutError as UrllibTimeoutError

from odn.errors import OdnError
from odn.waiting import waiting

T = TypeVar("T")
HOW_TO_BE_LET_IN = "set KFP_TOKEN to a token that may use it, or submit from a pod with a service-account token"
PASSING = {429, 500, 502, 503, 504}  # what a server says while it, or the proxy before it, starts anew
MADE = {"experiments": "experiment_id", "runs": "run_id", "recurringruns": "recurring_run_id"}  # by a POST: the id in its answer
LONGEST_LOG = 100_000  # characters of its end
FIRST_WORDS = 160  # characters of an answer that are shown
MARKUP = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)


class ClusterError(OdnError):
    """Report a Kubeflow that cannot be reached, refuses, or answers what it should not; `passing` where that may end by itself."""

    def __init__(self, *lines: str, passing: bool = False) -> None:
        super().__init__(*lines)
        self.passing = passing


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Say how long Kubeflow is waited for, in seconds."""

    connect: float = 5.0
    get: float = 30.0  # for a whole answer
    post: float = 60.0  # Kubeflow compiles what is posted
    poll: float = 5.0  # between two looks at a run
    patience: float = 600.0  # with failures that may pass, while a run goes on
    heartbeat: float = 60.0  # without a change, after which a wait says that the run goes on
    frozen: float = 900.0  # without a running step, after which it is said that Kubeflow no longer tells


class Door(RESTClientObject):  # type: ignore[misc]  # kfp ships no types
    """Send requests for kfp's client.

    Raises:
        ClusterError: there is no answer in time, or it is a refusal, a redirection, no JSON, or lacks the id that was asked for.
    """

    def __init__(self, configuration: Any, *, limits: Limits) -> None:
        configuration.retries = False  # nor are redirections followed
        super().__init__(configuration)
        self._host, self._limits = configuration.host, limits
        self._name = f"Kubeflow Pipelines at {self._host}"

    def request(self, method: str, url: str, **named: Any) -> RESTResponse:
        """Send one request and return its answer, which is a JSON object."""
        seconds = self._limits.get if method == "GET" else self._limits.post
        named["_request_timeout"] = (min(self._limits.connect, seconds), seconds)
        doubt = "" if method == "GET" else f"; it may have been taken all the same: look at {self._host}/#/runs first"
        ask = super().request
        try:
            answer = within(lambda: ask(method, url, **named), seconds=seconds, name=self._name)
        except ApiException as error:
            if not error.status:
                raise ClusterError(
                    f"{self._name} cannot be trusted ({one_line(error.reason)}); check whether KFP_HOST should begin with http:// or https://"
                ) from None
            raise self._refusal(error) from None
        except NewConnectionError as error:
            reason = getattr(error.__cause__, "strerror", None) or one_line(error)
            raise ClusterError(
                f"{self._name} does not answer ({reason}); check KFP_HOST, or start the port-forward", passing=True
            ) from None
        except (TimeoutError, UrllibTimeoutError):
            raise ClusterError(
                f"{self._name} does not answer (silent for {seconds:g} s); check KFP_HOST, or try again later{doubt}", passing=True
            ) from None
        except HTTPError as error:
            raise ClusterError(
                f"the connection to {self._name} broke ({one_line(error.__cause__ or error)}); try again{doubt}", passing=True
            ) from None
        self._require_json(answer, method=method, path=urlsplit(url).path)
        return answer

    def text(self, url: str, *, headers: dict[str, str]) -> str:
        """Return the last of what lies at an address that is no JSON, such as a log; "" where there is none to be had."""
        seconds = self._limits.get
        try:
            ask = super().request
            limits = {"headers": headers, "_request_timeout": (self._limits.connect, seconds)}
            answer = within(lambda: ask("GET", url, **limits), seconds=seconds, name=self._name)
        except (ApiException, HTTPError, TimeoutError):
            return ""
        data = answer.data
        return (data.decode(errors="replace") if isinstance(data, bytes) else str(data))[-LONGEST_LOG:]

    def _refusal(self, error: ApiException) -> ClusterError:
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        status = f"{error.status} {error.reason}".strip()
        if error.status in {401, 403}:
            return ClusterError(f"{self._name} refuses ({status}); {HOW_TO_BE_LET_IN}")
        if 300 <= error.status < 400:
            place = headers.get("location", "another place")
            return ClusterError(f"{self._name} sends on to {place} ({status}); is that a login? {HOW_TO_BE_LET_IN}, or mend KFP_HOST")
        way_out = {404: "check that KFP_HOST is the address of Kubeflow Pipelines itself"}.get(
            error.status, "mend what it names, or try again"
        )
        return ClusterError(
            f"{self._name} refuses ({status}: {_message(error.body, headers.get('content-type'))}); {way_out}",
            passing=error.status in PASSING,
        )

    def _require_json(self, answer: RESTResponse, *, method: str, path: str) -> None:
        kind = answer.urllib3_response.headers.get("content-type")
        try:
            content = json.loads(answer.data)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise ClusterError(
                f"{self._name} answers with something else than Kubeflow does ({_message(answer.data, kind)}); "
                f"is KFP_HOST the page of a login? {HOW_TO_BE_LET_IN}"
            )
        if lacking := _lacking(content, method=method, path=path):
            raise ClusterError(
                f"{self._name} answers without {lacking} ({_message(answer.data, kind)}); check that KFP_HOST is Kubeflow Pipelines 2"
            )


def within(call: Callable[[], T], *, seconds: float, name: str) -> T:
    """Return what a call returns; a long wait for it is told.

    Raises:
        TimeoutError: it has not come back after so many seconds; it is left behind.
    """
    with waiting(name, limit=f"at most {seconds:g} s"), ThreadPool(1) as pool:
        try:
            return pool.apply_async(call).get(seconds)
        except OutOfTimeError:
            raise TimeoutError(f"{name} gave no answer within {seconds:g} s") from None


def one_line(text: object) -> str:
    """Return a library's words in one line."""
    return " ".join(str(text).split())


def _message(body: bytes | str | None, kind: str | None) -> str:
    """Show the first words of an answer: its own message where it is JSON, else its type and its text without markup."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    message = (content.get("message") or content.get("error")) if isinstance(content, dict) else None
    if isinstance(message, str):
        return one_line(message)[: 2 * FIRST_WORDS]
    words = one_line(MARKUP.sub(" ", text[: 100 * FIRST_WORDS])) if content is None else one_line(text)
    return f"{kind or 'no content type'}: {words[:FIRST_WORDS]!r}" if words else f"{kind or 'no content type'}, empty"


def _lacking(content: dict[str, Any], *, method: str, path: str) -> str:
    """Name the id that an answer should have and has not; "" where all is well."""
    *_, before, last = ("", "", *path.split("/"))
    if method == "POST" and last in MADE:
        wanted, found = MADE[last], [content]
    elif method == "GET" and last == "experiments":
        wanted, found = "experiment_id", content.get("experiments") or []
    elif method == "GET" and before == "runs":
        wanted, found = "run_id", [content]
    else:
        return ""
    whole = isinstance(found, list) and all(isinstance(one, dict) and isinstance(one.get(wanted), str) and one[wanted] for one in found)
    return "" if whole else wanted
