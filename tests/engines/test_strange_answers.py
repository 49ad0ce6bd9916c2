"""What answers in Kubeflow's place: a login page, a refusal, a server that is down or silent. Each ends soon, in a line."""

import base64
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from engines import kubeflow_api
from engines.conftest import compile_with, small_settings
from engines.kubeflow_api import Kubeflow, Strange
from pipelines import cluster
from pipelines.__main__ import main
from pipelines.door import ClusterError, Limits, within

QUICK = Limits(connect=0.5, get=0.6, post=0.6, poll=0.05, patience=0.5)
JSON = "application/json"
SUBMIT = ["submit"]
SCHEDULE = ["schedule", "--name", "nightly", "--cron", "0 0 3 * * *"]
RUN = "6a1b"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile small settings once."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "params.yaml").write_text(yaml.safe_dump(small_settings()))
    out = folder / "pipeline.yaml"
    assert compile_with("--params", str(folder / "params.yaml"), "--image", "odn-python:test", "--out", str(out)) == 0
    return out


@pytest.fixture
def kubeflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Kubeflow]:
    """Serve a Kubeflow that never gets as far as running anything, and wait for it for a moment only."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "LIMITS", QUICK)
    for name in ("KFP_TOKEN", "KFP_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    with kubeflow_api.serve(kubeflow_api.run_nothing) as double:
        monkeypatch.setenv("KFP_HOST", double.url)
        yield double


def at(part: str, strange: Strange, *, method: str = "") -> kubeflow_api.Answers:
    """Be strange where a path has a part."""
    return lambda used, path: strange if part in path and method in used else None


def refused(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was said to stderr, of which each line is odn's, after nothing on stdout."""
    out = capsys.readouterr()
    assert out.out == ""
    lines = out.err.splitlines()
    assert all(line.startswith("odn: ") for line in lines), lines
    return [line for line in lines if not line.startswith("odn: waiting for ")]


STRANGE = {
    "a login page": (
        at("", Strange()),
        "(text/html; charset=utf-8: 'Sign in Log in to go on'); is KFP_HOST the page of a login? set KFP_TOKEN",
    ),
    "a login page behind a healthy door": (at("/experiments", Strange()), "is KFP_HOST the page of a login?"),
    "a login page for what is posted": (at("", Strange(), method="POST"), "is KFP_HOST the page of a login?"),
    "a redirection": (
        at("", Strange(status=302, location="https://login.example/?state=topsecretstate")),
        "sends on to https://login.example/",
    ),
    "no token": (at("", Strange(status=401)), "refuses (401 Unauthorized); set KFP_TOKEN"),
    "a wrong token": (at("", Strange(status=403)), "refuses (403 Forbidden); set KFP_TOKEN"),
    "another server": (
        at("", Strange(status=404, body=b"nothing\x1b[2J here")),
        "check that KFP_HOST is the address of Kubeflow Pipelines itself",
    ),
    "a broken server": (
        at("", Strange(status=500, kind=JSON, body=b'{"error": "no\\nodn: database"}')),
        "refuses (500 Internal Server Error: no odn:",
    ),
    "a proxy without a server": (at("", Strange(status=503)), "refuses (503 Service Unavailable: text/html"),
    "bytes": (at("", Strange(kind=JSON, body=b"\xff\xfe\x00")), "answers with something else than Kubeflow does"),
    "bytes in a refusal": (at("", Strange(status=400, body=b"\xff\xfe")), "refuses (400 Bad Request"),
    "nothing": (at("", Strange(body=b"")), "(text/html; charset=utf-8, empty)"),
    "letters that there are not": (
        at("/experiments", Strange(kind="application/json; charset=klingon", body=b"{}")),
        "kfp's client cannot read",
    ),
    "a list": (at("", Strange(kind=JSON, body=b"[1]")), "answers with something else than Kubeflow does"),
    "deep JSON": (at("", Strange(kind=JSON, body=b"[" * 100_000)), "answers with something else than Kubeflow does"),
    "no id of an experiment": (at("/experiments", Strange(kind=JSON, body=b"{}"), method="POST"), "answers without experiment_id"),
    "experiments without ids": (at("/experiments", Strange(kind=JSON, body=b'{"experiments": [{}]}')), "answers without experiment_id"),
    "experiments that are none": (at("/experiments", Strange(kind=JSON, body=b'{"experiments": 5}')), "answers without experiment_id"),
    "no id": (at("runs", Strange(kind=JSON, body=b"{}"), method="POST"), "run_id"),
    "an empty id": (at("runs", Strange(kind=JSON, body=b'{"run_id": "", "recurring_run_id": null}'), method="POST"), "run_id"),
    "a time that is none": (
        at("runs", Strange(kind=JSON, body=b'{"run_id": "1", "recurring_run_id": "1", "created_at": "soon"}'), method="POST"),
        "answers what kfp's client cannot read",
    ),
    "a break": (at("", Strange(breaks=True)), "broke ("),
    "a break after posting": (at("runs", Strange(breaks=True), method="POST"), "it may have been taken all the same"),
    "silence": (at("", Strange(silent=1.5)), "does not answer (silent for 0.6 s)"),
}


