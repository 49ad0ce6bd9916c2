"""Accuracy on test against bytes and milliseconds, for every rung of a ladder in every runtime: `python -m benchmarks.deployed NAME`.

Every rung of `search.schedule` is trained (`search.mode: grid`), exported as `export.formats` says, proved, certified on test and timed, as
the stage `export` does with the one network that a search keeps. Nothing is chosen here, on test least of all. What has run is kept in the
--work folder and in NAME.json, and is not run again.
"""

import argparse
import json
import math
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot as plt

from benchmarks.drawing import dressed, log_scale, svg
from benchmarks.results import FOLDER
from benchmarks.run import git_commit, read_settings, without_places
from benchmarks.search import place_of, prepare_data, run_search
from odn.commands.preset import read_preset
from odn.config import Config, changed, load_config
from odn.data.dataset import read_manifest
from odn.errors import OdnError
from odn.export.names import FILES, NETWORK
from odn.files import write_bytes, write_json, write_text
from odn.models.stored_networks import load_network
from odn.report.exports import TITLES, fine
from odn.searching.data import costs_at
from odn.searching.folder import SearchFolder
from odn.stages import export
from odn.tracking import live
from odn.training.device import processor_name

STYLES = {
    NETWORK: ("#7f8c8d", "D", ":"),
    "onnx": ("#2b59c3", "o", "-"),
    "onnx-int8": ("#c1440e", "s", "-"),
    "torch": ("#8e44ad", "^", "-"),
    "executorch": ("#0b6e4f", "o", "--"),
    "executorch-int8": ("#b8860b", "s", "--"),
}  # color, marker, line
BINDINGS = "ExecuTorch takes one image a call. Its memory is that of bindings for Python, which load torch.\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what has not run yet and write NAME.json, NAME.md and NAME.svg; return 0, or 2 after one plain line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deployed", description=__doc__)
    parser.add_argument("name", help="of the result file")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--preset", help="of params/")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings that differ, such as search.schedule=[1,2,3]")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps data, networks and files")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results (default: %(default)s)")
    options = parser.parse_args(arguments)
    live.LIVE_AFTER = math.inf  # nothing of a benchmark goes to MLflow
    try:
        config = load_config(options.params)
        if options.preset:
            config = changed(config, read_preset(options.preset))
        config = changed(config, read_settings(options.set) | {"search.mode": "grid"})
        found = _measured(config, work=place_of(config, work=options.work))
    except OdnError as error:
        print(f"odn: {error}", file=sys.stderr)
        return 2
    path = options.out / f"{options.name}.json"
    write_json(path, found)
    write_bytes(path.with_suffix(".svg"), plot(found))
    write_text(path.with_suffix(".md"), page(found, name=options.name))
    print(path.with_suffix(".md"))
    return 0


def _measured(config: Config, *, work: Path) -> dict[str, Any]:
    """Train and export every rung, and return what each of its files does and takes."""
    prepared, folder = prepare_data(config, folder=work), work / "grid"
    if not (folder / "evaluation.json").exists():
        run_search(config, arm="grid", prepared=prepared, folder=folder)
    search, manifest = SearchFolder(folder), read_manifest(prepared / "dataset.json")
    rungs = []
    for rung in config.search.schedule:
        model, place = search.trained(rung), work / f"rung-{rung}"
        network = load_network(model)
        if not (place / "latency.json").exists():
            places = {"exported": place / "export", "metrics": place / "export.json", "latency": place / "latency.json"}
            export.run(config, prepared=prepared, model=model, **places)
        record, latency = (json.loads((place / name).read_text()) for name in ("export/export.json", "latency.json"))
        files = {one["format"]: one for one in record["artifacts"]}
        cost = costs_at(network.architecture, manifest)
        rows = {
            name: {
                "bytes": files[name]["bytes"] if name in files else cost.size_bytes,
                **{key: (files.get(name) or record["network"])[key] for key in ("accuracy", "low", "high")},
                "mcnemar_p": files[name]["mcnemar_p"] if name in files else None,
                **{key: speed[key] for key in ("ms", "p95_ms", "ms_batch128", "peak_bytes")},
            }
            for name, speed in latency["speeds"].items()
        }
        refused = {one["format"]: one["reason"] for one in record["refused"]}
        rungs.append({"rung": rung, **asdict(cost), "busy": latency["busy"], "rows": rows, "refused": refused})
        print(f"rung {rung}: {cost.size_bytes:,} bytes, {len(rows)} rows", flush=True)
    return {"about": _about(config, threads=latency["threads"], n_test=record["network"]["n"]), "rungs": rungs}


