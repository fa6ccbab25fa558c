"""What was worked out, kept in memory for a while: results, and windows of stopped jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from cachetools import TLRUCache

from whisper_api.merge import WindowResult
from whisper_api.pipeline import Progress
from whisper_api.types import Plan, Transcript

Key = tuple[str, ...]
"""Texts of bounded length: keys do not count as memory."""


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
            total += 4 * sum(map(len, self.transcript.warnings))
        if self.progress is not None:
            total += sum(map(_result_size, self.progress.results))
            total += _plan_size(self.progress.plan) if self.progress.plan else 0
        return total


class Cache:
    """A short key -> what is kept; the oldest use makes room. For one event loop."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``most`` bytes are kept."""
        self.most = most
        self.size = 0  #: bytes kept now, about; a plain number, so that any thread may read it
        self._kept: TLRUCache[Key, Kept] = TLRUCache(
            maxsize=most,
            ttu=lambda _, kept, now: now + kept.seconds,
            timer=clock,
            getsizeof=lambda kept: kept.size,
        )

    def get(self, key: Key) -> Kept | None:
        """What is kept of ``key`` and not too old."""
        kept = self._kept.get(key)
        self.size = int(self._kept.currsize)
        return kept

    def put(self, key: Key, kept: Kept) -> None:
        """Keep something in place of what was kept; too large a thing is not kept."""
        self._kept.pop(key, None)
        if kept.seconds > 0 and kept.size <= self.most:
            self._kept[key] = kept
        self.size = int(self._kept.currsize)

    def expire(self) -> None:
        """Let go of what is too old."""
        self._kept.expire()
        self.size = int(self._kept.currsize)

    def drop(self, start: Key) -> None:
        """Forget everything whose key begins so."""
        for key in [key for key in self._kept if key[: len(start)] == start]:
            self._kept.pop(key, None)
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


def _result_size(result: WindowResult) -> int:
    return 500 + sum(_size(piece) for piece, _ in result.pieces())


def _plan_size(plan: Plan) -> int:
    texts = (plan.options.prompt, *plan.options.keywords, *plan.warnings)
    windows = sum(250 + 150 * len(window.spans) for window in plan.windows)
    return windows + 36 * (len(plan.first_prompt) + len(plan.prompt)) + 4 * sum(map(len, texts))
