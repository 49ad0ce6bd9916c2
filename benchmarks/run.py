"""Run arms of a benchmark on the same data, splits and seeds, one after the other or `--jobs` at once: `python -m benchmarks.run`.

An arm is one of these, or one of these with settings changed, such as `growth:growth.init=zero`:

- climb, growth, paper, grid, supernet, prune: `search.mode`;
- scratch, full: the depth that growth found (or climb, on a prefix ladder) and the whole backbone, from random weights, for the
  full-network epochs that the search took;
- torch_pruning: the whole backbone pruned to the bytes of growth, for what growth took; torch_pruning_macs: to the MACs of prune;
- torch_pruning_global, _taylor: pruned to the bytes of climb by one threshold for all layers, for what climb took; with _long for
  6 epochs of the whole backbone and 100 after the cut, of which there are variants: see PRUNED;
- width: the whole backbone with all channels multiplied down to the bytes of climb, trained as climb trains;
- autogrow;
- out of the supernet of the same seed: `specialised:accuracy>=0.98`, `routed:confidence,accuracy=0.98`.

What has run is kept after each run, and is not run again.
"""

import argparse
import json
import math
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.neighbours import run_routed, run_specialised
from benchmarks.peers.pruning import Peer, run_pruning
from benchmarks.results import FOLDER, Result, read_results, write_results
from benchmarks.search import epoch_cost, place_of, prepare_data, run_search
from benchmarks.side_by_side import Run, in_order, sharing_cores, side_by_side
from odn.backbones import n_blocks_of
from odn.commands.preset import read_preset
from odn.config import Config, changed, load_config
from odn.data.dataset import read_manifest
from odn.errors import OdnError
from odn.modes import MODES as MEANINGS
from odn.routing.targets import Target
from odn.searching.data import backbone_of, costs_at
from odn.tracking import live
from odn.training.device import choose_machine, processor_name