def _about(config: Config, *, threads: int, n_test: int) -> dict[str, Any]:
    content = config.model_dump(mode="json")
    content["data"]["root"] = None
    runtimes = {name: version(name) for name in ("torch", "onnxruntime")}
    if any(name.startswith("executorch") for name in config.export.formats):
        runtimes["executorch"] = version("executorch")
    return {
        "command": f"python -m benchmarks.deployed {shlex.join(without_places(sys.argv[1:]))} --work FOLDER",
        "commit": git_commit(),
        "processor": processor_name(torch.device("cpu")),
        "threads": threads,
        "python": platform.python_version(),
        "runtimes": runtimes,
        "n_test": n_test,
        "config": content,
    }


def page(found: dict[str, Any], *, name: str) -> str:
    """Return the Markdown: a table over rungs and runtimes, the figure, and how to run it again."""
    about, config = found["about"], found["about"]["config"]
    data, model = config["data"], config["model"]
    size = "" if data["max_images"] is None else f", {data['max_images']:,} of its training images"
    refused = [f"- rung {rung['rung']}, {TITLES[kind]}: {why}" for rung in found["rungs"] for kind, why in rung["refused"].items()]
    busy = [str(rung["rung"]) for rung in found["rungs"] if rung["busy"]]
    threads = "1 thread" if about["threads"] == 1 else f"{about['threads']} threads"
    versions = ", ".join(f"{package} {number}" for package, number in about["runtimes"].items())
    lines = [
        f"# Every rung in every runtime: {data['source']}\n",
        f"{data['source']}{size} (a fraction of {data['val_fraction']:.3g} is val), {model['backbone']} at width {model['width']:g}, "
        f"{config['climb']['epochs']} epochs a rung, seed {config['seed']}. Each file was proved on val and then run once on the "
        f"{about['n_test']:,} test images, in its own runtime; nothing was chosen by it. Bytes are those of the file, of torch of the "
        "weights. McNemar's p is against torch, float32. Times are medians.\n",
        f"![Accuracy on test against bytes, and against milliseconds]({name}.svg)\n",
        _table(found["rungs"]),
        "Not written:\n\n" + "\n".join(refused) + "\n" if refused else "",
        BINDINGS if "executorch" in about["runtimes"] else "",
        f"The machine was busy while these rungs were timed: {', '.join(busy)}.\n" if busy else "",
        f"{about['processor']}, {threads}; Python {about['python']}, {versions}; commit {about['commit']}.\n",
        f"```\n{about['command']}\n```\n",
    ]
    return "\n".join(line for line in lines if line)


def _table(rungs: Sequence[dict[str, Any]]) -> str:
    names = ("rung", "MACs", "in", "bytes", "on test (95 % interval), %", "McNemar p", "ms an image", "p95", "ms, 128 images", "memory")
    rows = [f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]
    for rung in rungs:
        first = (str(rung["rung"]), f"{rung['macs']:,}")
        for kind, row in rung["rows"].items():
            accuracy, low, high = (f"{100 * row[key]:.2f}" for key in ("accuracy", "low", "high"))
            p = "" if row["mcnemar_p"] is None else f"{row['mcnemar_p']:.2g}"
            times = (fine(row[key]) for key in ("ms", "p95_ms", "ms_batch128"))
            memory = f"{row['peak_bytes'] / 1e6:.0f} MB"
            cells = (*first, TITLES[kind], f"{row['bytes']:,}", f"{accuracy} ({low} to {high})", p, *times, memory)
            rows.append(f"| {' | '.join(cells)} |")
            first = ("", "")
    return "\n".join(rows) + "\n"


def plot(found: dict[str, Any]) -> bytes:
    """Draw accuracy on test against bytes and against milliseconds: a line a runtime, a point a rung, with its 95 % interval."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 5.2), sharey=True, layout="constrained")
    kinds = [kind for kind in (NETWORK, *FILES) if any(kind in rung["rows"] for rung in found["rungs"])]
    for kind in kinds:
        rows = [rung["rows"][kind] for rung in found["rungs"] if kind in rung["rows"]]
        color, marker, line = STYLES[kind]
        ys = [100 * row["accuracy"] for row in rows]
        errors = [[100 * (row["accuracy"] - row["low"]) for row in rows], [100 * (row["high"] - row["accuracy"]) for row in rows]]
        for axis, key in zip(axes, ("bytes", "ms"), strict=True):
            style: dict[str, Any] = {
                "color": color,
                "marker": marker,
                "linestyle": line,
                "markersize": 5.5,
                "elinewidth": 0.6,
                "capsize": 2,
            }
            axis.errorbar([row[key] for row in rows], ys, yerr=errors, label=TITLES[kind], **style)
    for axis, label in zip(axes, ("bytes", "ms an image, median"), strict=True):
        log_scale(axis)
        dressed(axis, label=label)
    axes[0].set_ylabel("accuracy on test, %")
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=3, fontsize="small")
    return svg(figure)


if __name__ == "__main__":
    sys.exit(main())
