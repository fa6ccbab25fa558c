"""How long batches of long requests stay bounded after a short one, or one of a higher lane, came.

A batch cannot be stopped for whoever comes next, and short requests seldom come alone.
Pure data: no clock, no event loop, no engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from whisper_api.fairness import LANES, Share
from whisper_api.types import Lane

CALM_SECONDS = 60.0
"""How long such batches stay bounded at most: the next one may come any time."""
CALM_GAPS, CALM_LEAST = 3.0, 5.0
"""For so many of the pauses that short requests made last, and so many seconds at least: one alone
must not cost a long file the speed of large batches for a minute."""
_NEVER = float("-inf")


@dataclass(slots=True)
class Calm:
    """Whether somebody may soon wait for a long batch of one engine."""

    _short_at: float = _NEVER
    _short_until: float = _NEVER
    _last_short: Share[Any] | None = None
    _lane_until: dict[Lane, float] = field(default_factory=lambda: dict.fromkeys(LANES, _NEVER))

    def push(self, share: Share[Any], now: float) -> None:
        """A window came."""
        self._lane_until[share.lane] = now + CALM_SECONDS
        if not share.short:
            return
        gap = now - self._short_at
        if share is not self._last_short:
            wait = CALM_GAPS * gap if gap <= CALM_SECONDS else CALM_LEAST
            wait = min(max(wait, CALM_LEAST), CALM_SECONDS)
            self._short_until = max(self._short_until, now + wait)
        self._short_until = max(self._short_until, now + CALM_LEAST)
        self._last_short, self._short_at = share, now

    def leave(self, share: Share[Any]) -> None:
        """A request wants nothing more."""
        if share is self._last_short:
            self._last_short = None

    def over(self, lane: Lane, now: float, short_ones_pass: bool) -> bool:
        """Whether higher lanes are expected, or short requests that do not pass a batch."""
        above = [self._lane_until[other] for other in LANES[: LANES.index(lane)]]
        return now < max(_NEVER if short_ones_pass else self._short_until, *above, _NEVER)
