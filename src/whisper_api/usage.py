"""Whom the running code works for, and who pays for the audio; known without passing it down."""

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
