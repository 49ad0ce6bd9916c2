"""Clumsy words to `python -m pipelines`: each is refused in one line before anything is written, sent or removed."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
import yaml

from engines import kubeflow_api
from engines.conftest import compile_with, files_of, small_settings
from pipelines import cluster
from pipelines.__main__ import main
from pipelines.door import Limits
from pipelines.names import require_cpu, require_cron, require_image, require_memory
from pipelines.platform import Platform

SUBMIT, RUN_LOCAL = ["submit"], ["run-local"]
SCHEDULE = ["schedule", "--name", "nightly", "--cron", "0 0 3 * * *"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with small settings."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(small_settings()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KFP_HOST", "http://127.0.0.1:9")  # closed
    return tmp_path


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that was said."""
    out = capsys.readouterr()
    assert out.out == ""
    (line,) = out.err.splitlines()
    assert line.startswith("odn: ")
    return line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "."], "--out: expected a file that ends in .yaml; got . (a folder)"),
        (["--out", "taken.yaml"], "got taken.yaml (a folder)"),
        (["--out", ""], "--out: expected a file that ends in .yaml"),
        (["--out", "pipeline.json"], "--out: expected a file that ends in .yaml; got pipeline.json"),
        (["--out", "params.yaml/p.yaml"], "params.yaml"),
        (["--out", f"{'x' * 300}.yaml"], "File name too long"),
        (["--params", "."], ". cannot be read"),
        (["--cpu", "abc"], "--cpu: expected a number of cores > 0, such as 4, 0.5 or 500m; got 'abc'"),
        (["--cpu", "0"], "--cpu: expected"),
        (["--cpu", "-1"], "--cpu"),
        (["--cpu", "4\n"], "--cpu: expected"),
        (["--memory", "lots"], "--memory: expected a whole number with a unit (Ki, Mi, Gi, Ti), such as 8Gi; got 'lots'"),
        (["--memory", "8"], "is a unit missing, as in 8Gi?"),
        (["--memory", "8GB"], "--memory: expected"),
        (["--memory", "0Gi"], "--memory: '0Gi' is less than the 64Mi"),
        (["--memory", "٨Gi"], "--memory: expected"),
        (["--gpus", "-1"], "--gpus: expected a whole number from 0 to 16; got -1"),
        (["--gpus", "17"], "--gpus: expected a whole number from 0 to 16; got 17"),
        (["--secret", "My_Secret"], "--secret: expected small letters, digits, - and ., as Kubernetes names its objects"),
        (["--secret", "a" * 254], "--secret: expected"),
        (["--secret", "a..b"], "--secret: expected"),
        (["--secret", "odn-env\n"], "--secret: expected"),
        (["--pvc=-odn"], "--pvc: expected"),
        (["--node-selector", "pool"], "--node-selector: expected LABEL=VALUE"),
        (["--node-selector", "=gpu"], "--node-selector: expected LABEL=VALUE"),
        (["--node-selector", "a b=gpu"], "--node-selector: expected LABEL=VALUE"),
        (["--node-selector", "pool=a=b"], "--node-selector: expected LABEL=VALUE"),
        (["--node-selector", "A_b/pool=gpu"], "--node-selector: expected LABEL=VALUE"),
        (["--node-selector", f"pool={'x' * 64}"], "--node-selector: expected LABEL=VALUE"),
        (
            ["--node-selector", "pool=a", "--node-selector", "pool=b"],
            "--node-selector: label pool is given twice, as 'a' and 'b'; keep one",
        ),
        (["--image", "Registry/Odn:1"], "--image: expected [REGISTRY[:PORT]/]NAME:TAG"),
        (["--image", "ODN:1"], "(did you mean odn:1?)"),
        (["--image", "odn:1\n"], "--image: expected"),
        (["--image", "odn@sha256:12"], "--image: expected"),
        (["--image", "http://registry/odn:1"], "--image: expected"),
        (["--image", "registry:5000/odn"], "does not say which image is meant"),
        (["--image", "odn:\udcff"], "--image: expected"),
    ],
)
def test_what_cannot_be_compiled_is_refused(options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The flag is named, and no file has come or gone."""
    (folder / "taken.yaml").mkdir()
    before = files_of(folder)
    assert compile_with("--image", "odn-python:test", *options) == 2
    assert message in only_line(capsys)
    assert files_of(folder) == before


def test_what_kubernetes_takes_is_taken() -> None:
    """No name is refused for being unusual."""
    for image in ("odn:1", "r:5000/a/b_c/d--e:V1.0-x", f"odn@sha256:{'0' * 64}", f"R.example/odn:1@sha256:{'a' * 64}", "[::1]:5000/odn:1"):
        require_image("--image", image)
    for cpu in ("4", "0.5", "500m", "16"):
        require_cpu("--cpu", cpu)
    for memory in ("8Gi", "512Mi", "8G", "67108864", "1Ti"):
        require_memory("--memory", memory)
    for cron in ("0 0 3 * * *", "*/10 0-30/5 1,2 ? JAN-Mar mon-fri", "59 59 23 31 12 6"):
        require_cron("--cron", cron)
    platform = Platform(image="odn:1", secret="a.b-c", pvc="x1", node_selector={})
    assert (platform.image, platform.secret, platform.pvc) == ("odn:1", "a.b-c", "x1")


PACKAGES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it has no 'pipelineInfo'"),
    "nothing in it": (b"{}", "it has no 'pipelineInfo'"),
    "a list": (b"[1, 2]", "holds no compiled pipeline"),
    "a word": (b"hello", "holds no compiled pipeline"),
    "a number": (b"3", "holds no compiled pipeline"),
    "null": (b"null", "holds no compiled pipeline"),
    "binary": (b"\x89PNG\r\n\x1a\n\x00\xff", "holds no compiled pipeline"),
    "another YAML": (b"seed: 0\ndata: {source: digits}\n", "holds no compiled pipeline"),
    "numbers as keys": (b"1: 2\n3: 4\n", "holds no compiled pipeline"),
    "a date that is none": (b"pipelineInfo: 2024-99-99\n", "holds no compiled pipeline"),
    "an integer that is none": (b"pipelineInfo: !!int abc\n", "holds no compiled pipeline"),
    "a tag": (b"!!python/object/apply:os.system ['touch pwned']\n", "holds no compiled pipeline"),
    "deep": (b"[" * 20_000, "holds no compiled pipeline"),
    "aliases": (b"a: &a [x, x]\nb: [*a, *a]\n", "it has aliases"),
    "a second document that is none": (b"pipelineInfo: {name: x}\n---\n- 1\n", "holds no compiled pipeline"),
    "another pipeline": (
        b"pipelineInfo: {name: theirs}\nroot: {inputDefinitions: {parameters: {}}}\n",
        "holds the pipeline 'theirs', not odn's",
    ),
    "huge": (b"#" * (16 * 2**20 + 1), "more than the 16,777,216 of any pipeline"),
}


@pytest.mark.parametrize("case", PACKAGES)
def test_a_package_that_is_none_is_refused(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before a cluster is asked or a folder made."""
    content, message = PACKAGES[case]
    (folder / "p.yaml").write_bytes(content)
    assert main([*SUBMIT, "--package", "p.yaml"]) == 2
    assert message in only_line(capsys)
    assert not (folder / "pwned").exists()


@pytest.mark.parametrize("command", [SUBMIT, SCHEDULE, RUN_LOCAL], ids=["submit", "schedule", "run-local"])
@pytest.mark.parametrize("package", [".", "params.txt", "pipe.yaml", "p.yaml/p.yaml"])
def test_a_package_that_is_no_file_is_refused(command: list[str], package: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder, another ending, a pipe that nobody writes to."""
    (folder / "params.txt").write_text("{}")
    (folder / "p.yaml").write_text("{}")
    os.mkfifo(folder / "pipe.yaml")
    before = sorted(folder.iterdir())
    assert main([*command, "--package", package]) == 2
    assert package in only_line(capsys)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["submit", "--name", ""], "--name: expected a name of 1 to 255 printable characters; got ''"),
        (["submit", "--name", "a\nodn: all is well"], "--name: expected"),
        (["submit", "--name", "x" * 256], "--name: expected"),
        (["schedule", "--name", " ", "--cron", "0 0 3 * * *"], "--name: expected"),
        (["schedule", "--name", "n", "--cron", "0 3 * * *"], "--cron: expected six fields, seconds first, such as '0 0 3 * * *'; got 5"),
        (
            ["schedule", "--name", "n", "--cron", "0 0 24 * * *"],
            "--cron: the hour must be *, or numbers from 0 to 23 with , - and /; got '24'",
        ),
        (["schedule", "--name", "n", "--cron", "0 0 3 0 * *"], "--cron: the day of month must be"),
        (["schedule", "--name", "n", "--cron", "0 0 3 * 5-2 *"], "--cron: the month must be"),
        (["schedule", "--name", "n", "--cron", "*/0 * * * * *"], "--cron: the second must be"),
        (["schedule", "--name", "n", "--cron", "every night at three"], "--cron: expected six fields"),
        (["schedule", "--name", "n", "--cron", "a b c d e f"], "--cron: the second must be"),
        (["schedule", "--name", "n", "--cron", ""], "--cron: expected six fields"),
    ],
)
def test_a_name_or_time_that_is_none_is_refused(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is read or sent."""
    assert main(arguments) == 2
    assert message in only_line(capsys)


def test_run_local_removes_nothing_that_it_did_not_write(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of a user's, the working folder, a file, a link to a folder: all stay, and the way out is said."""
    assert compile_with("--image", "odn-python:test", "--out", "p.yaml") == 0
    capsys.readouterr()
    (folder / "mine/run").mkdir(parents=True)
    (folder / "mine/run/thesis.txt").write_text("years")
    (folder / "mine/log.txt").write_text("mine too")
    (folder / "link").symlink_to("mine")
    before = files_of(folder)
    for out, message in (
        ("mine", "mine holds files that no run-local wrote"),
        ("link", "link cannot be replaced: it is a link"),
        (".", "cannot be replaced: it is the current folder"),
        ("p.yaml", "it is no folder"),
    ):
        assert main([*RUN_LOCAL, "--package", "p.yaml", "--out", out]) == 2
        assert message in only_line(capsys)
        assert files_of(folder) == before


def test_run_local_replaces_its_own_and_leaves_the_rest(
    folder: Path, programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a run before wrote goes; a note that was laid beside it stays."""
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    assert compile_with("--image", "odn-python:test", "--out", "p.yaml") == 0
    here = [*RUN_LOCAL, "--package", "p.yaml", "--out", "runs/one", "data_source=folder", "data_root=gone"]
    assert main(here) == 1
    (folder / "runs/one/note.txt").write_text("keep me")
    (folder / "runs/one/run/old").mkdir()
    assert main(here) == 1
    assert (folder / "runs/one/note.txt").read_text() == "keep me"
    assert not (folder / "runs/one/run/old").exists()
    assert "Traceback" not in capsys.readouterr().err


def test_a_container_that_left_nothing_is_no_success(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Docker may have removed one that failed before kfp.local asks how it ended; kfp.local then calls it a success."""
    from kfp.local import status
    from kfp.local.docker_task_handler import DockerTaskHandler

    assert compile_with("--image", "odn-python:test", "--out", "p.yaml") == 0
    monkeypatch.setattr(DockerTaskHandler, "run", lambda _: status.Status.SUCCESS)
    assert main([*RUN_LOCAL, "--package", "p.yaml", "--docker"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"odn: the run failed: Tried to get output '(version|config)' from task 'configure'", line)


def test_an_interrupted_local_run_claims_nothing_of_a_cluster(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has ended."""
    from kfp import local

    assert compile_with("--image", "odn-python:test", "--out", "p.yaml") == 0
    monkeypatch.setattr(local, "init", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    assert main([*RUN_LOCAL, "--package", "p.yaml"]) == 130
    assert capsys.readouterr().err == "odn: interrupted; the run has ended here; the same command begins it anew\n"


SECRETS = {
    "KFP_TOKEN": "kfp-token-topsecret",
    "AWS_ENDPOINT_URL": "http://mila:aws-topsecret@127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "aws-key-topsecret",
    "AWS_SESSION_TOKEN": "aws-session-topsecret",
    "MLFLOW_TRACKING_URI": "postgresql://mila:db-topsecret@127.0.0.1:9/mlflow?password=db-topsecret",
    "MLFLOW_TRACKING_USERNAME": "mila",
    "MLFLOW_TRACKING_PASSWORD": "mlflow-topsecret",
    "MLFLOW_TRACKING_TOKEN": "mlflow-token-topsecret",
}


def test_no_secret_of_the_environment_is_ever_shown(
    folder: Path, programs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither by a command that does well nor by one that fails, nor in the YAML or the log."""
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cluster, "LIMITS", Limits(connect=0.5, get=1, post=1, poll=0.05))
    with kubeflow_api.serve(kubeflow_api.run_nothing) as double:
        good = double.url.replace("//", "//mila:kfp-topsecret@")
        hosts = (good, f"{good}?token=topsecret", "http://mila:kfp-topsecret@127.0.0.1:9", "mila:kfp-topsecret@127.0.0.1:9")
        ended = [compile_with("--image", "odn-python:test", "--out", "p.yaml"), compile_with("--image", "http://mila:kfp-topsecret@host")]
        for host in hosts:
            monkeypatch.setenv("KFP_HOST", host)
            ended += [main([*SUBMIT, "--package", "p.yaml", "--wait"]), main([*SCHEDULE, "--package", "p.yaml"])]
        failing = ["data_source=folder", "data_root=gone"]
        ended += [main([*RUN_LOCAL, "--package", "p.yaml", *failing]), main(["fetch", "models:/odn@champion"])]
    assert ended[:4] == [0, 2, 0, 0]
    assert set(ended[4:]) <= {1, 2}
    out = capfd.readouterr()
    texts = {"stdout": out.out, "stderr": out.err} | {name: data.decode(errors="replace") for name, data in files_of(folder).items()}
    texts = {name: text for name, text in texts.items() if not name.startswith(".odn/local/run/")}  # what the steps keep for one another
    assert [name for name, text in texts.items() if "topsecret" in text] == []
    assert "Traceback" not in out.err
