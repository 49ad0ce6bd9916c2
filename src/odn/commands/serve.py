"""Serve a model over HTTP until it is stopped; the command `odn serve`.

Reads: a model: an ONNX file, a folder, or a version in MLflow's registry
Writes: nothing
Config: none
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from odn.cores import usable_cores
from odn.errors import OutputError
from odn.serving.server import MOST_WAITING, make_app
from odn.serving.sources import find_source
from odn.serving.swapping import Served

IDLE_SECONDS = 75  # for which a client's connection is kept without a request
STOP_SECONDS = 30  # in which what was asked before a stop is answered
MOST_CONNECTIONS = 16 * MOST_WAITING


class _Server(uvicorn.Server):
    """Be uvicorn's server, and leave signals to `_serve`: a stop that was asked for ends well."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(*, model: str | None, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, then answer what was asked and return.

    Raises:
        OdnError: there is no such model, or the port is taken.
    """
    n_threads = usable_cores()
    served = Served(find_source(model), threads=1)  # a request a core: as many as there are cores are computed at a time
    with contextlib.closing(listen(host, port)) as listening:
        loaded, place = served.loaded, listening.getsockname()
        about = loaded.model.about
        say(f"{loaded.name} version {loaded.version}: {len(about.classes)} classes, {about.image} images, threads: {n_threads}")
        say(f"http://{place[0]}:{place[1]}/invocations and /v2/models/{loaded.name}/infer (stop with Ctrl-C)")
        app = make_app(served, n_threads=n_threads)
        config = uvicorn.Config(
            app, access_log=False, log_level="warning", timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS, limit_concurrency=MOST_CONNECTIONS, server_header=False,
        )  # fmt: skip
        asyncio.run(_serve(_Server(config), listening))


async def _serve(server: uvicorn.Server, listening: socket.socket) -> None:
    def stop() -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    await server.serve(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Listen as TCP by name: only then asyncio sends each part of an answer at once, where TCP would hold it back for 40 ms.

    Raises:
        OutputError: the host is not known, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(MOST_CONNECTIONS)
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot listen at {host} port {port} ({reason}); choose another: odn serve --port {port % 65535 + 1}") from None
    return listening
