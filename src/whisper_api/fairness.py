"""Whose window comes next: strict lanes, and inside a lane self-clocked fair queueing.

Each request's share carries a virtual time that grows by the audio seconds served to it. The
window that would finish first in virtual time goes first, and a newcomer starts at the finish
of what was served last, so that a short clip passes a long file and a stream of short clips
never starves it (Golestani 1994, self-clocked fair queueing).
Pure data: no clock, no event loop, no engine.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from whisper_api.types import Lane

J = TypeVar("J")
LANES = (Lane.REALTIME, Lane.INTERACTIVE, Lane.TASK)


@dataclass(eq=False, slots=True)
class Waiting(Generic[J]):
    """One piece of work in the queue."""

    job: J
    seconds: float
    batch_key: Hashable
    order: int  #: place in its request; a second attempt goes before later windows


@dataclass(eq=False, slots=True)
class Share(Generic[J]):
    """One request's part of the queue."""

    lane: Lane
    virtual: float = 0.0
    short: bool = True  #: whether its request has little audio
    waiting: list[Waiting[J]] = field(default_factory=list)


class FairQueue(Generic[J]):
    """Work of many requests, taken in batches of one key.

    ``dead`` tells that nobody waits for a job any more; such jobs vanish unseen.
    """

    def __init__(self, dead: Callable[[J], bool]) -> None:
        self._dead = dead
        self._shares: dict[Lane, list[Share[J]]] = {lane: [] for lane in LANES}
        self._present: dict[Lane, float] = dict.fromkeys(LANES, 0.0)

    def join(self, lane: Lane) -> Share[J]:
        """A new request's share."""
        share: Share[J] = Share(lane, self._present[lane])
        self._shares[lane].append(share)
        return share

    def leave(self, share: Share[J]) -> list[J]:
        """Take a share out with whatever still waits in it."""
        if share in self._shares[share.lane]:
            self._shares[share.lane].remove(share)
        left = [entry.job for entry in share.waiting]
        share.waiting.clear()
        return left

    def push(
        self, share: Share[J], job: J, seconds: float, batch_key: Hashable, order: int = 0
    ) -> None:
        """Add work to a share, behind all of the same or a lower ``order``.

        An idle share catches up with the lane's present first.
        """
        if not share.waiting:
            share.virtual = max(share.virtual, self._present[share.lane])
        insort(share.waiting, Waiting(job, seconds, batch_key, order), key=_order)

    def next_lane(self) -> Lane | None:
        """The lane that the next batch comes from; None where nothing waits."""
        return next((lane for lane in LANES if self._live(lane)), None)

    def take(self, most: int, most_long: int | None = None) -> list[J]:
        """The next batch: at most ``most`` jobs of one lane that share one batch key.

        Jobs of requests that are not short are added only while it has less than ``most_long``.
        """
        for lane in LANES:
            live = self._live(lane)
            if live:
                long = most if most_long is None else most_long
                return self._fill(lane, live, max(1, most), max(1, long))
        return []

    def _fill(self, lane: Lane, live: list[Share[J]], most: int, most_long: int) -> list[J]:
        head = min(live, key=lambda share: share.virtual + share.waiting[0].seconds)
        batch_key = head.waiting[0].batch_key
        batch: list[J] = []
        while len(batch) < most:
            able = [
                (share.virtual + entry.seconds, index, share, entry)
                for index, share in enumerate(live)
                if (share.short or len(batch) < most_long)
                and (entry := self._match(share, batch_key)) is not None
            ]
            if not able:
                break
            finish, _, share, entry = min(able, key=lambda item: item[:2])
            share.waiting.remove(entry)
            share.virtual = finish
            self._present[lane] = max(self._present[lane], finish)
            batch.append(entry.job)
        return batch

    def _match(self, share: Share[J], key: Hashable) -> Waiting[J] | None:
        for entry in share.waiting:
            if entry.batch_key == key and not self._dead(entry.job):
                return entry
        return None

    def _live(self, lane: Lane) -> list[Share[J]]:
        live = []
        for share in self._shares[lane]:
            while share.waiting and self._dead(share.waiting[0].job):
                share.waiting.pop(0)
            if share.waiting:
                live.append(share)
        return live


def _order(entry: Waiting[J]) -> int:
    return entry.order
