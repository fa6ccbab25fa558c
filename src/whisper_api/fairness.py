"""Whose window comes next: lanes, and inside a lane self-clocked fair queueing.

Higher lanes go first, but interactive requests leave tasks a small part of the audio seconds, so
that no task waits for ever. Inside a lane each request's share carries a virtual time that grows
by the audio seconds served to it. The window that would finish first in virtual time goes first
(of short requests the one that would start first), and a newcomer starts at the finish of what was
served last, so that a short clip passes a long file and a stream of short clips never starves it
(Golestani 1994, self-clocked fair queueing).
Where little time is left, because the server stops, whoever has least audio left goes first
instead: so most requests are finished.
Pure data: no clock, no event loop, no engine.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace
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
    left: float = 0.0  #: seconds of its request's audio that are not done yet
    waiting: list[Waiting[J]] = field(default_factory=list)


_Place = tuple[tuple[float, float, bool], int, Waiting[J]]
"""Rank, number and next job of a share."""


class FairQueue(Generic[J]):
    """Work of many requests, taken in batches of one key.

    ``dead`` tells that nobody waits for a job any more; such jobs vanish unseen.
    """

    def __init__(self, dead: Callable[[J], bool], task_share: float = 0.0) -> None:
        """``task_share`` is tasks' part (0..1) of the audio seconds that they share with
        interactive requests; 0 serves them only when nobody else waits."""
        self.shortest_first = False  #: least audio left goes first, instead of fair order
        self._dead = dead
        self._wage = task_share / (1 - task_share)
        self._earned = 0.0  #: audio seconds that waiting tasks have a claim to
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
        first = next((lane for lane in LANES if self._waits(lane)), None)
        if first is Lane.INTERACTIVE and self._waits(Lane.TASK) and self._claim() > 0:
            return Lane.TASK
        return first

    def next_is_long(self) -> bool:
        """Whether the next batch begins with a window of a request that is not short."""
        lane = self.next_lane()
        return lane is not None and not self._head(self._live(lane)).short

    def take(self, most: int, most_long: int | None = None) -> list[J]:
        """The next batch: at most ``most`` jobs of one lane that share one batch key.

        Jobs of requests that are not short are added only while it has less than ``most_long``.
        """
        lane = self.next_lane()
        if lane is None:
            self._earned = 0.0
            return []
        return self._take(lane, most, most if most_long is None else most_long)

    def short_lane(self) -> Lane | None:
        """The highest lane that waits, if a short request does in it: no claim is one to pass."""
        lane = next((lane for lane in LANES if self._waits(lane)), None)
        waits = lane is not None and any(share.short for share in self._live(lane))
        return lane if waits else None

    def take_short(self, most: int) -> list[J]:
        """A batch of short requests alone of ``short_lane``, however many long ones are before
        them; it counts neither in the lane's order nor among the lanes."""
        lane = self.short_lane()
        batch = [] if lane is None else self._fill(lane, max(1, most), 0, math.inf, passes=True)
        return [entry.job for entry in batch]

    def _take(self, lane: Lane, most: int, most_long: int) -> list[J]:
        claim = self._claim() if lane is Lane.TASK and self._waits(Lane.INTERACTIVE) else math.inf
        tasks_wait = self._waits(Lane.TASK)
        batch = self._fill(lane, max(1, most), most_long, claim)
        seconds = sum(entry.seconds for entry in batch)
        if lane is Lane.TASK:
            self._earned = max(0.0, self._earned - seconds)
        elif lane is Lane.INTERACTIVE and tasks_wait:
            self._earned += self._wage * seconds
        if not tasks_wait:
            self._earned = 0.0
        return [entry.job for entry in batch]

    def _claim(self) -> float:
        """Audio seconds that waiting tasks may take before interactive requests; 0 for none."""
        if self.shortest_first or not self._earned:
            return 0.0
        first = self._head(self._live(Lane.TASK)).waiting[0].seconds
        return self._earned if self._earned >= first else 0.0

    def waiting(self, lane: Lane) -> int:
        """How much work of ``lane`` waits."""
        return sum(len(share.waiting) for share in self._live(lane))

    def _head(self, live: list[Share[J]]) -> Share[J]:
        return min(live, key=lambda share: self._rank(share, share.waiting[0]))

    def _fill(
        self, lane: Lane, most: int, most_long: int, claim: float, passes: bool = False
    ) -> list[Waiting[J]]:
        """A batch of ``lane``, which is live; past its first job it keeps within ``claim``.

        ``passes``: of short requests alone, beside the lane's order.
        """
        live = [share for share in self._live(lane) if share.short or not passes]
        batch_key = self._head(live).waiting[0].batch_key
        # Each share is looked at once and then only after it gave a job: hundreds may wait.
        able = [
            place for index in range(len(live)) if (place := self._place(live, index, batch_key))
        ]
        heapify(able)
        batch: list[Waiting[J]] = []
        while able and len(batch) < most:
            _, index, entry = able[0]
            share = live[index]
            if (batch and entry.seconds > claim) or not (share.short or len(batch) < most_long):
                heappop(able)  # neither changes for the better
                continue
            share.waiting.remove(entry)
            share.virtual += entry.seconds
            if not passes:
                self._present[lane] = max(self._present[lane], share.virtual)
            claim -= entry.seconds
            batch.append(entry)
            if (place := self._place(live, index, batch_key)) is not None:
                heapreplace(able, place)
            else:
                heappop(able)
        return batch

    def _place(self, live: list[Share[J]], index: int, key: Hashable) -> _Place[J] | None:
        """Where a share's next job of this key stands; equal ones go in the order of coming."""
        entry = self._match(live[index], key)
        return None if entry is None else (self._rank(live[index], entry), index, entry)

    def _rank(self, share: Share[J], entry: Waiting[J]) -> tuple[float, float, bool]:
        """Which of two shares' jobs goes first: the lower one.

        Short requests count from the start of a job: one that comes now is next, however many
        long ones have a window that would be finished sooner.
        """
        finish = share.virtual + (0.0 if share.short else entry.seconds)
        return share.left if self.shortest_first else 0.0, finish, not share.short

    def _match(self, share: Share[J], key: Hashable) -> Waiting[J] | None:
        for entry in share.waiting:
            if entry.batch_key == key and not self._dead(entry.job):
                return entry
        return None

    def _live(self, lane: Lane) -> list[Share[J]]:
        return [share for share in self._shares[lane] if self._has_work(share)]

    def _waits(self, lane: Lane) -> bool:
        return any(self._has_work(share) for share in self._shares[lane])

    def _has_work(self, share: Share[J]) -> bool:
        while share.waiting and self._dead(share.waiting[0].job):
            share.waiting.pop(0)
        return bool(share.waiting)


def _order(entry: Waiting[J]) -> int:
    return entry.order
