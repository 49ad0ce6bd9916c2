"""The stages as steps of a pipeline that gives every artifact a place of its own: Kubeflow's wrapper, without importing it.

What DVC keeps in work/, metrics/ and plots/ travels as three folders, each handed on with more in it:
`dataset` (train/, val/, dataset.json), `search` (pretrained/, depths/, checks/, decisions/) and `results` (metrics/, plots/, evaluation/,
config.json).
Files in them have the bytes that DVC's have. Each step returns what its artifact is to be labelled with.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from odn.config import Config, changed, read_config
from odn.data.dataset import read_manifest
from odn.errors import OdnError, TrackingError
from odn.files import sha256_of, write_bytes, write_text
from odn.progress import clear, folder_of, volume
from odn.searching.folder import SearchFolder
from odn.searching.records import Decision, read_decision, read_search, write_decision
from odn.tables import certificate, depth_table, epoch_table, export_table, registration_note, split_table, told
from odn.trainjob import starter

P = ParamSpec("P")
T = TypeVar("T")
Labels = dict[str, Any]  # of an artifact: numbers and words


def _step(function: Callable[P, T]) -> Callable[P, T]:
    """End with exit code 2 and one plain line where the stage finds something that a user can mend."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except OdnError as error:
            sys.stderr.write("\n".join(f"odn: {line}" for line in error.lines) + "\n")
            raise SystemExit(2) from None

    return run


@_step
def configure(config: str, *, changes: Mapping[str, Any], repository: str, revision: str) -> tuple[str, str]:
    """Put a run's own settings, {"section.key": value}, over those that were compiled in; return the whole, and the data's version.

    The settings are canonical JSON of what is not default, as every step carries them. The version is a commit of the repository, or a
    digest of what lies in the bucket; "" where the settings alone say which data is meant. Later steps are cached by both.

    Raises:
        SystemExit: a setting is refused, or the data's place cannot be read (exit code 2, after a line on each).
    """
    from odn.storage import fingerprint
    from odn.versioned import commit_of, require_fetched

    checked = changed(read_config(config), changes)
    short = checked.to_short_json()
    if repository:
        commit = commit_of(repository, revision=revision)
        require_fetched(repository, revision=commit)
        return short, commit
    if checked.data.source == "s3":
        assert checked.data.root is not None, "the config requires a root for s3"
        return short, fingerprint(checked.data.root)
    return short, ""


@_step
def prepare(config: str, *, repository: str, version: str, dataset: str, test: str, search: str, table: str) -> Labels:
    """Fetch and split the data, and open an empty search; with a repository, its DVC-versioned data/ at that commit is the raw data.

    Raises:
        SystemExit: the data is missing, damaged or cannot be split.
    """
    from odn.stages import fetch, prepare
    from odn.stages import open as opening
    from odn.versioned import pull_data

    settings, folder = read_config(config), Path(dataset)
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "data"
        if repository:
            pull_data(repository, revision=version, into=raw)
        else:
            fetch.run(settings, downloads=raw)
        splits = {"train": folder / "train", "val": folder / "val", "test": Path(test)}
        manifest = prepare.run(settings, data=raw, manifest=folder / "dataset.json", progress=volume(), **splits)
    opening.run(settings, search=SearchFolder(Path(search)))
    write_text(Path(table), split_table({split: count["total"] for split, count in manifest.counts.items()}))
    return {"source": manifest.source, "classes": len(manifest.classes), **{f"sha256_{k}": v for k, v in manifest.sha256.items()}}


@_step
def train(config: str, *, experiment: str, depth: int, after: int, dataset: str, before: str, search: str, table: str) -> Labels:
    """Train one depth, grown from the depth before it.

    A mode that tries every depth, whatever the verdicts, needs none of them: its depths may be trained at once.

    Raises:
        SystemExit: an input is missing, or the loss is not finite.
    """
    from odn.stages import train

    settings = read_config(config)
    with _tracked(experiment), _continued(before, search) as place:
        folder = SearchFolder(place)
        if settings.mode.exhaustive:
            write_decision(folder.decision(after), Decision(verdict="expand"))
        step = train.run(settings, depth=depth, after=after, search=folder, start=starter(), **_inputs(settings, dataset))
        assert step is not None, "the pipeline trains no depth after the search has ended"
        title = f"{settings.unit.capitalize()} {depth}"
        write_text(Path(table), epoch_table(folder.trained(depth) / "history.csv", title=title, note=step.why))
        digest = sha256_of(folder.trained(depth) / "weights.safetensors")
    return {"depth": depth, "val_accuracy": step.val_accuracy, "epochs": step.epochs, "full_network_epochs": step.cost, "sha256": digest}


