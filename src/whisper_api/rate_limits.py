"""How much each caller may ask for: transcriptions in a minute, audio in a day.

Counts live in this process or in Redis (``rate_limit_storage``). Where Redis fails, this
process counts for itself: limits must not become an outage.
"""

from __future__ import annotations

import logging
import math
import time

from limits import RateLimitItemPerDay, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter
from limits.errors import ConfigurationError, StorageError
from limits.storage import storage_from_string

from whisper_api.config import Settings
from whisper_api.errors import RateLimited, SettingsError, Standing
from whisper_api.keys import Allowance

log = logging.getLogger(__name__)


class _Counters:
    """One storage and the two ways of counting in it."""

    def __init__(self, storage: Storage) -> None:
        self.moving = MovingWindowRateLimiter(storage)
        self.fixed = FixedWindowRateLimiter(storage)

    async def hit(self, requests: RateLimitItemPerMinute, who: str) -> tuple[bool, Standing]:
        allowed = await self.moving.hit(requests, "requests", who)
        stats = await self.moving.get_window_stats(requests, "requests", who)
        return allowed, _standing("requests", requests.amount, stats)

    async def spend(self, day: RateLimitItemPerDay, who: str, cost: int) -> tuple[bool, Standing]:
        # Looked at first: a refused hit would count as well.
        allowed = await self.fixed.test(day, "audio", who, cost=max(1, cost))
        if allowed and cost:
            await self.fixed.hit(day, "audio", who, cost=cost)
        stats = await self.fixed.get_window_stats(day, "audio", who)
        return allowed, _standing("audio-seconds", day.amount, stats)

    async def give_back(self, day: RateLimitItemPerDay, who: str, cost: int) -> None:
        # ``limits`` has no word for it; its storages add whatever they are given.
        await self.fixed.storage.incr(day.key_for("audio", who), day.get_expiry(), amount=-cost)


class RateLimits:
    """The counts of one process, or of all that share its storage."""

    def __init__(self, settings: Settings) -> None:
        """Connects at the first use.

        Raises:
            SettingsError: the storage's library is not installed.
        """
        self._own = _Counters(MemoryStorage())
        self._shared = _shared(settings.rate_limit_storage.get_secret_value())
        self._failing = False

    async def take_request(self, who: str, allowance: Allowance) -> Standing | None:
        """Count one request of ``who``; None where requests are not limited.

        Raises:
            RateLimited: too many within a minute.
        """
        limit = allowance.requests_per_minute
        if limit is None:
            return None
        item = RateLimitItemPerMinute(limit)
        try:
            allowed, standing = await self._counters().hit(item, who)
            self._failing = False
        except StorageError as error:
            allowed, standing = await self._alone(error).hit(item, who)
        if not allowed:
            raise RateLimited(
                f"Rate limit reached: {limit} requests per minute. Please try again in "
                f"{standing.reset:.0f}s.",
                retry_after=standing.reset,
                standing=standing,
            )
        return standing

    async def spend_audio(
        self, who: str, allowance: Allowance, seconds: float = 0.0
    ) -> Standing | None:
        """Count ``seconds`` of audio of ``who``; 0 only asks whether any is left.

        Raises:
            RateLimited: not so much is left today.
        """
        minutes = allowance.audio_minutes_per_day
        if minutes is None:
            return None
        item, cost = _day(minutes), math.ceil(seconds)
        try:
            allowed, standing = await self._counters().spend(item, who, cost)
        except StorageError as error:
            allowed, standing = await self._alone(error).spend(item, who, cost)
        if not allowed:
            asked = f" and this audio has {cost} seconds" if cost else ""
            raise RateLimited(
                f"Rate limit reached: {minutes:g} minutes of audio per day; {standing.remaining} "
                f"seconds are left{asked}. The count starts again in {standing.reset:.0f}s.",
                retry_after=standing.reset,
                standing=standing,
            )
        return standing

    async def give_audio_back(self, who: str, allowance: Allowance, seconds: float) -> None:
        """Take back what ``spend_audio`` counted for work that was then refused."""
        minutes, cost = allowance.audio_minutes_per_day, math.ceil(seconds)
        if minutes is None or not cost:
            return
        try:
            await self._counters().give_back(_day(minutes), who, cost)
        except StorageError as error:
            await self._alone(error).give_back(_day(minutes), who, cost)

    def _counters(self) -> _Counters:
        return self._shared or self._own

    def _alone(self, error: StorageError) -> _Counters:
        if not self._failing:
            self._failing = True
            log.error("rate_limit_storage failed, counting alone: %s", error.storage_error)
        return self._own


def _day(minutes: float) -> RateLimitItemPerDay:
    return RateLimitItemPerDay(max(1, math.ceil(minutes * 60)))


def _shared(address: str) -> _Counters | None:
    if address == "memory":
        return None
    options = {"implementation": "redispy", "key_prefix": "whisper-api", "wrap_exceptions": True}
    try:
        storage = storage_from_string(f"async+{address}", **options)  # type: ignore[arg-type]
    except ConfigurationError as error:
        raise SettingsError(
            "rate_limit_storage: Redis needs the extra: pip install 'whisper-api-server[redis]'"
        ) from error
    assert isinstance(storage, Storage)
    return _Counters(storage)


def _standing(unit: str, limit: int, stats: tuple[float, int]) -> Standing:
    reset, remaining = stats
    return Standing(unit, limit, max(0, remaining), max(0.0, reset - time.time()))
