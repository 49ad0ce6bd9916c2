"""Run a compiled pipeline on this machine with `kfp.local`: as processes of this environment, or in the real image."""

import contextlib
import io
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import yaml
from docker.errors import DockerException
from kfp import components, local

from odn.commands import show
from odn.config import make_config
from odn.errors import ConfigError
from odn.files import require_place, write_text
from odn.report.summary import Summary
from odn.sanitize import escaped, redacted
from pipelines.errors import RunFailedError

OUTPUTS = {  # artifact: the component that writes it last
    "search": "check",
    "model": "truncate",
    "results": "export",
    "exported": "export",
    "report": "report",
    "registration": "register",
}
SHOWN = re.compile(r"Executing task|finished with status|^    (depth |odn( table)?: )")  # of what kfp.local and the steps say
COLOR = re.compile("\x1b\\[[0-9;]*m")
PROGRESS = "ODN_PROGRESS"  # variable of the folder that keeps interrupted trainings
MARKER = ".run-local"  # file that says that a folder is a run's own
STORE = "sqlite:///{}/mlflow.db"


@dataclass(frozen=True)
class LocalRun:
    """Say where the artifacts of a finished run are."""

    root: Path
    artifacts: dict[str, Path]

    def summary(self) -> Summary:
        """Return the short summary of what the run found."""
        results = self.artifacts["results"]
        config = make_config((results / "config.json").read_text())
        return show.run(
            config,
            model=self.artifacts["model"],
            metrics=results / "metrics",
            report=self.artifacts["report"],
            exported=self.artifacts["exported"],
            registered_weights=self.artifacts["registration"] / "registered.json",
            registration=self.artifacts["registration"] / "registration.json",
        )


def run_local(package: Path, *, arguments: dict[str, Any], root: Path, docker: bool) -> LocalRun:
    """Run the YAML below `root`, and return where its artifacts are; what an earlier run wrote there is removed first.

    What its steps say goes to log.txt there, in short also to the terminal. Without MLFLOW_TRACKING_URI, runs go to the mlflow.db of
    the current folder; with `docker`, to one below `root`.

    Raises:
        ConfigError: `root` is in use, and not by an earlier run.
        RunFailedError: a step failed; its lines stand above.
    """
    root = root.absolute()
    runs, log = root / "run", root / "log.txt"
    _make_room(root)
    runs.mkdir()
    uri = os.environ.get("MLFLOW_TRACKING_URI") or STORE.format(Path.cwd())
    if docker:
        runs.chmod(0o777)  # the image's user is another than this one
        uri = uri if uri.startswith("http") else STORE.format(runs)  # a container sees no file but those of the run
    runner = _docker_runner(runs, uri) if docker else local.SubprocessRunner(use_venv=False)
    with _environment(uri, runs), _open_to_all(enabled=docker), _logged(log):
        local.init(runner, pipeline_root=str(runs), raise_on_error=True)
        try:
            components.load_component_from_text(_made_local(package))(**arguments)
        except (RuntimeError, ValueError) as error:  # a ValueError: what a step should have left is not there (see `last_artifact`)
            raise RunFailedError(
                f"the run failed: {' '.join(COLOR.sub('', str(error)).split())} Its steps' own words are in {log}"
            ) from None
        except DockerException as error:
            raise RunFailedError(
                f"the run failed: Docker cannot start a step ({' '.join(str(error).split())}); check the engine, and the image of 'compile'"
            ) from None
    return LocalRun(root, {name: last_artifact(runs, name, component) for name, component in OUTPUTS.items()})