@_step
def check(
    config: str, *, experiment: str, depth: int, after: int, dataset: str, before: str, trained: str, search: str, table: str
) -> Labels:
    """Put what was trained of one depth to the search so far, and judge it.

    The labels' `verdict` is `expand`, `target_reached` or `exhausted`.

    Raises:
        SystemExit: an input is missing, or the loss is not finite.
    """
    from odn.stages import check

    settings = read_config(config)
    with _tracked(experiment), _continued(before, search) as place:
        folder = SearchFolder(place)
        shutil.copytree(SearchFolder(Path(trained)).trained(depth), folder.trained(depth), dirs_exist_ok=True)
        verdict = check.run(settings, depth=depth, after=after, search=folder, start=starter(), **_inputs(settings, dataset))
        assert verdict is not None, "the pipeline judges no depth after the search has ended"
        if not read_decision(folder.decision(depth), made_by=f"check@{depth}").goes_on:
            _mark_deeper(settings, folder=folder, depth=depth)
        judged = settings.search.schedule[: settings.search.schedule.index(depth) + 1]
        records = read_search(judged, folder=folder)
        _tell(told(records, unit=settings.unit))
        write_text(Path(table), depth_table(records, target=settings.search.target, unit=settings.unit))
    return {"depth": depth, "verdict": verdict.verdict, "val_accuracy": verdict.val_accuracy, "target": verdict.target}


@_step
def truncate(config: str, *, experiment: str, dataset: str, search: str, model: str, results: str, table: str) -> Labels:
    """Cut at the accepted depth, finish the network, and write the model with the record of its search.

    Raises:
        SystemExit: an input is missing, or the loss is not finite.
    """
    from odn.stages import truncate

    settings, folder, record = read_config(config), SearchFolder(Path(search)), Path(results)
    inputs = _inputs(settings, dataset)
    with _tracked(experiment):
        flat = truncate.run(
            settings,
            search=folder,
            model=Path(model),
            metrics=record / "metrics" / "search.json",
            plots=record / "plots",
            start=starter(),
            **inputs,
        )
    write_text(record / "config.json", settings.to_json() + "\n")  # what the record is of, for whoever shows it later
    records = read_search(settings.search.schedule, folder=folder)
    write_text(Path(table), depth_table(records, target=settings.search.target, unit=settings.unit, kept=flat["depth"]))
    digest = sha256_of(Path(model) / "weights.safetensors")
    clear(inputs["progress"])  # all that it trained is in its outputs
    return {**{name: flat[name] for name in ("depth", "verdict", "val_accuracy", "full_network_epochs")}, "sha256": digest}


@_step
def evaluate(config: str, *, dataset: str, test: str, search: str, model: str, before: str, results: str, table: str) -> Labels:
    """Certify the model on test, and count and time what it saves.

    Raises:
        SystemExit: an input is missing, or the model does not fit the data.
    """
    from odn.stages import evaluate

    folder = SearchFolder(Path(search))
    with _continued(before, results) as record, _with_test(dataset, test) as prepared:
        measured = evaluate.run(
            read_config(config),
            prepared=prepared,
            model=Path(model),
            search=folder,
            evaluation=record / "evaluation",
            metrics=record / "metrics" / "evaluation.json",
            latency=record / "metrics" / "latency.json",
        )
    write_text(Path(table), certificate(measured))
    return measured


@_step
def export(config: str, *, dataset: str, test: str, model: str, before: str, exported: str, results: str, table: str) -> Labels:
    """Write the model as files for other runtimes, and certify each of them on test.

    Raises:
        SystemExit: an input is missing, or a file does not compute what the model computes.
    """
    from odn.stages import export

    with _continued(before, results) as record, _with_test(dataset, test, "train", "val") as prepared:
        latency = record / "metrics" / "export_latency.json"
        found = export.run(
            read_config(config),
            prepared=prepared,
            model=Path(model),
            exported=Path(exported),
            metrics=record / "metrics" / "export.json",
            latency=latency,
        )
    write_text(Path(table), export_table(Path(exported), latency=latency, weights_sha256=found.model_sha256))
    return {one.file: one.sha256 for one in found.artifacts} | {one.format: one.reason for one in found.refused}