MODES = ("climb", "growth", "paper", "grid", "supernet", "prune")
FROM_SUPERNET = ("specialised", "routed")
PRUNED = {
    "torch_pruning": Peer(like="growth", of="size_bytes"),
    "torch_pruning_macs": Peer(like="prune", of="macs"),
    "torch_pruning_global": Peer(like="climb", of="size_bytes", scope="global"),
    "torch_pruning_taylor": Peer(like="climb", of="size_bytes", scope="global", importance="taylor"),
    "torch_pruning_global_long": Peer(like="climb", of="size_bytes", scope="global", epochs=(6, 100)),
    "torch_pruning_taylor_long": Peer(like="climb", of="size_bytes", scope="global", importance="taylor", epochs=(6, 100)),
    "torch_pruning_isomorphic_long": Peer(like="climb", of="size_bytes", scope="isomorphic", epochs=(6, 100)),
    "torch_pruning_iterative_long": Peer(like="climb", of="size_bytes", scope="global", epochs=(6, 100), cuts=5),
    "torch_pruning_uniform_long": Peer(like="climb", of="size_bytes", epochs=(6, 100)),
    "torch_pruning_random_long": Peer(like="climb", of="size_bytes", importance="random", epochs=(6, 100)),
    "torch_pruning_macs_long": Peer(like="climb", of="macs", scope="global", epochs=(6, 100)),
    "torch_pruning_thin_long": Peer(like="climb", of="size_bytes", scope="global", epochs=(20, 100), start=8),
}
ARMS = (*MODES, "scratch", "full", "width", *PRUNED, "autogrow", *FROM_SUPERNET)
NEXT_SETTING = re.compile(r",(?=[a-z_.]+=)")
BUDGETS = ("search.max_bytes", "search.max_macs", "search.max_params")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what has not run yet; return 0, or 2 after one plain line."""
    options = _parser().parse_args(arguments)
    live.LIVE_AFTER = math.inf  # nothing of a benchmark goes to MLflow
    if options.jobs < 1:
        print(f"odn: --jobs: expected a whole number from 1; got {options.jobs}", file=sys.stderr)
        return 2
    try:
        _run(options)
    except OdnError as error:
        print(f"odn: {error}", file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> None:
    base = load_config(options.params)
    if options.preset:
        base = changed(base, read_preset(options.preset))
    base = changed(base, read_settings(options.set))
    path = options.out / f"{options.name}.json"
    known = read_results(path)
    results = list(known.results) if known else []
    if known and known.about["config"] != _recorded(base):
        raise OdnError(f"{path} holds results under other settings; give these another name, or take that file away")
    done = {(one.seed, one.arm) for one in results}
    runs = [(seed, arm) for seed in options.seeds for arm in dict.fromkeys(options.arms) if (seed, arm) not in done]
    with _workplace(options.work) as work, sharing_cores(options.jobs):

        def ready(run: Run) -> Callable[[], Result]:
            """Prepare the data of a run; return what runs it."""
            seed, arm = run
            config = changed(base, {"seed": seed})
            place = place_of(config, work=work)
            prepared = prepare_data(config, folder=place)
            return partial(_arm, arm, config=config, prepared=prepared, place=place, results=list(results), options=options)

        for result in (
            in_order(runs, ready) if options.jobs == 1 else side_by_side(runs, ready, jobs=options.jobs, needs=partial(_needs, base))
        ):
            results.append(result)
            results.sort(key=lambda one: runs.index((one.seed, one.arm)) if (one.seed, one.arm) in runs else -1)
            config = changed(base, {"seed": result.seed})
            prepared = prepare_data(config, folder=place_of(config, work=work))
            write_results(path, known.about if known else _about(config, prepared=prepared), results)
            print(
                f"{result.arm} seed {result.seed}: depth {result.depth}, {result.test_accuracy:.2%} on test, {result.size_bytes:,} bytes, "
                f"{result.full_network_epochs:.2f} full-network epochs, {result.seconds:.0f} s",
                flush=True,
            )


def _needs(base: Config, run: Run, other: Run) -> bool:
    """Tell whether a run waits for another: it gets what that one took, or both come out of one supernet, and work in its folder."""
    if run[0] != other[0]:
        return False
    kind, before = run[1].partition(":")[0], other[1].partition(":")[0]
    return other[1] == _reference(kind, config=base) or (kind in FROM_SUPERNET and before in FROM_SUPERNET)


def _reference(kind: str, *, config: Config) -> str | None:
    """Return the arm that a kind of arm gets its size or budget from; None where it stands for itself."""
    if kind in MODES or kind == "autogrow":
        return None
    if kind in FROM_SUPERNET:
        return "supernet"
    of_climb = kind == "width" or (config.search.ladder == "prefix" and config.search.mode == "climb")
    return PRUNED[kind].like if kind in PRUNED else "climb" if of_climb else "growth"


def _arm(arm: str, *, config: Config, prepared: Path, place: Path, results: list[Result], options: argparse.Namespace) -> Result:
    kind, _, changes = arm.partition(":")
    if kind not in ARMS:
        raise OdnError(f"--arms: there is no arm {kind}; there are {', '.join(ARMS)}")
    if kind in FROM_SUPERNET:
        return _from_supernet(arm, config=config, prepared=prepared, place=place, results=results)
    config = changed(config, read_settings(NEXT_SETTING.split(changes) if changes else []))
    folder = place / re.sub(r"[^\w.-]+", "-", arm)
    if kind == "autogrow":
        return _autogrow(arm, prepared=prepared, config=config, options=options)
    if kind in MODES:
        return run_search(_in_mode(config, kind), arm=arm, prepared=prepared, folder=folder)
    name = _reference(kind, config=config)
    like = next((one for one in results if (one.arm, one.seed) == (name, config.seed)), None)
    if like is None:
        raise OdnError(f"{arm}: its budget is that of {name} on the same seed, which has not run; name {name} before it")
    if kind == "width":
        done = run_search(_narrow(config, most=like.size_bytes, prepared=prepared), arm=arm, prepared=prepared, folder=folder)
        spent = config.climb.epochs * done.macs / _full_macs(config, prepared=prepared)
        return replace(done, full_network_epochs=spent)  # of the backbone at its own width
    depth = like.depth if kind == "scratch" else n_blocks_of(config.model.backbone, config.model.arguments)
    if kind not in PRUNED:
        begun = config if kind == "full" else changed(config, {"model.weights": None})
        fixed = _for_budget(begun, depth=depth, budget=like.full_network_epochs, prepared=prepared)
        return run_search(fixed, arm=arm, prepared=prepared, folder=folder)
    peer = PRUNED[kind]
    first = peer.epochs[0] if peer.epochs is not None else like.full_network_epochs / 2
    half = (
        _for_budget(config, depth=depth, budget=first, prepared=prepared)
        if peer.start is None
        else changed(config, {"search.max_bytes": peer.start * like.size_bytes, "climb.epochs": round(first)})
    )
    whole = run_search(half, arm="whole", prepared=prepared, folder=folder)
    done = run_pruning(config, arm=arm, whole=folder / "model", peer=peer, like=like, spent=whole.full_network_epochs, prepared=prepared)
    return replace(done, seconds=done.seconds + whole.seconds)


def _in_mode(config: Config, mode: str) -> Config:
    if mode == "paper":
        return _published(config)
    schedule = {"search.schedule": [config.search.schedule[-1]]} if MEANINGS[mode].one_depth else {}
    return changed(config, schedule | {"search.mode": mode})


def _from_supernet(arm: str, *, config: Config, prepared: Path, place: Path, results: list[Result]) -> Result:
    kind, _, asked = arm.partition(":")
    supernet = next((one for one in results if (one.arm, one.seed) == ("supernet", config.seed)), None)
    if supernet is None or not (place / "supernet").exists():
        raise OdnError(f"{arm}: it comes out of the supernet of the same seed; name supernet before it, and keep it with --work")
    known: dict[str, Any] = {"arm": arm, "prepared": prepared, "supernet": supernet, "folder": place / "supernet"}
    config = _in_mode(config, "supernet")
    if kind == "specialised":
        return run_specialised(config, target=asked, **known)
    routing, _, target = asked.partition(",")
    return run_routed(
        config, kind=routing, target=Target(**{"accuracy": None, "macs": None, "latency_ms": None, **read_settings([target])}), **known
    )


def _published(config: Config) -> Config:
    """Return the published procedure on these data, network and target, as the row of this data set has it, else as MNIST's has it."""
    source = config.data.source
    row = read_preset(f"paper/{source if (Path('params/paper') / f'{source}.yaml').exists() else 'mnist'}")
    recipe = {key: value for key, value in row.items() if key.partition(".")[0] in {"train", "augment", "growth", "paper"}}
    return changed(config, recipe | {"search.mode": "paper", "paper.target": config.search.target})