@pytest.mark.parametrize(
    ("command", "case"),
    [(SUBMIT, case) for case in STRANGE]
    + [(SCHEDULE, case) for case in ("a login page", "a login page for what is posted", "no id", "an empty id")],
)
def test_what_is_not_kubeflow_is_told_at_once(
    command: list[str], case: str, kubeflow: Kubeflow, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No run is claimed to be started, the exit code is 2, and one line says what answered and what to do."""
    kubeflow.strange, message = STRANGE[case]
    began = time.monotonic()
    assert main([*command, "--package", str(package)]) == 2
    (line,) = refused(capsys)
    assert message in line
    assert "topsecretstate" not in line
    assert time.monotonic() - began < 30
    assert not kubeflow.runs
    assert not kubeflow.recurring_runs


def test_a_wait_shows_life(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever waits is told for what, how long already, and how long at most."""
    monkeypatch.setattr("odn.waiting.FIRST", 0.6)
    kubeflow.strange = at("", Strange(silent=1.5))
    with pytest.raises(ClusterError, match=r"silent for 1.1 s"):
        cluster.connect(Limits(get=1.1))
    assert f"odn: waiting for Kubeflow Pipelines at {kubeflow.url} (1 s; at most 1.1 s)" in capsys.readouterr().err


def test_a_drip_is_no_answer() -> None:
    """A server that sends a byte now and then never lets a socket's own limit pass; ours does."""
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="gave no answer within 0.2 s"):
        within(lambda: time.sleep(4), seconds=0.2, name="it")
    assert time.monotonic() - began < 3.5


def waited_for(kubeflow: Kubeflow, *answers: Strange | None) -> None:
    """Wait for a run of which Kubeflow says one thing after the other, the last for ever; None is that it has ended well."""
    left = list(answers)
    kubeflow.runs[RUN] = {"run_id": RUN, "state": "SUCCEEDED"}
    client = cluster.connect(QUICK)
    kubeflow.strange = lambda *_: left.pop(0) if len(left) > 1 else left[0]
    cluster.wait(client, RUN, names={})


@pytest.mark.parametrize(
    "passing", [Strange(status=502), Strange(status=503), Strange(breaks=True), Strange(kind=JSON, body=b'{"run_id": "6a1b"}')]
)
def test_what_passes_does_not_end_a_wait(passing: Strange, kubeflow: Kubeflow, capsys: pytest.CaptureFixture[str]) -> None:
    """A proxy that starts anew is told once, and waited out."""
    waited_for(kubeflow, passing, passing, None)
    out = capsys.readouterr()
    assert "the run has succeeded" in out.out
    assert out.err.count("odn: the run goes on; asking again for at most ") == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"run_id": "6a1b"}',
        b'{"run_id": "6a1b", "state": ["x"]}',
        b'{"run_id": "6a1b", "state": "BANANA"}',
        b'{"run_id": "x"}',
        b"{}",
        b"<html>",
    ],
)
def test_an_answer_that_says_nothing_ends_a_wait(body: bytes, kubeflow: Kubeflow) -> None:
    """A page that Kubeflow does not write, a state that there is not, another run: the wait ends, the run goes on."""
    with pytest.raises(ClusterError, match=f"run {RUN} goes on without this command; see {kubeflow.url}/#/runs/details/{RUN}"):
        waited_for(kubeflow, Strange(kind=JSON, body=body))


def test_a_failure_that_does_not_pass_ends_a_wait(kubeflow: Kubeflow) -> None:
    """After the time that was told."""
    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"(?s)503 Service Unavailable.*goes on without this command"):
        waited_for(kubeflow, Strange(status=503))
    assert 0.4 < time.monotonic() - began < 30


def test_an_interrupted_wait_says_that_the_run_goes_on(
    kubeflow: Kubeflow, package: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where."""

    def interrupt(method: str, path: str) -> Strange | None:
        if method == "GET" and "/runs/" in path:
            signal.raise_signal(signal.SIGINT)
        return None

    kubeflow.strange = interrupt
    assert main([*SUBMIT, "--package", str(package), "--wait"]) == 130
    (run,) = kubeflow.runs
    assert f"odn: interrupted; run {run} on the cluster goes on; see {kubeflow.url}/#/runs/details/{run}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "host",
    [
        "ftp://127.0.0.1",
        "http://",
        "http://127.0.0.1:x",
        "http://127.0.0.1:99999",
        "http://[::1",
        "http://127.0.0.1/?a=b",
        "http://127.0.0.1/#/runs",
        "http://a b",
        "http://a\x1b[2J",
    ],
)
def test_an_address_that_is_none_is_refused(
    host: str, kubeflow: Kubeflow, package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anybody is asked."""
    monkeypatch.setenv("KFP_HOST", host)
    assert main([*SUBMIT, "--package", str(package)]) == 2
    (line,) = refused(capsys)
    assert line.startswith("odn: KFP_HOST: expected http://HOST:PORT")


@pytest.mark.parametrize("token", ["a\nb", "é"])
def test_a_token_that_cannot_be_sent_is_refused(
    token: str, kubeflow: Kubeflow, package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without showing it."""
    monkeypatch.setenv("KFP_TOKEN", f"longsecret{token}")
    assert main([*SUBMIT, "--package", str(package)]) == 2
    assert refused(capsys) == ["odn: KFP_TOKEN: holds characters that no token has; set it anew"]


def test_a_user_and_password_in_the_address_are_sent_and_not_shown(
    kubeflow: Kubeflow, package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the header that a proxy wants."""
    monkeypatch.setenv("KFP_HOST", kubeflow.url.replace("//", "//mila:pass%20word@"))
    assert main([*SUBMIT, "--package", str(package)]) == 0
    assert kubeflow.authorizations == {"Basic " + base64.b64encode(b"mila:pass word").decode()}
    out = capsys.readouterr()
    (run,) = kubeflow.runs
    assert out.out == f"run {run}: {kubeflow.url}/#/runs/details/{run}\n"
    assert not out.err


def test_an_address_without_https_says_so(
    kubeflow: Kubeflow, package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where https is asked of a server that speaks http."""
    monkeypatch.setenv("KFP_HOST", kubeflow.url.removeprefix("http://"))
    assert main([*SUBMIT, "--package", str(package)]) == 2
    (line,) = refused(capsys)
    assert "should begin with http:// or https://" in line
