"""The command line: `odn STAGE …`, one command a stage, and a few that show things.

Flags are paths and indices, never settings: those are in params.yaml. A stage's module is imported when its command runs.
"""

import argparse
import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from odn import __version__
from odn.arguments import Parser
from odn.command_line import add, config_of, say, search_of, stage
from odn.errors import ConfigError, LostError, OdnError
from odn.model_commands import add_model_commands
from odn.processes import TRAINING, rank, report, tells, world_size
from odn.sanitize import sanitized
from odn.search_commands import add_search_commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, or 2 after one plain line on what is wrong and how to mend it."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: what a terminal's encoding lacks is written out
    try:
        with warnings.catch_warnings(), _one_voice():
            warnings.showwarning = _show_warning
            _require_alone(options.stage)
            options.run(options)
    except BrokenPipeError:
        return 0  # the reader of our output has seen enough
    except (OdnError, OSError) as error:  # of the system: a full disk, a folder that may not be written
        lines = error.lines if isinstance(error, OdnError) else (sanitized(error),)
        if tells():
            print("\n".join(f"odn: {line}" for line in lines), file=sys.stderr)
        report(lines, lost=isinstance(error, LostError))
        return 2
    except KeyboardInterrupt:
        print("odn: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def _require_alone(stage: str) -> None:
    if world_size() > 1 and stage not in TRAINING:
        raise ConfigError(f"odn {stage} runs in one process, and torchrun started {world_size()}; {', '.join(TRAINING)} may run in several")


@contextlib.contextmanager
def _one_voice() -> Iterator[None]:
    """Let one of several processes say what was done."""
    with contextlib.ExitStack() as quiet:
        if not tells():
            quiet.enter_context(contextlib.redirect_stdout(quiet.enter_context(Path(os.devnull).open("w"))))
        yield


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Say a library's warning in one line."""
    if rank() == 0:
        print(f"odn: {category.__name__}: {sanitized(message)}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="odn", description="Find how deep a network needs to be for a data set, and cut it there.")
    parser.add_argument("--version", action="version", version=f"odn {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add(commands, "code", _code, "digest the code that each stage runs", "source", "code")
    add(commands, "fetch", _fetch, "bring the raw data into downloads/", "downloads", "data")
    add(commands, "prepare", _prepare, "split the raw data into train, val and test", "data", "prepared", "progress")
    add(commands, "open", _open, "decide to begin", "search")
    add(commands, "settings", _settings, "write the settings that stages depend on", "settings")
    for name, run, text in (("train", _train, "train one depth, or rung"), ("check", _check, "judge one depth, or rung")):
        command = add(commands, name, run, text, "prepared", "search", "progress")
        command.add_argument("--depth", type=int, required=True, help="rung of the ladder; of a prefix, the blocks kept")
        command.add_argument("--after", type=int, required=True, help="the one before it in search.schedule; 0 for none")
    ends = ("prepared", "search", "model", "metrics", "plots", "progress")
    add(commands, "truncate", _truncate, "cut and finish the accepted depth", *ends)
    add(commands, "evaluate", _evaluate, "evaluate the model once on test", "prepared", "model", "search", "evaluation", "metrics")
    add(commands, "export", _export, "write the model as files for other runtimes", "prepared", "model", "exported", "metrics")
    told = ("prepared", "model", "metrics", "plots", "evaluation", "exported", "report")
    add(commands, "report", _report, "write the page and its pictures", *told)
    record = ("prepared", "search", "model", "metrics", "plots", "report", "exported")
    done = (*record, "registered-weights", "registration")
    add(commands, "register", _register, "put the search into MLflow and the model into its registry", *done)
    track = add(commands, "track", _track, "put what there is of the search into MLflow", *record)
    track.add_argument("--replay", action="store_true", required=True, help="from the stages' own files, as far as they go")
    add_search_commands(commands)
    add_model_commands(commands)
    shown = ("model", "metrics", "registered-weights", "registration", "report", "exported")
    add(commands, "show", _show, "print a summary of the search", *shown)
    return parser


def _code(options: argparse.Namespace) -> None:
    found = stage(options, source=options.source, out=options.code)
    say(f"{options.code}: modules by stage: {', '.join(f'{stage} {n}' for stage, n in found.items())}")


def _fetch(options: argparse.Namespace) -> None:
    stage(options, downloads=options.downloads, data=options.data)


def _prepare(options: argparse.Namespace) -> None:
    out = options.prepared
    splits = {name: out / name for name in ("train", "val", "test")}
    stage(options, data=options.data, manifest=out / "dataset.json", progress=options.progress, **splits)


def _open(options: argparse.Namespace) -> None:
    stage(options, search=search_of(options))


def _settings(options: argparse.Namespace) -> None:
    stage(options, out=options.settings)


def _train(options: argparse.Namespace) -> None:
    depth, after = options.depth, options.after
    step = stage(
        options,
        depth=depth,
        after=after,
        prepared=options.prepared,
        search=search_of(options),
        progress=options.progress,
    )
    name = f"{config_of(options).unit} {depth}"
    if step is None:
        say(f"{name}: skipped, the search has ended before it")
    else:
        say(f"{name}: EMA accuracy {step.val_accuracy:.2%} on val after {step.epochs} epochs ({step.stopped}: {step.why})")


def _check(options: argparse.Namespace) -> None:
    depth, after = options.depth, options.after
    verdict = stage(
        options,
        depth=depth,
        after=after,
        prepared=options.prepared,
        search=search_of(options),
        progress=options.progress,
    )
    name = f"{config_of(options).unit} {depth}"
    say(f"{name}: {verdict.verdict}: {verdict.reason}" if verdict else f"{name}: skipped, the search has ended before it")


def _truncate(options: argparse.Namespace) -> None:
    flat = stage(
        options,
        prepared=options.prepared,
        search=search_of(options),
        model=options.model,
        metrics=options.metrics / "search.json",
        plots=options.plots,
        progress=options.progress,
    )
    config = config_of(options)
    kept = f"{config.unit} {flat['depth']} of {config.n_units}"
    say(f"{kept} is kept ({flat['verdict']}), {flat['val_accuracy']:.2%} on val, in {options.model}/")


def _evaluate(options: argparse.Namespace) -> None:
    record = stage(
        options,
        prepared=options.prepared,
        model=options.model,
        search=search_of(options),
        evaluation=options.evaluation,
        metrics=options.metrics / "evaluation.json",
        latency=options.metrics / "latency.json",
    )
    low, high = record["test_accuracy_low"], record["test_accuracy_high"]
    balanced = f", balanced {record['test_balanced_accuracy']:.2%}" if "test_balanced_accuracy" in record else ""
    say(f"{record['test_accuracy']:.2%} on test ({low:.2%} to {high:.2%}){balanced}, {record['params_saved']:.1%} fewer parameters")


def _export(options: argparse.Namespace) -> None:
    places = {"metrics": options.metrics / "export.json", "latency": options.metrics / "export_latency.json"}
    found = stage(options, prepared=options.prepared, model=options.model, exported=options.exported, **places)
    for one in found.artifacts:
        say(f"{options.exported / one.file}: {one.bytes:,} bytes, {one.accuracy:.2%} on test in {one.runtime}")
    for one in found.refused:
        say(f"{one.format} is not written: {one.reason}")


def _report(options: argparse.Namespace) -> None:
    findings = stage(
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
    say(f"{kept} ({verdict}), {findings.test_accuracy:.2%} on test: {options.report / 'report.html'}")


def _show(options: argparse.Namespace) -> None:
    summary = stage(
        options,
        model=options.model,
        metrics=options.metrics,
        registered_weights=options.registered_weights,
        registration=options.registration,
        report=options.report,
        exported=options.exported,
    )
    print(summary.describe(color=sys.stdout.isatty() and not os.environ.get("NO_COLOR")))


def _record(options: argparse.Namespace) -> dict[str, Any]:
    return {"search": search_of(options)} | {
        name: getattr(options, name) for name in ("prepared", "model", "metrics", "plots", "report", "exported")
    }


def _register(options: argparse.Namespace) -> None:
    done = stage(options, **_record(options), registered_weights=options.registered_weights, registration=options.registration)
    say(f"{done.name} version {done.version} in the registry at {done.tracking_uri}: {', '.join(done.aliases)}; {done.reason}")


def _track(options: argparse.Namespace) -> None:
    say(stage(options, **_record(options)).describe())