def _for_budget(config: Config, *, depth: int, budget: float, prepared: Path) -> Config:
    """Return the settings that train one depth from scratch for so many full-network epochs, with the rate falling to 0 over them."""
    epochs = max(1, round(budget / epoch_cost(config, prepared=prepared, depth=depth)))
    changes = {"search.mode": "climb", "search.ladder": "prefix", "search.schedule": [depth], "climb.epochs": epochs}
    return changed(config, changes | dict.fromkeys(BUDGETS))


def _narrow(config: Config, *, most: int, prepared: Path) -> Config:
    """Return the settings that train the whole backbone at the largest width with no more than `most` bytes."""
    manifest, depth = read_manifest(prepared / "dataset.json"), n_blocks_of(config.model.backbone, config.model.arguments)
    changes = {"search.ladder": "prefix", "search.schedule": [depth]} | dict.fromkeys(BUDGETS)
    for width in (config.model.width * step / 500 for step in range(500, 0, -1)):
        narrow = changed(config, changes | {"model.width": width})
        if costs_at(backbone_of(narrow, manifest), manifest).size_bytes <= most:
            return narrow
    raise OdnError(f"width: at no width has {config.model.backbone} {most:,} bytes at most")


def _autogrow(arm: str, *, prepared: Path, config: Config, options: argparse.Namespace) -> Result:
    if options.autogrow is None:
        raise OdnError("autogrow: its code is not part of odn; clone github.com/wenwei202/autogrow and name the folder with --autogrow")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "result.json"
        command = [sys.executable, "-m", "benchmarks.peers.autogrow", "--code", str(options.autogrow), "--prepared", str(prepared)]
        command += ["--seed", str(config.seed), "--out", str(out), *options.autogrow_options]
        if subprocess.run(command, check=False).returncode:
            raise OdnError("autogrow: it failed, as said above")
        found: dict[str, Any] = json.loads(out.read_text())
    macs = _full_macs(config, prepared=prepared) * read_manifest(prepared / "dataset.json").counts["train"]["total"]
    return Result(
        arm=arm,
        verdict="grown",
        full_network_epochs=found["macs_epochs"] / macs,
        note=f"{found['blocks']} blocks a group; growth {'ended by its rule' if found['growth_ended'] else 'was cut off'}",
        **{
            name: found[name]
            for name in ("seed", "depth", "val_accuracy", "test_accuracy", "n_test", "n_params", "size_bytes", "macs", "seconds")
        },
    )


