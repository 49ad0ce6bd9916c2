"""The HTTP server of `odn serve`: both protocols on one port, within bounds; a request that cannot be answered gets a sentence."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version as installed
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from odn.errors import RequestError
from odn.sanitize import sanitized
from odn.serving import open_inference, scoring
from odn.serving.model import answer
from odn.serving.sources import Loaded
from odn.serving.swapping import Served

MOST_BYTES = 16 * 2**20  # of a request: a hundred photographs of 224x224 as raw pixels
MOST_WAITING = 64  # requests at a time, those that are computed among them; with MOST_BYTES the bound of what requests hold in memory
BODY_SECONDS = 30.0  # in which a request has to arrive
THROWN_AWAY = 64 * 2**20  # bytes that are read on behind one that is too large: a client that is still sending would not see the answer
LOOK_SECONDS = 2.0  # between two looks for another model
JSON = "application/json"


@dataclass
class Desk:
    """Hold what requests share: the model, the threads that compute, and how many requests there are."""

    served: Served
    pool: ThreadPoolExecutor
    look_seconds: float
    n_waiting: int = field(default=0)

    async def work(self, request: Request, compute: Callable[[Loaded, bytes], Response]) -> Response:
        """Read a request's body and compute its answer in a thread, by the model that is served when it begins.

        Raises:
            RequestError: there are too many requests, or this one is too large, too slow, or not of the protocol.
        """
        if self.n_waiting >= MOST_WAITING:
            raise RequestError(f"{MOST_WAITING} requests are being answered; send this one again in a second", status=503)
        self.n_waiting += 1
        try:
            body = await _body(request)
            return await asyncio.get_running_loop().run_in_executor(self.pool, compute, self.served.loaded, body)
        finally:
            self.n_waiting -= 1


def make_app(served: Served, *, n_threads: int, look_seconds: float = LOOK_SECONDS) -> Starlette:
    """Return the application that answers by `served` with so many threads."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        following = asyncio.create_task(served.follow(every=desk.look_seconds))
        following.add_done_callback(_tell_of_end)
        try:
            yield
        finally:
            following.cancel()
            desk.pool.shutdown()

    desk = Desk(served, ThreadPoolExecutor(n_threads, thread_name_prefix="odn"), look_seconds)
    routes = [*_scoring(desk), *_open_inference(desk)]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={RequestError: _refused, HTTPException: _not_here})


def _tell_of_end(following: asyncio.Task[None]) -> None:
    """Say so where a fault of ours, or of a library, ends the looks for another model: the present one is served on."""
    if not following.cancelled() and (fault := following.exception()) is not None:
        sys.stderr.write(f"odn: no other model is looked for any more ({sanitized(repr(fault))}); start 'odn serve' again\n")


def _scoring(desk: Desk) -> list[Route]:
    async def alive(_: Request) -> Response:
        return Response("\n", media_type=JSON)

    async def version(_: Request) -> Response:
        return Response(installed("mlflow"), media_type=JSON)

    async def invocations(request: Request) -> Response:
        content_type = request.headers.get("content-type", "")

        def compute(loaded: Loaded, body: bytes) -> Response:
            images = scoring.read_invocation(body, content_type=content_type, image=loaded.model.about.image)
            return Response(scoring.write_invocation(answer(loaded.model, images)), media_type=JSON)

        return await desk.work(request, compute)

    return [
        Route("/ping", alive),
        Route("/health", alive),
        Route("/version", version),
        Route("/invocations", invocations, methods=["POST"]),
    ]


def _open_inference(desk: Desk) -> list[Route]:
    def loaded_as(request: Request) -> Loaded:
        """Return the model, if it is the one that the path names."""
        loaded, wanted = desk.served.loaded, request.path_params
        if wanted["name"] != loaded.name or wanted.get("version", loaded.version) != loaded.version:
            raise RequestError(f"there is no such model; here is {loaded.name}, version {loaded.version}", status=404)
        return loaded

    async def ready(_: Request) -> Response:
        return Response()

    async def server(_: Request) -> Response:
        return _json(open_inference.server_metadata())

    async def model_ready(request: Request) -> Response:
        loaded_as(request)
        return Response()

    async def model(request: Request) -> Response:
        return _json(open_inference.model_metadata(loaded_as(request)))

    async def infer(request: Request) -> Response:
        loaded_as(request)
        if request.headers.get("content-encoding", "identity") != "identity":
            raise RequestError("compressed requests are not read; send it as it is", status=415)
        header_length = request.headers.get(open_inference.HEADER_LENGTH)

        def compute(loaded: Loaded, body: bytes) -> Response:
            asked = open_inference.read_inference(body, header_length=header_length, image=loaded.model.about.image)
            done = open_inference.write_inference(answer(loaded.model, asked.images), request=asked, loaded=loaded)
            return Response(done.body, media_type=done.content_type, headers=done.headers)

        return await desk.work(request, compute)

    routes = [Route("/v2", server), Route("/v2/", server), Route("/v2/health/live", ready), Route("/v2/health/ready", ready)]
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [Route(path, model), Route(f"{path}/ready", model_ready), Route(f"{path}/infer", infer, methods=["POST"])]
    return routes


async def _body(request: Request) -> bytes:
    """Read a request's body, as far as it may be long."""
    content = bytearray()
    too_large = RequestError(f"the request is larger than {MOST_BYTES:,} bytes; send fewer images at a time", status=413)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            n_read = 0
            async for chunk in request.stream():
                n_read += len(chunk)
                if n_read > THROWN_AWAY:
                    raise too_large
                if n_read <= MOST_BYTES:
                    content += chunk
                else:
                    content.clear()
    except TimeoutError:
        raise RequestError(f"the request did not arrive within {BODY_SECONDS:g} s", status=408) from None
    except ClientDisconnect:
        raise RequestError("the client went away", status=400) from None
    if n_read > MOST_BYTES:
        raise too_large
    return bytes(content)


def _json(value: Any) -> Response:
    return Response(json.dumps(value), media_type=JSON)


async def _refused(request: Request, error: Exception) -> Response:
    """Word a refusal as the protocol of the path does."""
    assert isinstance(error, RequestError)
    words = open_inference if request.url.path.startswith("/v2") else scoring
    headers = {"Retry-After": "1"} if error.status == 503 else {}
    return Response(words.write_refusal(error), status_code=error.status, media_type=JSON, headers=headers)


async def _not_here(request: Request, error: Exception) -> Response:
    """Say what there is, where a path or a method is none of ours."""
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {request.url.path}"
    sentence = f"{asked:.120} is not answered here; POST to /invocations or /v2/models/NAME/infer, GET /v2/models/NAME"
    return await _refused(request, RequestError(sentence, status=error.status_code))
