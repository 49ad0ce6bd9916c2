"""What a user hands to the pipeline's commands, and what a strange Kubeflow hands back: nothing is lost, nothing secret is told."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from engines import kubeflow_api
from engines.conftest import compile_with, small_settings
from engines.kubeflow_api import Kubeflow, Strange
from pipelines import cluster
from pipelines.__main__ import main
from pipelines.door import Limits
from pipelines.local import MARKER

ROOT = Path(__file__).parents[2]
JSON = "application/json"
SECRETS = {
    "KFP_TOKEN": "token-Zq81",
    "AWS_ENDPOINT_URL": "http://minio:endpoint-Zq82@127.0.0.1:9",
    "AWS_SECRET_ACCESS_KEY": "key-Zq83",
    "MLFLOW_TRACKING_URI": "http://mila:uri-Zq84@127.0.0.1:9/?token=query-Zq85",
    "MLFLOW_TRACKING_PASSWORD": "password-Zq86",
    "MLFLOW_TRACKING_TOKEN": "token-Zq87",
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile one depth, once."""
    folder, settings = tmp_path_factory.mktemp("package"), small_settings()
    settings["search"]["schedule"] = [1]
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    out = folder / "pipeline.yaml"
    assert compile_with("--params", str(folder / "params.yaml"), "--image", "odn-python:test", "--out", str(out)) == 0
    return out


@pytest.fixture
def kubeflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Kubeflow]:
    """Serve a Kubeflow that runs nothing, and wait for it for a moment only."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "LIMITS", Limits(connect=0.5, get=0.6, post=0.6, poll=0.05, patience=0.3))
    for name in ("KFP_TOKEN", "KFP_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    with kubeflow_api.serve(lambda *_: None) as double:
        monkeypatch.setenv("KFP_HOST", double.url)
        yield double


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that was said."""
    out = capsys.readouterr()
    (line,) = out.err.splitlines()
    assert line.startswith("odn: ")
    assert line.isprintable()
    return line


@pytest.mark.parametrize(
    ("method", "kind", "body"),
    [
        ("GET", f"{JSON}; charset=banana", b'{"multi_user": false}'),
        ("POST", JSON, b'{"run_id": "1", "runtime_config": {"parameters": [1]}}'),
        ("POST", JSON, b'{"run_id": "1", "run_details": {"task_details": 5}}'),
        ("POST", JSON, b'{"run_id": "1", "created_at": {}}'),
    ],
)
def test_json_that_kfp_cannot_read_is_one_line(
    method: str, kind: str, body: bytes, kubeflow: Kubeflow, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever kfp's client makes of it, no traceback is shown."""
    place = "/runs" if method == "POST" else ""
    kubeflow.strange = lambda used, path: Strange(kind=kind, body=body) if used == method and path.endswith(place) else None
    assert main(["submit", "--package", str(package)]) == 2
    assert "answers what kfp's client cannot read" in one_line(capsys)


@pytest.mark.parametrize(
    "host", ["mila:hunter-Zq88@HOST/?a=b", "mila:hunter-Zq88@HOST:x", "http://mila:hunter-Zq88@[HOST", "a:hunter-Zq88@ b"]
)
def test_a_password_in_a_malformed_address_is_not_shown(
    host: str, kubeflow: Kubeflow, package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With or without a scheme before it."""
    monkeypatch.setenv("KFP_HOST", host.replace("HOST", kubeflow.url.removeprefix("http://")))
    assert main(["submit", "--package", str(package)]) == 2
    assert "hunter-Zq88" not in one_line(capsys)


def test_a_name_that_no_host_has_is_not_tried_again(
    kubeflow: Kubeflow, package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the address that has to be mended."""
    monkeypatch.setenv("KFP_HOST", f"http://{'a' * 300}")
    assert main(["submit", "--package", str(package)]) == 2
    assert "KFP_HOST: expected http://HOST:PORT" in one_line(capsys)


def without_type(inputs: dict[str, Any]) -> None:
    """Take the type away."""
    del inputs["target"]["parameterType"]


@pytest.mark.parametrize("change", [without_type, lambda inputs: inputs["target"].update(parameterType="LIST")], ids=["none", "list"])
def test_a_parameter_of_another_type_is_refused(
    change: Callable[[dict[str, Any]], None], package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A YAML that was edited says which argument cannot be given."""
    documents = list(yaml.safe_load_all(package.read_text()))
    change(documents[0]["root"]["inputDefinitions"]["parameters"])
    (tmp_path / "p.yaml").write_text(yaml.safe_dump_all(documents))
    assert main(["submit", "--package", str(tmp_path / "p.yaml"), "target=0.5"]) == 2
    assert "target" in one_line(capsys)


@pytest.mark.parametrize("out", [".", "..", "~", "link", "link/", "mine", "mine/thesis.txt", "mine/thesis.txt/run"])
def test_a_local_run_replaces_nothing_of_a_users(
    out: str, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither files, nor the current folder, one that holds it, a home, or what a link leads to."""
    home, here = tmp_path / "home", tmp_path / "home/here"
    (here / "mine").mkdir(parents=True)
    (here / "mine/thesis.txt").write_text("two years")
    (tmp_path / "empty").mkdir()
    (here / "link").symlink_to(tmp_path / "empty")
    for folder in (home, here):
        (folder / MARKER).write_text("left by a run that an older version allowed")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    before = sorted(tmp_path.rglob("*"))
    assert main(["run-local", "--package", str(package), "--out", out.replace("~", str(home))]) == 2
    line = one_line(capsys)
    assert any(words in line for words in ("cannot be replaced", "--out", "thesis.txt"))
    assert sorted(tmp_path.rglob("*")) == before
    assert (here / "mine/thesis.txt").read_text() == "two years"


@pytest.fixture
def planted(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> Kubeflow:
    """Plant a secret in every variable that the commands read."""
    monkeypatch.setenv("KFP_HOST", kubeflow.url.replace("//", "//mila:host-Zq80@"))
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return kubeflow


@pytest.mark.parametrize(
    "strange",
    [
        Strange(),
        Strange(body=b"you sent Bearer token-Zq81 and key-Zq83"),
        Strange(status=401),
        Strange(status=302, location="https://login.example/?back=Zq89"),
        Strange(status=500, kind=JSON, body=b'{"error": "no token-Zq81 at http://mila:host-Zq80@kubeflow/"}'),
        Strange(silent=0.8),
        Strange(breaks=True),
        None,
    ],
)
def test_no_secret_is_told_by_a_strange_kubeflow(
    strange: Strange | None, planted: Kubeflow, package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even one that the server echoes."""
    planted.strange = lambda *_: strange
    if strange is None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            monkeypatch.setenv("KFP_HOST", f"http://mila:host-Zq80@127.0.0.1:{closed.getsockname()[1]}/?key=Zq89")
    for command in (["submit", "--wait"], ["schedule", "--name", "nightly", "--cron", "0 0 3 * * *"]):
        assert main([*command, "--package", str(package)]) == 2
    out = capsys.readouterr()
    assert "Zq8" not in out.out + out.err
