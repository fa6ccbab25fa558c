"""Who pays for the audio that the running code transcribes; known without passing it down."""

from __future__ import annotations

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