@_step
def report(config: str, *, dataset: str, test: str, model: str, results: str, exported: str, report: str, page: str) -> Labels:
    """Write the report's folder, and its page once more where a browser of artifacts shows it.

    Raises:
        SystemExit: a record is missing.
    """
    from odn.stages import report as reporting

    record, out = Path(results), Path(report)
    with _with_test(dataset, test) as prepared:
        findings = reporting.run(
            read_config(config),
            prepared=prepared,
            model=Path(model),
            metrics=record / "metrics",
            plots=record / "plots",
            evaluation=record / "evaluation",
            exported=Path(exported),
            out=out,
        )
    write_bytes(Path(page), (out / "report.html").read_bytes())
    return {"depth": findings.depth, "verdict": findings.verdict, "test_accuracy": findings.test_accuracy}


@_step
def register(
    config: str,
    *,
    experiment: str,
    tags: Mapping[str, str],
    dataset: str,
    search: str,
    model: str,
    results: str,
    exported: str,
    report: str,
    registration: str,
    note: str,
) -> Labels:
    """Put the search into MLflow and the model into its registry; `tags` says where the run comes from.

    Raises:
        SystemExit: MLflow cannot be reached or refuses; a retry mends what is missing.
    """
    from odn.stages import register

    settings, folder, record, registrations = read_config(config), SearchFolder(Path(search)), Path(results), Path(registration)
    with _tracked(experiment), tempfile.TemporaryDirectory() as nowhere:
        done = register.run(
            settings,
            prepared=Path(dataset),
            search=folder,
            model=Path(model),
            metrics=record / "metrics",
            plots=record / "plots",
            report=Path(report),
            exported=Path(exported),
            registered_weights=registrations / "registered.json",
            registration=registrations / "registration.json",
            project=Path(nowhere),  # of git and DVC a step knows what `tags` says
            tags={name: value for name, value in tags.items() if value},
        )
    write_text(Path(note), registration_note(done))
    judged = read_search(settings.search.schedule, folder=folder)
    _tell(told(judged, unit=settings.unit, metrics=record / "metrics"))  # of steps from the cache too
    return {"name": done.name, "version": done.version, "run_id": done.run_id, "champion": done.champion}


@contextmanager
def _tracked(experiment: str) -> Iterator[None]:
    """Let tracking go to the run's experiment.

    Raises:
        TrackingError: no server is named; a store in the step's own file system would vanish with it.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise TrackingError("MLFLOW_TRACKING_URI is not set in this step; name a secret that holds it: 'compile --secret NAME'")
    before = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    os.environ["MLFLOW_EXPERIMENT_NAME"] = experiment
    try:
        yield
    finally:
        if before is None:
            del os.environ["MLFLOW_EXPERIMENT_NAME"]
        else:
            os.environ["MLFLOW_EXPERIMENT_NAME"] = before


@contextmanager
def _continued(before: str, after: str) -> Iterator[Path]:
    """Yield the folder `after`, which holds all that `before` does."""
    shutil.copytree(before, after, dirs_exist_ok=True)
    yield Path(after)


@contextmanager
def _with_test(dataset: str, test: str, *others: str) -> Iterator[Path]:
    """Yield a folder in which the test split lies beside the others that a stage reads, as those that may see it expect."""
    with tempfile.TemporaryDirectory() as scratch:
        places = {name: f"{dataset}/{name}" for name in ("dataset.json", *others)}
        for name, place in {**places, "test": test}.items():
            (Path(scratch) / name).symlink_to(Path(place).absolute())
        yield Path(scratch)


def _mark_deeper(config: Config, *, folder: SearchFolder, depth: int) -> None:
    """Write the markers of the depths behind the end of a search, which the stages expect and this pipeline never runs."""
    from odn.stages import check, train

    for deeper in (one for one in config.search.schedule if one > depth):
        after = config.depth_before(deeper)
        train.run(config, depth=deeper, after=after, prepared=folder.root, search=folder, progress=folder.root)
        check.run(config, depth=deeper, after=after, prepared=folder.root, search=folder, progress=folder.root)


def _inputs(config: Config, dataset: str) -> dict[str, Path]:
    """Name what a training reads, and where an interrupted phase of the search on this data is kept."""
    progress = folder_of(config, data_sha256=read_manifest(Path(dataset) / "dataset.json").sha256)
    return {"prepared": Path(dataset), "progress": progress}


def _tell(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
