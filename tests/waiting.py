"""Waiting for what must come, for as long as a machine that is busy elsewhere may need."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

PATIENCE_S = 60.0
"""Far more than anything here takes; only a fault takes longer."""


def wait_until(look: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
    """What ``look`` answers once it answers anything.

    Raises:
        AssertionError: it takes longer than ``seconds``.
    """
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.01)
    return found


async def until(look: Callable[[], Any | Awaitable[Any]], seconds: float = PATIENCE_S) -> Any:
    """The same on an event loop; ``look`` may be a coroutine function."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < end, "it does not come"
        await asyncio.sleep(0.01)
