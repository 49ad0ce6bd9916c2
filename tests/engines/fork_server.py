"""Start the programs of a test at once: a server that has imported torch, kfp, mlflow and dvc forks for each, as a fresh process would.

`quick_python(folder)` gives three programs, a `python`, an `odn` and a `dvc`, that run in a fork of the server. What they do is what
the real ones do; only the seconds of importing are paid once for all of them, and for all workers of a run that name the same folder.
A program that is killed takes its fork with it, and what that has started.
"""

import array
import contextlib
import fcntl
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

CLIENT = """#!{python} -IS
import array, json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
message = json.dumps({{"program": {program!r}, "argv": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ), "umask": os.umask(0)}})
server.sendmsg([message.encode() + b"\\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
sys.exit(int(server.makefile().read() or 1))
"""
START_SECONDS = 240
CLOCK_SECONDS = 0.1  # what takes how long is compared with nothing: a few passes do
WARM = (  # what the commands import in the end, and some only while they compute
    "torch",
    "torch._dynamo",
    "torch.fx.experimental.symbolic_shapes",
    "torch.export.pt2_archive",
    "torch.onnx._internal.exporter._core",
    "onnxruntime.quantization",
    "torch_pruning",
    "networkx",
    "matplotlib.pyplot",
    "matplotlib.backends.backend_agg",
    "PIL.JpegImagePlugin",
    "jinja2",
    "kfp",
    "kfp.dsl.executor_main",
    "sklearn.datasets",
    "mlflow.pytorch",
    "mlflow.store.tracking.sqlalchemy_store",
    "alembic.config",
    "git",
    "odn.cli",
    "odn.steps",
    "odn.searching.growth",
    "odn.commands.route",
    *(f"odn.stages.{stage}" for stage in ("check", "evaluate", "export", "prepare", "register", "report", "train", "truncate")),
    "boto3",
    "kubeflow.trainer",
    "dvc.cli.parser",
    "dvc.repo.reproduce",
    "dvc.repo.metrics",
    "dvc.repo.plots",
    "dvc.commands.experiments.show",
    "dvc_s3",
    "dvc_data.hashfile.status",
    "scmrepo.git",
    "pygit2",
)


@contextlib.contextmanager
def quick_python(folder: Path) -> Iterator[Callable[[], Path]]:
    """Yield what waits for a folder with the programs `python`, `odn` and `dvc`; the server behind them ends with the last such block."""
    address, programs, users = folder / "socket", folder / "bin", folder / "users"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        first = not users.exists()
        if first:
            os.mkfifo(users)
            programs.mkdir()
        for program in ("python", "odn", "dvc") if first else ():
            text = CLIENT.format(python=sys.executable, address=str(address), program=program)
            (programs / program).write_text(text)
            (programs / program).chmod(0o755)
        user = os.open(users, os.O_RDWR)  # the server sees when nobody holds it any more
        if first:
            command = [sys.executable, __file__, str(address), str(users)]
            os.posix_spawn(sys.executable, command, os.environ | {"OMP_NUM_THREADS": "1"}, setsid=True)  # it may outlive this process

    def started() -> Path:
        deadline = time.monotonic() + START_SECONDS
        while not address.exists():
            assert time.monotonic() < deadline, f"the fork server did not start within {START_SECONDS} s"
            time.sleep(0.05)
        return programs

    try:
        yield started
    finally:
        os.close(user)


def serve(address: str, users: str) -> None:
    """Fork for each program that is asked for, until nobody is left who may ask."""
    import gc
    import importlib

    gc.disable()
    for name in WARM:
        importlib.import_module(name)
    from mlflow.utils.requirements_utils import _init_packages_to_modules_map
    from torch.distributed.launcher import api

    import odn
    from odn.export import measuring
    from odn.models import timing
    from odn.source import read_source

    _init_packages_to_modules_map()  # type: ignore[no-untyped-call]  # else mlflow looks through all packages for each model
    read_source(Path(odn.__file__).parent)  # `odn code` keeps what it has found out of a text
    gc.freeze()  # no fork walks through, and thereby copies, all that was imported
    gc.enable()
    timing.SECONDS = CLOCK_SECONDS
    python = str(Path(address).with_name("bin") / "python")
    quick = partial(api.elastic_launch, entrypoint=python)
    api.elastic_launch = lambda config, entrypoint: quick(config)  # type: ignore[assignment,misc]  # its processes start at once, too …
    measuring.sys = SimpleNamespace(executable=python)  # type: ignore[assignment,attr-defined]  # … and so do those whose memory is measured
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    listener.listen()
    Path(address + ".new").rename(address)
    events = select.poll()
    events.register(listener, select.POLLIN)
    events.register(os.open(users, os.O_RDONLY | os.O_NONBLOCK), select.POLLHUP)
    while all(event == select.POLLIN for _, event in events.poll()):
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _answer(connection)
        connection.close()


def _answer(connection: socket.socket) -> None:
    """Run one program in a fork of its own, and send its exit code back."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    descriptors = array.array("i")
    content, ancillary, _, _ = connection.recvmsg(1 << 20, socket.CMSG_LEN(3 * descriptors.itemsize))
    for _, _, data in ancillary:
        descriptors.frombytes(data)
    while not content.endswith(b"\0"):
        content += connection.recv(1 << 20)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        connection.close()
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
        # The streams that were there know the files that these numbers stood for before.
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        try:
            os._exit(_run(json.loads(content[:-1])))
        except BaseException:  # noqa: BLE001  # such as a pipe that nobody reads any more
            traceback.print_exc()
        finally:  # never through the exit handlers of what the server has imported: some wait for its threads
            os._exit(1)
    with contextlib.suppress(OSError):  # it has ended, or is another program by now
        os.setpgid(child, child)  # whoever of both is first
    events = select.poll()
    events.register(ended := os.pidfd_open(child), select.POLLIN)
    events.register(connection, select.POLLHUP)  # the program was killed
    if all(descriptor != ended for descriptor, _ in events.poll()):
        os.killpg(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(str(code if code >= 0 else 128 - code).encode())
    os._exit(0)


def _run(request: dict[str, object]) -> int:
    """Be the program; return its exit code."""
    from kubernetes.config import kube_config

    os.chdir(str(request["cwd"]))
    os.umask(int(str(request["umask"])))
    os.environ.clear()
    os.environ.update(request["env"])  # type: ignore[call-overload]
    tempfile.tempdir = None  # that of the server's own environment
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = os.environ.get("KUBECONFIG", "~/.kube/config")  # which it reads on import
    argv = list(request["argv"])  # type: ignore[call-overload]
    if argv[:2] == ["-u", "-m"]:  # as torchrun starts its processes
        argv.pop(0)
        for unbuffered in (sys.stdout, sys.stderr):
            unbuffered.reconfigure(write_through=True)  # type: ignore[union-attr]
    code = 0
    try:
        if request["program"] == "odn":
            from odn.cli import main

            code = main(argv)
        elif request["program"] == "dvc":
            from dvc.cli import main as dvc  # type: ignore[import-untyped]

            code = dvc(argv)
        elif argv[0] == "-m":
            sys.argv = argv[1:]
            sys.path.insert(0, "")  # as `python -m` has it
            runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
        else:
            os.execv(sys.executable, [sys.executable, *argv])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:  # noqa: BLE001  # what a real interpreter would do at its end
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        assert stream is not None
        stream.flush()
    return code


if __name__ == "__main__":
    serve(*sys.argv[1:])
