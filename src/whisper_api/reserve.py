"""When a replica idles for a moment, so that a short request finds it free.

A short request is in the queue from its arrival, but its windows come one step after the other: a
first one when its audio is decoded and heard through, the next when the language is known. A batch
of a long request that began in between would make it wait, once for each step.
Between two batches of long requests a replica idles a bounded time altogether, so that endless
short requests cost long ones a part of the engine, never all of it.
Pure data: no clock, no event loop, no engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from whisper_api.fairness import LANES, Share
from whisper_api.types import Lane

COMING_SECONDS = 0.25
"""How long the next window of a short request is expected."""


@dataclass(slots=True)
class _Coming:
    """A short request: its windows that wait or run, and until when the next one is expected."""

    until: float
    windows: int = 0


@dataclass(slots=True)
class Reserve:
    """Short requests of one engine that are about to have work for it."""

    most: float  #: seconds that a replica idles between two batches of long requests
    _requests: dict[Share[Any], _Coming] = field(default_factory=dict)
    _spent: float = 0.0  #: of ``most``
    _since: float | None = None  #: since when a replica is left idle

    def join(self, share: Share[Any], now: float) -> None:
        """A short request was let in."""
        self._requests[share] = _Coming(now + COMING_SECONDS)

    def push(self, share: Share[Any]) -> None:
        """One of its windows came."""
        if share in self._requests:
            self._requests[share].windows += 1

    def done(self, share: Share[Any], now: float) -> None:
        """One of its windows is done, perhaps not its last."""
        if (request := self._requests.get(share)) is not None:
            request.windows -= 1
            request.until = now + COMING_SECONDS

    def leave(self, share: Share[Any]) -> None:
        """It wants nothing more."""
        self._requests.pop(share, None)

    def idle(self, now: float, lane: Lane) -> float:
        """For how many seconds from now no batch of a long request of ``lane`` may begin."""
        rank = LANES.index(lane)
        ends = [
            request.until
            for share, request in self._requests.items()
            if not request.windows and LANES.index(share.lane) <= rank
        ]
        since = now if self._since is None else self._since
        idle = min(max(ends, default=now), since + self.most - self._spent) - now
        if idle <= 0:
            return 0.0
        self._since = since
        return idle

    def begin(self, now: float, long: bool) -> None:
        """A batch begins; ``long``: the first of its windows is that of a long request."""
        self.stop(now)
        if long:
            self._spent = 0.0

    def stop(self, now: float) -> None:
        """No replica is left idle any more, as nothing waits that it was kept from."""
        if self._since is not None:
            self._spent += now - self._since
        self._since = None
