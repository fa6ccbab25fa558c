"""What a task does about errors: wait, try again a few times, or fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from whisper_api.errors import (
    CapacityError,
    DecoderCrashed,
    EngineError,
    StorageFull,
    WhisperApiError,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

TRIES: dict[type[WhisperApiError], int] = {
    StorageFull: 8,
    EngineError: 3,
    DecoderCrashed: 3,
}
"""Errors that may go away, and how often they may come in a row; other errors are final."""
LONGEST_WAIT_S = 30.0
FIRST_WAIT_S = 0.5


async def nothing() -> None:
    """For work that leaves nothing behind when it fails."""


async def persist(
    work: Callable[[], Awaitable[T]],
    name: str,
    *,
    tidy: Callable[[], Awaitable[None]] = nothing,
    tries: Mapping[type[WhisperApiError], int] = TRIES,
) -> T:
    """``work`` until it succeeds, waiting between tries as its errors ask for.

    Other shortages than those of ``tries`` (a full queue, a model that is being loaded, a
    database that is away) are waited for without end: the task can still be cancelled, and
    nothing is lost. ``tidy`` runs before each wait.

    Raises:
        WhisperApiError: an error that waiting does not mend, or the last of too many.
    """
    failures = 0
    while True:
        try:
            return await work()
        except WhisperApiError as error:
            failures += 1
            if failures >= _tries(error, tries):
                raise
            wait = _wait(error, failures)
            level = logging.WARNING if failures in (1, 10) or failures % 100 == 0 else logging.DEBUG
            log.log(level, "task %s: %s Again in %.1f s.", name, error.message, wait)
            await tidy()
            await asyncio.sleep(wait)


def _tries(error: WhisperApiError, tries: Mapping[type[WhisperApiError], int]) -> float:
    for kind, most in tries.items():
        if isinstance(error, kind):
            return most
    return float("inf") if isinstance(error, CapacityError) else 1


def _wait(error: WhisperApiError, failures: int) -> float:
    growing = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures - 1, 10))
    if isinstance(error, CapacityError):
        return min(error.retry_after, growing)
    return growing
