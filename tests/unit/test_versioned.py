"""Data that another repository versions with DVC comes here by revision, or the reason is said."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from odn.errors import DataError
from odn.versioned import commit_of, pull_data, require_fetched


def run(folder: Path, *command: str) -> str:
    """Run a command in a folder."""
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a repository whose data/ has two versions, tagged one and two, in a DVC remote."""
    folder, remote = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("remote")
    dvc = (sys.executable, "-m", "dvc")
    run(folder, "git", "init", "--quiet", "--initial-branch", "main")
    run(folder, *dvc, "init", "--quiet")
    run(folder, *dvc, "remote", "add", "--quiet", "--default", "store", str(remote))
    for version in ("one", "two"):
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data/words.txt").write_text(version)
        if version == "two":
            (folder / "data/SHA256SUMS").write_text("as 'odn fetch' writes it")
        run(folder, *dvc, "add", "--quiet", "data")
        run(folder, *dvc, "push", "--quiet")
        run(folder, "git", "add", "--all")
        run(folder, "git", "-c", "user.name=odn", "-c", "user.email=odn@example.com", "commit", "--quiet", "-m", version)
        run(folder, "git", "tag", version)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("revision", "text"), [("one", "one"), ("two", "two"), ("", "two")])
def test_a_revision_brings_its_own_data(repository: Path, revision: str, text: str, tmp_path: Path) -> None:
    """A tag brings what it versioned, no revision what the default branch has; by commit it is the same."""
    commit = commit_of(str(repository), revision=revision)
    assert commit == run(repository, "git", "rev-parse", revision or "main")
    pull_data(str(repository), revision=commit, into=tmp_path / "data")
    assert (tmp_path / "data/words.txt").read_text() == text


def test_a_commit_is_a_revision(repository: Path) -> None:
    """What the repository does not list by name is taken to be a commit."""
    commit = run(repository, "git", "rev-parse", "one")
    assert commit_of(str(repository), revision=commit) == commit


@pytest.mark.slow
def test_data_made_by_hand_is_refused_before_anything_costs_time(repository: Path) -> None:
    """The first step looks for the list that `odn fetch` writes, and says how to come by it."""
    require_fetched(str(repository), revision="two")
    with pytest.raises(DataError, match=r"at one was not fetched by odn \(it has no SHA256SUMS\); there, .* run 'odn fetch'"):
        require_fetched(str(repository), revision="one")


@pytest.mark.slow
def test_an_unknown_revision_is_said(repository: Path, tmp_path: Path) -> None:
    """The message names repository, revision and way out; nothing is left behind."""
    with pytest.raises(DataError, match=r"at three cannot be brought here .*check the repository, the revision"):
        pull_data(str(repository), revision="three", into=tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_data_that_was_never_pushed_is_said(tmp_path: Path) -> None:
    """The repository names data that its remote does not hold."""
    for command in (
        ["git", "init", "--quiet"],
        [sys.executable, "-m", "dvc", "init", "--quiet"],
        ["sh", "-c", "mkdir data && echo word >data/words.txt"],
        [sys.executable, "-m", "dvc", "add", "--quiet", "data"],
        ["git", "add", "--all"],
        ["git", "-c", "user.name=odn", "-c", "user.email=odn@example.com", "commit", "--quiet", "-m", "one"],
        ["rm", "-rf", "data", ".dvc/cache"],
    ):
        run(tmp_path, *command)
    with pytest.raises(
        DataError, match=r"at its default branch cannot be brought here \([^)]*(failed|missing|No such file|does not exist)"
    ):
        pull_data(str(tmp_path), revision="", into=tmp_path / "into")


def test_a_repository_that_is_not_there_is_said_without_its_password(tmp_path: Path) -> None:
    """Credentials in an address do not reach a message."""
    with pytest.raises(DataError, match="cannot be brought here") as caught:
        commit_of("https://someone:hunter2@127.0.0.1:9/repository.git", revision="main")
    assert "hunter2" not in str(caught.value)


def test_a_repository_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The wait is told with its limit, and git ends with it."""
    monkeypatch.setattr("odn.waiting.FIRST", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://someone:hunter22@127.0.0.1:{silent.getsockname()[1]}/r.git"
        with pytest.raises(DataError, match=r"r\.git at main cannot be brought here \(no answer within 0\.5 s\)") as caught:
            commit_of(address, revision="main", limit=0.5)
    said = capsys.readouterr().err
    assert said.startswith("odn: waiting for data/ of http://***@127.0.0.1:")
    assert "at most 0.5 s" in said
    assert "hunter22" not in said + str(caught.value)
