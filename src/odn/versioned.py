"""Bring data that DVC versions out of a git repository: the only module that runs dvc.

A revision is a branch, a tag or a commit; "" is the repository's default branch. Credentials come from git's and the DVC remote's own
places, such as AWS_ACCESS_KEY_ID.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from odn.errors import DataError
from odn.sanitize import redacted
from odn.waiting import waiting

DATA, LISTED = "data", "SHA256SUMS"  # what data.dvc versions, and the file in it that `odn fetch` writes
ASK_SECONDS = 60.0  # for what a revision is
PULL_SECONDS = 6 * 3600.0  # for a data set; a repository that sends nothing is given up after STALL_SECONDS
STALL_SECONDS = 60
UNATTENDED = {  # nobody is there to type a password, and a silent network is given up
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_HTTP_LOW_SPEED_LIMIT": "1",  # bytes a second
    "GIT_HTTP_LOW_SPEED_TIME": str(STALL_SECONDS),
    "DVC_NO_ANALYTICS": "1",
}


def pull_data(repository: str, *, revision: str, into: Path) -> None:
    """Bring the data of a repository at a revision into a new folder.

    Raises:
        DataError: the repository, the revision, its data.dvc or the remote cannot be read.
    """
    command = [sys.executable, "-m", "dvc", "get", repository, DATA, "--out", str(into)]
    done = _run(command + (["--rev", revision] if revision else []), of=repository, revision=revision, limit=PULL_SECONDS)
    if done.returncode:
        raise _refusal(repository, revision, done.stderr.partition("ERROR: ")[2])


def commit_of(repository: str, *, revision: str, limit: float = ASK_SECONDS) -> str:
    """Return the commit that a revision is now; a revision that the repository does not list is a commit already.

    `limit` is in seconds.

    Raises:
        DataError: the repository cannot be read.
    """
    done = _run(["git", "ls-remote", "--", repository, revision or "HEAD"], of=repository, revision=revision, limit=limit)
    if done.returncode:
        raise _refusal(repository, revision, done.stderr)
    return done.stdout.split("\t")[0].strip() or revision


def require_fetched(repository: str, *, revision: str, limit: float = ASK_SECONDS) -> None:
    """Require that the data of a repository were fetched by odn, which lists what every file must hold.

    Raises:
        DataError: they were not, or the repository cannot be read.
    """
    command = [sys.executable, "-m", "dvc", "list", repository, DATA]
    done = _run(command + (["--rev", revision] if revision else []), of=repository, revision=revision, limit=limit)
    if done.returncode:
        raise _refusal(repository, revision, done.stderr.partition("ERROR: ")[2])
    if LISTED not in done.stdout.split():
        raise DataError(
            f"{DATA}/ of {repository} at {revision or 'its default branch'} was not fetched by odn (it has no {LISTED}); there, with a "
            f"params.yaml whose data.source and data.root name the images, run 'odn fetch', put downloads/ in the place of {DATA}/, "
            f"'dvc add {DATA}', 'dvc push', and commit {DATA}.dvc"
        )


def _run(command: list[str], *, of: str, revision: str, limit: float) -> "subprocess.CompletedProcess[str]":
    """Run a command with all that it starts, in a session of its own, and end them all when the limit is reached."""
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with (
        waiting(f"{DATA}/ of {redacted(of)}", limit=f"at most {limit:g} s"),
        subprocess.Popen(command, env={**os.environ, **UNATTENDED}, start_new_session=True, **pipes) as process,
    ):
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise _refusal(of, revision, f"no answer within {limit:g} s") from None
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _refusal(repository: str, revision: str, said: str) -> DataError:
    reason = next((line for line in said.splitlines() if line.strip() and "Having any troubles" not in line), "no reason is given")
    return DataError(
        f"{DATA}/ of {repository} at {revision or 'its default branch'} cannot be brought here ({reason}); "
        "check the repository, the revision, that data.dvc is pushed to a remote, and that the credentials are set"
    )
