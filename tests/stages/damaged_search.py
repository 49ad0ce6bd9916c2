"""Finished searches whose records are damaged, one at a time, and the commands that read them."""

import contextlib
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from laws.search_data import small_config
from laws.stage_runs import Stages
from odn import cli
from odn.files import sha256_of, write_json
from odn.stages import report
from stages.record_mutations import mutated

PLAIN = {  # record: commands that read it
    "work/prepared/dataset.json": ("check 1 0", "report", "evaluate", "truncate", "train 2 1"),
    "work/decisions/0.json": ("check 1 0", "train 1 0"),
    "work/decisions/1.json": ("check 2 1", "train 2 1"),
    "work/depths/1/metrics.json": ("check 1 0", "truncate", "evaluate"),
    "work/depths/2/metrics.json": ("check 2 1", "truncate"),
    "work/depths/1/architecture.json": ("evaluate",),
    "work/checks/1/verdict.json": ("truncate",),
    "work/checks/2/verdict.json": ("truncate",),
    "work/checks/2/architecture.json": ("truncate",),
    "work/registered.json": ("show",),
    ".odn/registration.json": ("show",),
    "model/card.json": ("show", "report", "evaluate"),
    "model/search.json": ("show", "report"),
    "model/architecture.json": ("show", "report", "evaluate"),
    "metrics/evaluation.json": ("show", "report"),
    "metrics/latency.json": ("show", "report", "evaluate"),
    "metrics/export_latency.json": ("show", "report"),
    "export/export.json": ("show", "report"),
}
JOINT = {
    "work/depths/1/supernet/architecture.json": ("train 2 1", "specialise", "route"),
    "work/depths/1/supernet/card.json": ("specialise",),
    "routed/latency.json": ("route",),
    "routed/confidence/wall_clock.json": ("route",),
}
ARGUMENTS = {"specialise": ["--target", "macs<=0.9", "--no-register"], "route": ["--latency-ms", "1e9", "--no-register"]}


@dataclass(frozen=True)
class Outcome:
    """Say what a command made of a damaged record."""

    record: str
    content: bytes
    command: str
    code: int | BaseException
    said: str
    changed: tuple[str, ...]

    @property
    def fault(self) -> str | None:
        """Say what is wrong with it; None where the record was refused in one clean line and nothing was written, or was taken."""
        what = f"{self.command} on {self.record} = {self.content[:300]!r}: "
        if self.code not in {0, 2}:
            return f"{what}{self.code!r}"
        lines = [line for line in self.said.split("\n")[:-1] if not line.startswith("depth ")]  # of a phase that was trained
        if self.code == 2 and (len(lines) != 1 or not lines[0].startswith("odn: ") or not lines[0].isprintable() or len(lines[0]) > 2100):
            return f"{what}said {self.said!r}"
        if self.code == 2 and self.changed:
            return f"{what}wrote {self.changed}"
        return None


@dataclass(frozen=True)
class Searched:
    """Be a folder with all that a search leaves, and remember every file of it."""

    folder: Path
    files: dict[str, bytes]
    records: dict[str, tuple[str, ...]]

    def damage(self, n: int, *, seed: int) -> Iterator[Outcome]:
        """Damage a record and run a command that reads it, n times; all is as it was in between. The folder is the working directory."""
        random_ = random.Random(seed)
        names = list(self.records)
        for number in range(n):
            record = names[number % len(names)]
            content = mutated(self.files[record], random_)
            yield self.run(record, content, random_.choice(self.records[record]))

    def run(self, record: str, content: bytes, command: str) -> Outcome:
        """Run a command with a record of this content, and mend everything."""
        (self.folder / record).write_bytes(content)
        name, *depths = command.split()
        arguments = [
            name,
            *(f"--{flag}={depth}" for flag, depth in zip(("depth", "after"), depths, strict=False)),
            *ARGUMENTS.get(name, []),
        ]
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            try:
                found: int | BaseException = cli.main(arguments)
            except (Exception, SystemExit) as error:  # noqa: BLE001  a traceback is what is looked for
                found = error
        return Outcome(record, content, command, found, said.getvalue(), tuple(self.mend(record)))

    def mend(self, damaged: str) -> list[str]:
        """Put every file back; return those that had changed, but for the damaged record and what an interrupted phase keeps."""
        changed = []
        there = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}
        for name in sorted(there | self.files.keys()):
            path = self.folder / name
            now, before = path.read_bytes() if name in there else None, self.files.get(name)
            if now == before:
                continue
            if before is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(before)
            if name != damaged and not name.startswith(".odn/progress"):
                changed.append(name)
        return changed


def plain(folder: Path) -> Searched:
    """Search depth by depth."""
    stages = _searched(folder)
    places: dict[str, Any] = {name: folder / name for name in ("model", "metrics", "plots")}
    stages.export()
    report.run(
        stages.config,
        prepared=stages.prepared,
        evaluation=stages.work / "evaluation",
        exported=folder / "export",
        out=folder / "report",
        **places,
    )
    digest = sha256_of(folder / "model/weights.safetensors")
    write_json(folder / "work/registered.json", {"name": "odn", "weights_sha256": digest})
    registration = {"name": "odn", "version": "1", "run_id": "a" * 32, "tracking_uri": "sqlite:///mlflow.db", "aliases": ["candidate"]}
    write_json(folder / ".odn/registration.json", {**registration, "champion": False, "reason": "why", "previous_champion": None})
    return _remembered(folder, PLAIN)


def joint(folder: Path) -> Searched:
    """Train all depths at once, and route from what that leaves."""
    _searched(folder, search={"mode": "supernet", "target": 0.2}, supernet={"epochs": 2, "exits": 1}, route={"quantiles": 4})
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert cli.main(["route", *ARGUMENTS["route"]]) == 0
    return _remembered(folder, JOINT)


def _searched(folder: Path, **changes: dict[str, Any]) -> Stages:
    stages = Stages(small_config(**changes), folder)
    stages.search()
    stages.truncate()
    stages.evaluate()
    (folder / "params.yaml").write_text(yaml.safe_dump(stages.config.model_dump(mode="json")))
    return stages


def _remembered(folder: Path, records: dict[str, tuple[str, ...]]) -> Searched:
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert set(records) <= set(files), set(records) - set(files)
    return Searched(folder, files, records)