def _full_macs(config: Config, *, prepared: Path) -> int:
    """Return the multiply-accumulates of one image at full depth."""
    manifest = read_manifest(prepared / "dataset.json")
    return costs_at(backbone_of(config, manifest), manifest).macs


def read_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Read KEY=VALUE, each value as YAML has it.

    Raises:
        OdnError: there is no `=`.
    """
    settings = {}
    for pair in pairs:
        name, found, value = pair.partition("=")
        if not found:
            raise OdnError(f"expected KEY=VALUE, such as model.width=0.25; got {pair!r}")
        settings[name] = yaml.safe_load(value)
    return settings


def git_commit() -> str:
    """Return the short name of what is checked out; empty outside a checkout."""
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()


def _about(config: Config, *, prepared: Path) -> dict[str, Any]:
    manifest = read_manifest(prepared / "dataset.json")
    machine = choose_machine(config.train, macs=costs_at(backbone_of(config, manifest), manifest).macs)
    return {
        "command": f"python -m benchmarks.run {shlex.join(without_places(sys.argv[1:]))}",
        "commit": git_commit(),
        "processor": processor_name(machine.device),
        "threads": machine.threads,
        "precision": machine.precision,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "config": _recorded(config),
    }


def _recorded(config: Config) -> dict[str, Any]:
    """Return the settings that all results of a file share; where the data lies on this machine is not one."""
    content = config.model_dump(mode="json")
    content["data"]["root"] = None
    return {name: value for name, value in content.items() if name != "seed"}


def without_places(arguments: Sequence[str]) -> list[str]:
    """Leave out what is where on this machine."""
    places = {"--work", "--autogrow", "--out"}
    return [
        one
        for index, one in enumerate(arguments)
        if one not in places and not (index and arguments[index - 1] in places) and not one.startswith("data.root=")
    ]


@contextmanager
def _workplace(named: Path | None) -> Iterator[Path]:
    """Yield a folder for data and interrupted runs: the one that was named, or one that is gone afterwards."""
    if named is not None:
        yield named.absolute()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("name", help="of the result file")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results (default: %(default)s)")
    parser.add_argument("--arms", nargs="+", default=["growth", "scratch", "full"], metavar="ARM")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, each with its share of the cores (default: %(default)s)")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--preset", help="of params/")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings that differ")
    parser.add_argument("--work", type=Path, help="folder that keeps data and interrupted runs")
    parser.add_argument("--autogrow", type=Path, help="clone of github.com/wenwei202/autogrow")
    parser.add_argument(
        "--autogrow-options", type=shlex.split, default=[], metavar='"--OPTION VALUE …"', help="of benchmarks.peers.autogrow"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
