"""The command line: `odn STAGE …`, one command a stage, and a few that show things.

Flags are paths and indices, never settings: those are in params.yaml. A stage's module is imported when its command runs.
"""

import argparse
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odn import __version__
from odn.arguments import Parser
from odn.errors import ConfigError, OdnError, TargetError
from odn.model_commands import add_model_commands
from odn.sanitize import escaped, sanitized
from odn.searching.folder import SearchFolder

if TYPE_CHECKING:
    from odn.config import Config

COMMANDS = ("backbones", "cost", "look", "preset", "route", "show", "specialise", "track")  # the others are stages of the pipeline
FOLDERS = {  # flag: (default, help)
    "source": ("src/odn", "the source code of odn"),
    "code": ("work/code", "a file a stage, with digests of the code that it runs"),
    "downloads": ("downloads", "raw files as they were fetched"),
    "data": ("data", "raw files, versioned by data.dvc"),
    "prepared": ("work/prepared", "train/, val/, test/ and dataset.json"),
    "search": ("work", "depths/, checks/ and decisions/"),
    "model": ("model", "the network that is kept"),
    "evaluation": ("work/evaluation", "predictions of each test image"),
    "metrics": ("metrics", "flat numbers, tracked by git"),
    "exported": ("export", "the model as files for other runtimes"),
    "plots": ("plots", "tables to plot, tracked by git"),
    "specialised": ("specialised", "a folder for each target of 'odn specialise'"),
    "report": ("report", "report.html and its pictures"),
    "registered-weights": ("work/registered.json", "which weights are registered"),
    "registration": (".odn/registration.json", "which version they became there"),
    "routed": ("routed", "a folder a kind of routing"),
    "look": ("look", "what frozen features know at every depth"),
    "progress": (".odn/progress", "interrupted phases, to be resumed"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, or 2 after one plain line on what is wrong and how to mend it."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: what a terminal's encoding lacks is written out
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            options.run(options)
    except OdnError as error:
        print("\n".join(f"odn: {line}" for line in error.lines), file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0  # the reader of our output has seen enough
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"odn: {sanitized(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("odn: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Say a library's warning in one line."""
    print(f"odn: {category.__name__}: {sanitized(message)}", file=sys.stderr)


def _say(line: str) -> None:
    """Print one line, whatever the names and paths in it hold."""
    print(sanitized(line))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="odn", description="Find how deep a network needs to be for a data set, and cut it there.")
    parser.add_argument("--version", action="version", version=f"odn {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add(commands, "code", _code, "digest the code that each stage runs", "source", "code")
    _add(commands, "fetch", _fetch, "bring the raw data into downloads/", "downloads", "data")
    _add(commands, "prepare", _prepare, "split the raw data into train, val and test", "data", "prepared", "progress")
    _add(commands, "open", _open, "decide to begin", "search")
    for name, run, text in (("train", _train, "train one depth, or rung"), ("check", _check, "judge one depth, or rung")):
        command = _add(commands, name, run, text, "prepared", "search", "progress")
        command.add_argument("--depth", type=int, required=True, help="rung of the ladder; of a prefix, the blocks kept")
        command.add_argument("--after", type=int, required=True, help="the one before it in search.schedule; 0 for none")
    ends = ("prepared", "search", "model", "metrics", "plots", "progress")
    _add(commands, "truncate", _truncate, "cut and finish the accepted depth", *ends)
    _add(commands, "evaluate", _evaluate, "evaluate the model once on test", "prepared", "model", "search", "evaluation", "metrics")
    _add(commands, "export", _export, "write the model as files for other runtimes", "prepared", "model", "exported", "metrics")
    told = ("prepared", "model", "metrics", "plots", "evaluation", "exported", "report")
    _add(commands, "report", _report, "write the page and its pictures", *told)
    record = ("prepared", "search", "model", "metrics", "plots", "report", "exported")
    done = (*record, "registered-weights", "registration")
    _add(commands, "register", _register, "put the search into MLflow and the model into its registry", *done)
    track = _add(commands, "track", _track, "put what there is of the search into MLflow", *record)
    track.add_argument("--replay", action="store_true", required=True, help="from the stages' own files, as far as they go")
    route = _add(commands, "route", _route, "give each image a depth of its own", "prepared", "search", "routed", "progress")
    route.add_argument("--kind", choices=("confidence", "gate"), default="confidence", help="exits by confidence, or learnt gates")
    number: Any = {"type": float, "action": "append", "default": []}  # one that stands twice is seen, and refused
    route.add_argument("--accuracy", **number, help="on val, to be reached at the least cost")
    route.add_argument("--macs", **number, help="mean an image; up to 1: a fraction of the deepest exit's")
    route.add_argument(
        "--latency-ms", type=float, action="append", default=[], help="mean an image, as this machine measures it part by part"
    )
    route.add_argument("--supernet", type=Path, help="a network with several exits (default: that of search.mode supernet in --search)")
    route.add_argument("--export", action="store_true", help="also as ONNX, a graph from each exit to the next")
    route.add_argument("--no-register", action="store_true", help="keep it out of MLflow")
    _add(commands, "cost", _cost, "count and time the backbone at every depth", "prepared")
    _add(commands, "look", _look, "fit a linear probe to frozen features at every depth", "prepared", "search", "look")
    listing = _add(commands, "backbones", _backbones, "list the backbones that can be cut", "prepared")
    listing.add_argument("filter", nargs="?", default="", help="part of the name, such as efficientnet_lite or 'timm/vit_*'")
    preset = _add(commands, "preset", _preset, "print a preset of params/ as options of 'dvc exp run'")
    preset.add_argument("name", help="such as paper/mnist")
    places = ("prepared", "search", "model", "specialised")
    specialise = _add(commands, "specialise", _specialise, "bring out a network for each target, without training", *places)
    specialise.add_argument("--target", action="append", required=True, help="such as 'accuracy>=0.98' or 'bytes<=100000,latency_ms<=1.5'")
    specialise.add_argument("--no-register", action="store_true", help="write the folders only")
    specialise.add_argument("--enumerate", action="store_true", help="evaluate all sub-networks, however many")
    specialise.add_argument("--no-predictor", action="store_true", help="evaluate each sub-network that evolution sees on val")
    specialise.add_argument("--no-latency-table", action="store_true", help="time each sub-network as a whole")
    add_model_commands(commands)
    shown = ("model", "metrics", "registered-weights", "registration", "report", "exported")
    _add(commands, "show", _show, "print a summary of the search", *shown)
    return parser


def _add(commands: Any, name: str, run: Any, text: str, *folders: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.add_argument("--params", type=Path, default=Path("params.yaml"), help="settings (default: %(default)s)")
    for folder in folders:
        default, meaning = FOLDERS[folder]
        command.add_argument(f"--{folder}", type=Path, default=Path(default), help=f"{meaning} (default: %(default)s)")
    command.set_defaults(run=run, stage=name)
    return command


def _stage(options: argparse.Namespace, **paths: Any) -> Any:
    package = "commands" if options.stage in COMMANDS else "stages"
    return importlib.import_module(f"odn.{package}.{options.stage}").run(_config(options), **paths)


def _config(options: argparse.Namespace) -> "Config":
    from odn.config import load_config

    return load_config(options.params)


def _search(options: argparse.Namespace) -> SearchFolder:
    return SearchFolder(options.search)


def _code(options: argparse.Namespace) -> None:
    found = _stage(options, source=options.source, out=options.code)
    _say(f"{options.code}: modules by stage: {', '.join(f'{stage} {n}' for stage, n in found.items())}")


def _fetch(options: argparse.Namespace) -> None:
    _stage(options, downloads=options.downloads, data=options.data)


def _prepare(options: argparse.Namespace) -> None:
    out = options.prepared
    splits = {name: out / name for name in ("train", "val", "test")}
    _stage(options, data=options.data, manifest=out / "dataset.json", progress=options.progress, **splits)


def _open(options: argparse.Namespace) -> None:
    _stage(options, search=_search(options))


def _train(options: argparse.Namespace) -> None:
    depth, after = options.depth, options.after
    step = _stage(
        options,
        depth=depth,
        after=after,
        prepared=options.prepared,
        search=_search(options),
        progress=options.progress,
    )
    name = f"{_config(options).unit} {depth}"
    if step is None:
        _say(f"{name}: skipped, the search has ended before it")
    else:
        _say(f"{name}: EMA accuracy {step.val_accuracy:.2%} on val after {step.epochs} epochs ({step.stopped}: {step.why})")


def _check(options: argparse.Namespace) -> None:
    depth, after = options.depth, options.after
    verdict = _stage(
        options,
        depth=depth,
        after=after,
        prepared=options.prepared,
        search=_search(options),
        progress=options.progress,
    )
    name = f"{_config(options).unit} {depth}"
    _say(f"{name}: {verdict.verdict}: {verdict.reason}" if verdict else f"{name}: skipped, the search has ended before it")


def _truncate(options: argparse.Namespace) -> None:
    flat = _stage(
        options,
        prepared=options.prepared,
        search=_search(options),
        model=options.model,
        metrics=options.metrics / "search.json",
        plots=options.plots,
        progress=options.progress,
    )
    config = _config(options)
    kept = f"{config.unit} {flat['depth']} of {config.n_units}"
    _say(f"{kept} is kept ({flat['verdict']}), {flat['val_accuracy']:.2%} on val, in {options.model}/")


def _evaluate(options: argparse.Namespace) -> None:
    record = _stage(
        options,
        prepared=options.prepared,
        model=options.model,
        search=_search(options),
        evaluation=options.evaluation,
        metrics=options.metrics / "evaluation.json",
        latency=options.metrics / "latency.json",
    )
    low, high = record["test_accuracy_low"], record["test_accuracy_high"]
    balanced = f", balanced {record['test_balanced_accuracy']:.2%}" if "test_balanced_accuracy" in record else ""
    _say(f"{record['test_accuracy']:.2%} on test ({low:.2%} to {high:.2%}){balanced}, {record['params_saved']:.1%} fewer parameters")


def _export(options: argparse.Namespace) -> None:
    places = {"metrics": options.metrics / "export.json", "latency": options.metrics / "export_latency.json"}
    found = _stage(options, prepared=options.prepared, model=options.model, exported=options.exported, **places)
    for one in found.artifacts:
        _say(f"{options.exported / one.file}: {one.bytes:,} bytes, {one.accuracy:.2%} on test in {one.runtime}")
    for one in found.refused:
        _say(f"{one.format} is not written: {one.reason}")


def _report(options: argparse.Namespace) -> None:
    findings = _stage(
        options,
        prepared=options.prepared,
        model=options.model,
        metrics=options.metrics,
        plots=options.plots,
        evaluation=options.evaluation,
        exported=options.exported,
        out=options.report,
    )
    kept, verdict = f"{findings.unit} {findings.depth} of {findings.n_units}", findings.verdict
    _say(f"{kept} ({verdict}), {findings.test_accuracy:.2%} on test: {options.report / 'report.html'}")


def _show(options: argparse.Namespace) -> None:
    summary = _stage(
        options,
        model=options.model,
        metrics=options.metrics,
        registered_weights=options.registered_weights,
        registration=options.registration,
        report=options.report,
        exported=options.exported,
    )
    print(summary.describe(color=sys.stdout.isatty() and not os.environ.get("NO_COLOR")))


def _specialise(options: argparse.Namespace) -> None:
    from odn.searching.targets import read_targets

    targets = read_targets(options.target)
    done = _stage(
        options,
        targets=targets,
        prepared=options.prepared,
        search=_search(options),
        model=options.model,
        out=options.specialised,
        registers=not options.no_register,
        enumerates=options.enumerate,
        predicts=not options.no_predictor,
        uses_table=not options.no_latency_table,
    )
    for one in done.made:
        _say(one.describe())
    if done.missed:
        raise TargetError(*done.missed)


def _preset(options: argparse.Namespace) -> None:
    print(escaped(" ".join(_stage(options, name=options.name))))


def _record(options: argparse.Namespace) -> dict[str, Any]:
    return {"search": _search(options)} | {
        name: getattr(options, name) for name in ("prepared", "model", "metrics", "plots", "report", "exported")
    }


def _register(options: argparse.Namespace) -> None:
    done = _stage(options, **_record(options), registered_weights=options.registered_weights, registration=options.registration)
    _say(f"{done.name} version {done.version} in the registry at {done.tracking_uri}: {', '.join(done.aliases)}; {done.reason}")


def _track(options: argparse.Namespace) -> None:
    _say(_stage(options, **_record(options)).describe())


def _route(options: argparse.Namespace) -> None:
    from odn.report.routed import describe
    from odn.routing.targets import Target

    first = _config(options).search.schedule[0]
    summary = _stage(
        options,
        kind=options.kind,
        target=Target(**{name: _at_most_one(name, getattr(options, name)) for name in ("accuracy", "macs", "latency_ms")}),
        prepared=options.prepared,
        supernet=options.supernet or _search(options).supernet(first),
        out=options.routed,
        progress=options.progress,
        register=not options.no_register,
        export=options.export,
    )
    print(describe(summary.card, static=summary.static, clock=summary.clock, folder=summary.folder))
    if summary.segments:
        _say(f"  {summary.segments}")
    if summary.registration:
        done = summary.registration
        _say(f"{done.name} version {done.version} in the registry at {done.tracking_uri}: {', '.join(done.aliases)}; {done.reason}")


def _at_most_one(name: str, values: Sequence[float]) -> float | None:
    if len(values) > 1:
        raise ConfigError(f"--{name.replace('_', '-')}: stands {len(values)} times, with {', '.join(map('{:g}'.format, values))}; keep one")
    return values[0] if values else None


def _look(options: argparse.Namespace) -> None:
    print(_stage(options, prepared=options.prepared, search=_search(options), out=options.look).describe())
    _say(f"written to {options.look}/")


def _backbones(options: argparse.Namespace) -> None:
    print(_stage(options, wanted=options.filter, prepared=options.prepared).describe())


def _cost(options: argparse.Namespace) -> None:
    print(_stage(options, prepared=options.prepared).describe())
