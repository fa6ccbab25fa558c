"""Threads for work on audio in this process: short work at once, long work behind other long work
and at low priority, so that a clip never waits for the film before it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

T = TypeVar("T")

LIGHT_SECONDS = 300.0
"""Audio up to this length is short work."""
LIGHT_THREADS = 2
NICENESS = 10
"""How much long work gives way to everything else, in Unix's terms."""


class Effort:
    """Two small pools of threads."""

    def __init__(self, heavy_threads: int) -> None:
        """``heavy_threads`` long pieces of work run at the same time."""
        self._light = ThreadPoolExecutor(LIGHT_THREADS, thread_name_prefix="audio")
        self._heavy = ThreadPoolExecutor(
            heavy_threads, thread_name_prefix="long-audio", initializer=give_way
        )

    async def run(self, seconds: float, work: Callable[[Callable[[], bool]], T]) -> T:
        """Run ``work(cancelled)`` on ``seconds`` of audio.

        Cancelling the caller drops what has not begun and makes ``cancelled()`` true.
        """
        stop = threading.Event()
        pool = self._light if seconds <= LIGHT_SECONDS else self._heavy
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(pool, partial(work, stop.is_set))
        finally:
            stop.set()

    def close(self) -> None:
        """Begin nothing more."""
        for pool in (self._light, self._heavy):
            pool.shutdown(wait=False, cancel_futures=True)


def give_way() -> None:
    """Lower the priority of the calling thread, where threads have one of their own."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def process_gives_way() -> None:
    """Lower the priority of this process, where the system knows such a thing."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            os.nice(NICENESS)
