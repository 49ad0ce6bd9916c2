"""Bring data that DVC versions out of a git repository: the only module that runs dvc.

A revision is a branch, a tag or a commit; "" is the repository's default branch. Credentials come from git's and the DVC remote's own
places, such as AWS_ACCESS_KEY_ID.
"""

import os
import subprocess
import sys
from pathlib import Path

from odn.errors import DataError
from odn.tracking.place import without_secrets

DATA = "data"  # what data.dvc versions


def pull_data(repository: str, *, revision: str, into: Path) -> None:
    """Bring the data of a repository at a revision into a new folder.

    Raises:
        DataError: the repository, the revision, its data.dvc or the remote cannot be read.
    """
    command = [sys.executable, "-m", "dvc", "get", repository, DATA, "--out", str(into)]
    done = _run(command + (["--rev", revision] if revision else []))
    if done.returncode:
        raise _refusal(repository, revision, done.stderr.partition("ERROR: ")[2])


def commit_of(repository: str, *, revision: str) -> str:
    """Return the commit that a revision is now; a revision that the repository does not list is a commit already.

    Raises:
        DataError: the repository cannot be read.
    """
    done = _run(["git", "ls-remote", "--", repository, revision or "HEAD"])
    if done.returncode:
        raise _refusal(repository, revision, done.stderr)
    return done.stdout.split("\t")[0].strip() or revision


def _run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "DVC_NO_ANALYTICS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def _refusal(repository: str, revision: str, said: str) -> DataError:
    shown = without_secrets(repository, uri=repository)
    reason = next((line for line in said.splitlines() if line.strip() and "Having any troubles" not in line), "no reason is given")
    return DataError(
        f"{DATA}/ of {shown} at {revision or 'its default branch'} cannot be brought here ({without_secrets(reason, uri=repository)}); "
        "check the repository, the revision, that data.dvc is pushed to a remote, and that the credentials are set"
    )
