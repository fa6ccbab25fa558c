"""Whom the running code works for, and who pays for the audio; known without passing it down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Protocol


class Meter(Protocol):
    """Counts one caller's audio."""

    async def spend(self, seconds: float) -> None:
        """Count ``seconds`` of audio before they are worked on.

        Raises:
            RateLimited: the caller has not so much left.
        """
        ...

    async def give_back(self, seconds: float) -> None:
        """Take back what was counted for work that was then refused."""
        ...


owner_var: ContextVar[str] = ContextVar("owner", default="")
"""Id of the API key that the running code works for; empty where none is known."""
stages_var: ContextVar[dict[str, float] | None] = ContextVar("stages", default=None)
"""Stage -> seconds of the request that the running code serves, for its line in the log."""
meter_var: ContextVar[Meter | None] = ContextVar("meter", default=None)
"""The meter of the request that the running code serves; None where nothing is counted."""


async def spend_audio(seconds: float) -> None:
    """Count ``seconds`` of audio for whoever the running code works for.

    Raises:
        RateLimited: the caller has not so much left.
    """
    meter = meter_var.get()
    if meter is not None:
        await meter.spend(seconds)


@asynccontextmanager
async def audio_spent(seconds: float) -> AsyncGenerator[None, None]:
    """As ``spend_audio``, for work that is accepted within: where it is refused, nothing counts."""
    await spend_audio(seconds)
    try:
        yield
    except BaseException:
        if (meter := meter_var.get()) is not None:
            await asyncio.shield(meter.give_back(seconds))
        raise
