"""Follow the place of a model while it is served: another one that stands there is loaded beside it, then takes its place at once."""

import asyncio
import sys
from collections.abc import Hashable

import numpy as np

from odn.errors import OdnError
from odn.sanitize import sanitized
from odn.serving.model import answer
from odn.serving.sources import Loaded, Source, require_alike


class Served:
    """Hold the model that answers now; whoever took it from `loaded` keeps it until its request is answered."""

    def __init__(self, source: Source, *, threads: int) -> None:
        self._source, self._threads = source, threads
        self._stamp: Hashable = source.stamp()  # before the load: what changes meanwhile is seen at the next look
        self._loaded = _ready(source.load(threads=threads))
        self._said = ""

    @property
    def loaded(self) -> Loaded:
        """Return the model that answers now."""
        return self._loaded

    async def follow(self, *, every: float) -> None:
        """Look every so many seconds whether another model stands there, until this is cancelled."""
        while True:
            await asyncio.sleep(every)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Take the model that stands there now, if it is another that answers the same requests; else keep the present one, and say why."""
        try:
            stamp = self._source.stamp()
            if stamp == self._stamp:
                self._said = ""
                return
            new = _ready(self._source.load(threads=self._threads))
            require_alike(new, old=self._loaded)
        except (OdnError, OSError) as error:
            self._say(f"version {self._loaded.version} is served on: {error}")
            return
        old, self._loaded, self._stamp = self._loaded, new, stamp
        if new.version != old.version:  # a file may be written again as it was
            self._say(f"version {new.version} is served now, in the place of {old.version}")

    def _say(self, line: str) -> None:
        """Say a line once, not at each look."""
        if line != self._said:
            sys.stderr.write(f"odn: {sanitized(line)}\n")
        self._said = line


def _ready(loaded: Loaded) -> Loaded:
    """Let a model answer once: its first request then waits for nothing."""
    answer(loaded.model, np.zeros((1, *loaded.model.about.image.axes), np.uint8))
    return loaded
