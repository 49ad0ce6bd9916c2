"""The commands that use a finished model: predict, serve, triton, fetch-model. They need no params.yaml: a device has none."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from odn.errors import DataError
from odn.sanitize import escaped, sanitized

MODEL = "an ONNX file, a folder that odn wrote, or models:/NAME@champion (default: export/model.onnx if it is there, else model/)"


def add_model_commands(commands: Any) -> None:
    """Add the commands to the command line's parser."""
    predict = _add(commands, "predict", _predict, "print the classes of images, each with its probability")
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="files, folders, or - for standard input: an image, or a list of paths")
    predict.add_argument("--model", help=MODEL)
    predict.add_argument("--format", choices=("table", "json"), default="table", help="a table, or a line of JSON an image")
    serve = _add(commands, "serve", _serve, "answer MLflow's scoring protocol and the Open Inference Protocol over HTTP")
    serve.add_argument("--model", help=MODEL + "; another that takes its place is served from then on")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    serve.add_argument("--port", type=int, default=8080, help="port to listen at, 0 for any that is free (default: %(default)s)")
    triton = _add(commands, "triton", _triton, "write a model repository for Triton")
    triton.add_argument("folder", type=Path, metavar="DIR", help="the model repository; other models in it stay")
    triton.add_argument("--model", help=MODEL)
    triton.add_argument("--name", help="of the model in the repository (default: its name in the registry, else odn)")
    fetch = _add(commands, "fetch-model", _fetch_model, "bring a registered model to a device as one file")
    fetch.add_argument("reference", metavar="models:/NAME@ALIAS", help="or models:/NAME/VERSION")
    fetch.add_argument("--format", default="onnx", help="which of the exported files, such as onnx-int8 (default: %(default)s)")
    fetch.add_argument("--out", help="file, or folder with a slash at its end, to write to (default: its own name, here)")


def _add(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.set_defaults(run=run, stage=name)
    return command


def _predict(options: argparse.Namespace) -> None:
    from odn.commands import predict

    given, n_unread = list(predict.find_images(options.images)), 0
    width = max(len(one.name) for one in given)
    for found in predict.run(given, model=options.model):
        if isinstance(found, DataError):
            n_unread += 1
            sys.stderr.write(f"odn: {found}\n")
        elif options.format == "json":
            print(json.dumps(found.to_dict()))
        else:
            print(escaped(found.to_row(width=width)))
    if n_unread:
        raise DataError(f"{n_unread} of {len(given)} images cannot be read")


def _serve(options: argparse.Namespace) -> None:
    from odn.commands import serve

    serve.run(model=options.model, host=options.host, port=options.port, say=lambda line: print(sanitized(line), flush=True))


def _triton(options: argparse.Namespace) -> None:
    from odn.commands import triton

    made = triton.run(options.folder, model=options.model, name=options.name)
    print(sanitized(f"{made}: run tritonserver --model-repository={options.folder}"))


def _fetch_model(options: argparse.Namespace) -> None:
    from odn.commands import fetch_model

    done = fetch_model.run(options.reference, format_name=options.format, out=options.out)
    brought = done.brought
    what = "is there already" if done.was_there else f"{len(brought.content):,} bytes"
    of = f"{brought.artifact.format} of {brought.name} version {brought.version}"
    print(sanitized(f"{done.path}: {of}, {what}, sha256 {brought.artifact.sha256}"))
