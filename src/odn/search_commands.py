"""The commands around a search, before it (backbones, cost, look, preset) and after it (specialise, route)."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from odn.command_line import add, config_of, say, search_of, stage
from odn.errors import ConfigError, TargetError
from odn.sanitize import escaped


def add_search_commands(commands: Any) -> None:
    """Add the commands to the command line's parser."""
    route = add(commands, "route", _route, "give each image a depth of its own", "prepared", "search", "routed", "progress")
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
    add(commands, "cost", _cost, "count and time the backbone at every depth", "prepared")
    add(commands, "look", _look, "fit a linear probe to frozen features at every depth", "prepared", "search", "look")
    listing = add(commands, "backbones", _backbones, "list the backbones that can be cut", "prepared")
    listing.add_argument("filter", nargs="?", default="", help="part of the name, such as efficientnet_lite or 'timm/vit_*'")
    preset = add(commands, "preset", _preset, "print a preset of params/ as options of 'dvc exp run'")
    preset.add_argument("name", help="such as paper/mnist")
    places = ("prepared", "search", "model", "specialised")
    specialise = add(commands, "specialise", _specialise, "bring out a network for each target, without training", *places)
    specialise.add_argument("--target", action="append", required=True, help="such as 'accuracy>=0.98' or 'bytes<=100000,latency_ms<=1.5'")
    specialise.add_argument(
        "--runtime", choices=("torch", "onnx", "onnx-int8"), default="torch", help="whose latency_ms it is (default: %(default)s)"
    )
    specialise.add_argument("--no-register", action="store_true", help="write the folders only")
    specialise.add_argument("--enumerate", action="store_true", help="evaluate all sub-networks, however many")
    specialise.add_argument("--no-predictor", action="store_true", help="evaluate each sub-network that evolution sees on val")
    specialise.add_argument("--no-latency-table", action="store_true", help="time each sub-network as a whole")


def _specialise(options: argparse.Namespace) -> None:
    from odn.searching.targets import read_targets

    targets = read_targets(options.target)
    done = stage(
        options,
        targets=targets,
        prepared=options.prepared,
        search=search_of(options),
        model=options.model,
        out=options.specialised,
        registers=not options.no_register,
        enumerates=options.enumerate,
        predicts=not options.no_predictor,
        uses_table=not options.no_latency_table,
        runtime=options.runtime,
    )
    for one in done.made:
        say(one.describe())
    if done.missed:
        raise TargetError(*done.missed)


def _preset(options: argparse.Namespace) -> None:
    print(escaped(" ".join(stage(options, name=options.name))))


def _route(options: argparse.Namespace) -> None:
    from odn.report.routed import describe
    from odn.routing.targets import Target

    first = config_of(options).search.schedule[0]
    summary = stage(
        options,
        kind=options.kind,
        target=Target(**{name: _at_most_one(name, getattr(options, name)) for name in ("accuracy", "macs", "latency_ms")}),
        prepared=options.prepared,
        supernet=options.supernet or search_of(options).supernet(first),
        out=options.routed,
        progress=options.progress,
        register=not options.no_register,
        export=options.export,
    )
    print(describe(summary.card, static=summary.static, clock=summary.clock, folder=summary.folder))
    if summary.segments:
        say(f"  {summary.segments}")
    if summary.registration:
        done = summary.registration
        say(f"{done.name} version {done.version} in the registry at {done.tracking_uri}: {', '.join(done.aliases)}; {done.reason}")


def _at_most_one(name: str, values: Sequence[float]) -> float | None:
    if len(values) > 1:
        raise ConfigError(f"--{name.replace('_', '-')}: stands {len(values)} times, with {', '.join(map('{:g}'.format, values))}; keep one")
    return values[0] if values else None


def _look(options: argparse.Namespace) -> None:
    print(stage(options, prepared=options.prepared, search=search_of(options), out=options.look).describe())
    say(f"written to {options.look}/")


def _backbones(options: argparse.Namespace) -> None:
    print(stage(options, wanted=options.filter, prepared=options.prepared).describe())


def _cost(options: argparse.Namespace) -> None:
    print(stage(options, prepared=options.prepared).describe())
