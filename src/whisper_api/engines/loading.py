"""Loads engines in threads of lower priority, which their libraries' own threads inherit.

Those compute for long and never hold the interpreter: where cores are few, the event loop and the
ears of a clip that comes must not wait for a share of them. Threads that do hold the interpreter
keep their priority, or all others would wait with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

NICENESS = 5
"""How much the libraries' threads give way, in Unix's terms."""


async def load_aside(load: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """The result of ``load`` in a thread of its own, which ends with it."""
    context = copy_context()
    thread = ThreadPoolExecutor(1, thread_name_prefix="load", initializer=_give_way)
    try:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(thread, lambda: context.run(load, *args, **named))
    finally:
        thread.shutdown(wait=False)


def _give_way() -> None:
    """Lower the priority of the calling thread, where threads have one of their own."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            thread = threading.get_native_id()
            nice = os.getpriority(os.PRIO_PROCESS, thread) + NICENESS
            os.setpriority(os.PRIO_PROCESS, thread, nice)
