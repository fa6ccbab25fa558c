"""What was worked out, kept in memory for a while: results, and windows of stopped jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Protocol

from cachetools import TLRUCache

from whisper_api.pipeline import Progress
from whisper_api.types import Transcript


@dataclass(frozen=True, slots=True)
class Kept:
    """A result, or how far a job came that was stopped."""

    transcript: Transcript | None
    progress: Progress | None
    seconds: float  #: how long it is kept

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        total = 1000
        if self.transcript is not None:
            total += sum(map(_size, self.transcript.segments))
        for result in self.progress.results if self.progress is not None else ():
            total += 500 + (sum(map(_size, result.decoded.pieces)) if result.decoded else 0)
        return total


class Cache:
    """Work -> what is kept of it; the oldest use makes room. For one event loop."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``most`` bytes are kept."""
        self.most = most
        self.size = 0  #: bytes kept now, about; a plain number, so that any thread may read it
        self._kept: TLRUCache[Hashable, Kept] = TLRUCache(
            maxsize=most,
            ttu=lambda _, kept, now: now + kept.seconds,
            timer=clock,
            getsizeof=lambda kept: kept.size,
        )

    def get(self, work: Hashable) -> Kept | None:
        """What is kept of ``work`` and not too old."""
        kept = self._kept.get(work)
        self.size = int(self._kept.currsize)
        return kept

    def put(self, work: Hashable, kept: Kept) -> None:
        """Keep something in place of what was kept; too large a thing is not kept."""
        self._kept.pop(work, None)
        if kept.seconds > 0 and kept.size <= self.most:
            self._kept[work] = kept
        self.size = int(self._kept.currsize)

    def expire(self) -> None:
        """Let go of what is too old."""
        self._kept.expire()
        self.size = int(self._kept.currsize)

    def drop(self, wanted: Callable[[Hashable], bool]) -> None:
        """Forget all work that is ``wanted`` so."""
        for work in [work for work in self._kept if wanted(work)]:
            self._kept.pop(work, None)
        self.size = int(self._kept.currsize)


class _Texted(Protocol):
    """A decoded piece or a segment."""

    @property
    def text(self) -> str: ...
    @property
    def tokens(self) -> tuple[int, ...]: ...
    @property
    def words(self) -> Iterable[object]: ...
    @property
    def logprobs(self) -> Iterable[object]: ...


def _size(piece: _Texted) -> int:
    """About the bytes of a piece; figures are those of CPython's objects."""
    words, logprobs = len(tuple(piece.words)), len(tuple(piece.logprobs))
    return 400 + 4 * len(piece.text) + 36 * len(piece.tokens) + 250 * words + 350 * logprobs
