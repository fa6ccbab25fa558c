"""Threads for work on audio in this process: short work at once, long work behind other long work,
so that a clip never waits for the film before it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic
from typing import TypeVar

T = TypeVar("T")

LIGHT_SECONDS = 300.0
"""Audio up to this length is short work."""
LIGHT_THREADS = 2
PAUSE_SECONDS = 0.2
"""How long long work pauses between two of its steps once short work comes: decoding, listening and
the engine's part of a clip take about as long."""
NICENESS = 10
"""How much processes with long work give way to everything else, in Unix's terms. Threads of this
one must not: whoever holds the interpreter and waits for a core makes all others wait."""


class Effort:
    """Two small pools of threads."""

    def __init__(self, heavy_threads: int) -> None:
        """``heavy_threads`` long pieces of work run at the same time."""
        self._light = ThreadPoolExecutor(LIGHT_THREADS, thread_name_prefix="audio")
        self._heavy = ThreadPoolExecutor(heavy_threads, thread_name_prefix="long-audio")
        self._quiet_until = 0.0

    async def run(self, seconds: float, work: Callable[[Callable[[], bool]], T]) -> T:
        """Run ``work(cancelled)`` on ``seconds`` of audio.

        Cancelling the caller drops what has not begun and makes ``cancelled()`` true. Long work
        that asks it between two steps gives way to short work there.
        """
        stop = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            if seconds > LIGHT_SECONDS:
                paused = partial(self._pause, stop)
                return await loop.run_in_executor(self._heavy, partial(work, paused))
            self.expect(seconds)
            return await loop.run_in_executor(self._light, partial(work, stop.is_set))
        finally:
            stop.set()

    def expect(self, seconds: float) -> None:
        """Work on so much audio comes; if it is short, long work pauses at its next step."""
        if seconds <= LIGHT_SECONDS:
            self._quiet_until = monotonic() + PAUSE_SECONDS

    def _pause(self, stop: threading.Event) -> bool:
        """Give way to short work for a moment, once in each step; whether to stop for good."""
        stop.wait(max(0.0, self._quiet_until - monotonic()))
        return stop.is_set()

    def close(self) -> None:
        """Begin nothing more."""
        for pool in (self._light, self._heavy):
            pool.shutdown(wait=False, cancel_futures=True)


def process_gives_way() -> None:
    """Lower the priority of this process, where the system knows such a thing."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            os.nice(NICENESS)