def _made_local(package: Path) -> str:
    """Return the YAML as it is run here."""
    spec, *others = list(yaml.load_all(package.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    _without_variables(spec)
    _apart(spec)
    return yaml.safe_dump_all([spec, *others], sort_keys=True)


def _without_variables(spec: dict[str, Any]) -> None:
    """Take out the steps' variables, which say where things are on a cluster: torchrun starts processes here."""
    for executor in spec["deploymentSpec"]["executors"].values():
        executor["container"].pop("env", None)


def _apart(spec: dict[str, Any]) -> None:
    """Give each task a component of its own: by its name kfp.local keeps what a task writes, and `small` has let equal ones share one."""
    shared = spec["components"]
    graphs = [one["dag"]["tasks"] for one in (spec["root"], *shared.values()) if "dag" in one]
    own = {}
    for name, task in (pair for tasks in graphs for pair in tasks.items()):
        component = shared[task["componentRef"]["name"]]
        if "executorLabel" in component:
            task["componentRef"]["name"] = f"comp-{name}"
            own[f"comp-{name}"] = component
    spec["components"] = {name: one for name, one in shared.items() if "dag" in one} | own


def _make_room(root: Path) -> None:
    """Make the folder of a run, or remove what an earlier one wrote there; its marker says that one did.

    Raises:
        OutputError: it is no folder, or a place of a user's by its nature.
        ConfigError: it has files in it and no marker.
    """
    require_place(root)
    marker = root / MARKER
    if root.exists() and any(root.iterdir()) and not marker.is_file():
        raise ConfigError(f"--out: {root} holds files that no run-local wrote (it has no {MARKER}); nothing is removed; name a new folder")
    write_text(marker, "python -m pipelines run-local keeps run/ and log.txt here; its next run writes them anew\n")
    (root / "log.txt").unlink(missing_ok=True)
    if (root / "run").exists():
        shutil.rmtree(root / "run")


def last_artifact(root: Path, name: str, component: str) -> Path:
    """Find an artifact of the task of a component that ended last, below the folder of all runs.

    Raises:
        RunFailedError: there is none; `kfp.local` calls a container a success that was gone before it could ask how it had ended.
    """
    ended = sorted(root.glob(f"*/{component}*/executor_output.json"), key=lambda path: path.stat().st_mtime_ns)
    found = ended[-1].with_name(name) if ended else None
    if found is None or not found.is_dir() or not any(found.iterdir()):
        raise RunFailedError(f"the run ended without the {name} of its step {component}; its steps' own words are in {root.parent}/log.txt")
    return found


def _docker_runner(runs: Path, uri: str) -> local.DockerRunner:
    """Return a runner of containers that see the folder of runs, which kfp mounts at its own path, and nothing else of this machine."""
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION")
    environment = {name: os.environ[name] for name in names if name in os.environ} | {
        "MLFLOW_TRACKING_URI": uri,
        PROGRESS: f"{runs}/progress",
    }
    return local.DockerRunner(
        entrypoint="",
        environment=environment,
        working_dir=str(runs),
        network_mode="host",  # a tracking server or an object store of this machine
        read_only=True,
        tmpfs={"/tmp": ""},  # noqa: S108  # the container's own
        cap_drop=["ALL"],
    )


class _Log(io.TextIOBase):
    """Keep every line in a file, without secrets, and show those that a person wants to see."""

    def __init__(self, file: TextIO, shown: TextIO) -> None:
        self._file, self._shown, self._line = file, shown, ""

    def write(self, text: str) -> int:
        """Take some text."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._take(line)
        return len(text)

    def _take(self, line: str) -> None:
        plain = redacted(line)
        self._file.write(plain + "\n")
        if SHOWN.search(plain):
            self._shown.write(escaped(COLOR.sub("", plain).strip()) + "\n")
        self._file.flush()
        self._shown.flush()

    def end(self) -> None:
        """Keep what has come of a last line."""
        if self._line:
            self._take(self._line)


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        log = _Log(file, sys.stdout)
        try:
            with contextlib.redirect_stdout(log):
                yield
        finally:
            log.end()


@contextlib.contextmanager
def _environment(uri: str, runs: Path) -> Iterator[None]:
    """Let the steps' processes find this interpreter, the tracking store, and a place for what is interrupted."""
    own = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": uri,
        PROGRESS: str(runs / "progress"),
    }
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _open_to_all(*, enabled: bool) -> Iterator[None]:
    """Let the image's user, which is another than this one, write into the folders that are made for it."""
    before = os.umask(0) if enabled else None
    try:
        yield
    finally:
        if before is not None:
            os.umask(before)
