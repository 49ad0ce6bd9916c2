"""Run independent runs of a benchmark at once, each in a process of its own; whoever asked for them stays the only one that writes."""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from benchmarks.results import Result
from odn.cores import usable_cores
from odn.errors import OdnError
from odn.tracking import live

Run = tuple[int, str]  # seed and arm
Ready = Callable[[Run], Callable[[], Result]]  # prepares what a run reads, and returns what runs it


def in_order(runs: Sequence[Run], ready: Ready) -> Iterator[Result]:
    """Run one after the other, in this process."""
    for run in runs:
        yield ready(run)()


def side_by_side(runs: Sequence[Run], ready: Ready, *, jobs: int, needs: Callable[[Run, Run], bool]) -> Iterator[Result]:
    """Run up to `jobs` at once; one that needs an earlier one waits for it. Yield each result when it is there.

    What is running when one fails is waited for and yielded, before the failure is raised.

    Raises:
        OdnError: a run failed, or its process is gone.
    """
    waiting, running, failed = list(runs), dict[Future[Result], Run](), list[OdnError]()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_untracked) as pool:
        while running or (waiting and not failed):
            for run in [] if failed else tuple(waiting):
                before = waiting[: waiting.index(run)]
                if len(running) < jobs and not any(needs(run, other) for other in (*before, *running.values())):
                    waiting.remove(run)
                    try:
                        running[pool.submit(ready(run))] = run
                    except OdnError as error:
                        failed.append(error)
                        break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                seed, arm = running.pop(future)
                try:
                    yield future.result()
                except OdnError as error:
                    failed.append(error)
                except BrokenProcessPool:
                    failed.append(OdnError(f"{arm} seed {seed}: a process is gone, perhaps for want of memory; try fewer --jobs"))
    if failed:
        raise failed[0]


@contextlib.contextmanager
def sharing_cores(jobs: int) -> Iterator[None]:
    """Give each of so many processes its share of the cores, for a while; a single one is left as it is."""
    before = os.environ.get("OMP_NUM_THREADS")
    if jobs > 1:
        os.environ["OMP_NUM_THREADS"] = str(max(1, usable_cores() // jobs))
    try:
        yield
    finally:
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
        elif jobs > 1:
            del os.environ["OMP_NUM_THREADS"]


def _untracked() -> None:
    live.LIVE_AFTER = math.inf  # nothing of a benchmark goes to MLflow
