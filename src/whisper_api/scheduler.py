"""Admit, pack, run, answer: windows of all requests through the engines.

A request takes a ``Ticket``: admission is decided at once, by the audio seconds that already
wait. Its windows queue fairly (``fairness``), run in batches on worker threads, and come back
through futures. A job whose future was cancelled is never started; an engine error fails its
own batch and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from whisper_api.batching import SHORT_SECONDS, OnBatch, Runner
from whisper_api.config import Settings
from whisper_api.engine_calls import Job, Languages
from whisper_api.engines.base import Decoded, DecodeParams, Engine
from whisper_api.errors import Overloaded, ShuttingDown
from whisper_api.fairness import LANES, Share
from whisper_api.logs import request_id_var
from whisper_api.tracing import OFF, Tracing
from whisper_api.types import Audio, Lane
from whisper_api.usage import owner_var

log = logging.getLogger(__name__)

R = TypeVar("R")
UNMEASURED_RTF = 0.2
"""Engine seconds per audio second that estimates start from."""
RESTART_SECONDS = 5.0
"""After which a caller may look whether a server that stops has come again."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """What waits and runs, for ``/v1/queue`` and the metrics."""

    requests: int
    queued_seconds: float
    max_queued_seconds: float
    running_batches: int
    real_time_factor: float  #: measured engine seconds per audio second, all replicas together
    eta_seconds: float  #: until the present queue is done
    by_lane: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one request stands."""

    request_id: str
    lane: Lane
    position: int  #: requests before it, those that run included
    queued_seconds: float  #: of its audio, still to be done
    eta_seconds: float  #: until it is done, by the measured speed


class Ticket:
    """One admitted request; close it (or leave its ``async with``) whatever happens."""

    def __init__(self, scheduler: Scheduler, lane: Lane, seconds: float) -> None:
        self.lane = lane
        self.seconds = seconds  #: audio seconds that still count as queued
        self.owner = owner_var.get()
        self.request_id = request_id_var.get()
        self._total = seconds
        self._scheduler = scheduler
        self._runner: Runner | None = None
        self._share: Share[Job[Any]] | None = None
        self._open: set[asyncio.Future[Any]] = set()
        self._closed = False
        self._error: Exception | None = None

    async def __aenter__(self) -> Ticket:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def bind(self, engine: Engine) -> None:
        """Send this request's windows to ``engine`` from now on."""
        self._runner = self._scheduler._runner(engine)
        self._share = self._runner.join(self.lane, self._total <= SHORT_SECONDS)
        self._share.left = self.seconds

    def resize(self, seconds: float) -> None:
        """Replace the estimate given at admission by the true audio seconds."""
        self._total = max(0.0, seconds)
        self._left(self._total)

    def settle(self, seconds: float) -> None:
        """Count ``seconds`` of audio as done."""
        self._left(max(0.0, self.seconds - seconds))

    def _left(self, seconds: float) -> None:
        self.seconds = seconds
        if self._share is not None:
            self._share.left = seconds

    async def decode(
        self,
        key: str,
        load: Callable[[], Audio],
        seconds: float,
        params: DecodeParams,
        order: int = 0,
    ) -> Decoded:
        """One window decoded; cancelling the caller withdraws it.

        ``order`` is the window's index: of one request's windows the earliest goes first.
        """
        job: Job[Decoded] = Job(key, load, seconds, params, self._future(), order)
        return await self._submit(job)

    async def detect(self, key: str, load: Callable[[], Audio], seconds: float) -> Languages:
        """Language probabilities of one window."""
        job: Job[Languages] = Job(key, load, seconds, None, self._future())
        return await self._submit(job)

    def fail(self, error: Exception) -> None:
        """Answer everything that still waits, and whatever comes, with ``error``."""
        self._error = error
        for future in list(self._open):
            if not future.done():
                future.set_exception(error)

    def close(self) -> None:
        """Withdraw what is left; idempotent."""
        if self._closed:
            return
        self._closed = True
        for future in list(self._open):
            future.cancel()
        if self._runner is not None and self._share is not None:
            self._runner.leave(self._share)
        self._scheduler._closed_ticket(self)

    def _future(self) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        return future

    async def _submit(self, job: Job[R]) -> R:
        if self._error is not None:
            job.done.cancel()
            raise self._error
        if self._closed or self._runner is None or self._share is None:
            job.done.cancel()
            raise RuntimeError("the ticket is closed or has no engine")
        self._runner.push(self._share, job, self._total <= SHORT_SECONDS)
        return await job.done


class Scheduler:
    """All requests, all engines of one process. Lives on one event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        tracing: Tracing = OFF,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self._tracing = tracing
        self.on_batch: OnBatch | None = None
        self._runners: dict[int, Runner] = {}
        self._tickets: dict[Ticket, None] = {}  # in order of admission
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    def admit(self, lane: Lane = Lane.INTERACTIVE, seconds: float = 0.0) -> Ticket:
        """Let a request of about ``seconds`` of audio in, or refuse it at once.

        Raises:
            Overloaded: too many requests or too much audio wait; carries ``retry_after``.
            ShuttingDown: the server drains.
        """
        if self._draining:
            raise ShuttingDown(retry_after=RESTART_SECONDS)
        queued = self.queued_seconds
        full = queued > 0 and queued + seconds > self.settings.max_queued_seconds
        if full or len(self._tickets) >= self.settings.max_concurrent_requests:
            raise Overloaded(
                f"The queue is full: {queued:.0f} seconds of audio in {len(self._tickets)} "
                f"requests wait (limits: {self.settings.max_queued_seconds:.0f} seconds, "
                f"{self.settings.max_concurrent_requests} requests).",
                retry_after=self._until_room(queued + seconds, full),
            )
        ticket = Ticket(self, lane, max(0.0, seconds))
        self._tickets[ticket] = None
        self._idle.clear()
        return ticket

    def _until_room(self, wanted: float, full: bool) -> float:
        """Seconds until a request that is refused now would be let in."""
        if full:
            seconds = (wanted - self.settings.max_queued_seconds) * self.real_time_factor
        else:  # until the first of them is done
            seconds = self._first_eta()
        return min(120.0, max(1.0, math.ceil(seconds)))

    def _first_eta(self) -> float:
        """Seconds until the first of the present requests is done: in each lane the one with the
        least audio, until whose end all others of its lane get as much."""
        found, above = [], 0.0
        for mine in _by_lane(tuple(self._tickets)).values():
            seconds = [ticket.seconds for ticket in mine]
            if seconds:
                found.append(above + min(seconds) * len(seconds))
            above += sum(seconds)
        return min(found) * self.real_time_factor if found else 1.0

    @property
    def draining(self) -> bool:
        """Whether nothing new is let in."""
        return self._draining

    @property
    def queued_seconds(self) -> float:
        """Audio seconds admitted and not yet done."""
        return sum(ticket.seconds for ticket in tuple(self._tickets))

    def eta(self, lane: Lane | None = None) -> float:
        """Estimated seconds until what waits now (in ``lane`` and above) is done."""
        ahead = LANES if lane is None else LANES[: LANES.index(lane) + 1]
        waiting = sum(ticket.seconds for ticket in tuple(self._tickets) if ticket.lane in ahead)
        return waiting * self.real_time_factor

    def places(self) -> list[tuple[str, Place]]:
        """Every request with its owner, in order of admission."""
        tickets, speed = tuple(self._tickets), self.real_time_factor
        found: dict[Ticket, Place] = {}
        above = 0.0
        for mine in _by_lane(tickets).values():
            before = len(found)
            seconds = [ticket.seconds for ticket in mine]
            for index, end in enumerate(_ends(seconds)):
                ticket = mine[index]
                found[ticket] = Place(
                    request_id=ticket.request_id,
                    lane=ticket.lane,
                    position=before + index,
                    queued_seconds=seconds[index],
                    eta_seconds=(above + end) * speed,
                )
            above += sum(seconds)
        return [(ticket.owner, found[ticket]) for ticket in tickets]

    def outlook(self, lane: Lane, seconds: float) -> tuple[int, float]:
        """For a request that would come now: how many are before it, and seconds until its end."""
        by_lane = _by_lane(tuple(self._tickets))
        above = [by_lane[other] for other in LANES[: LANES.index(lane)]]
        ahead = sum(ticket.seconds for mine in above for ticket in mine)
        beside = sum(min(ticket.seconds, seconds) for ticket in by_lane[lane])
        before = sum(map(len, above)) + len(by_lane[lane])
        return before, (ahead + beside + seconds) * self.real_time_factor

    @property
    def real_time_factor(self) -> float:
        """Measured engine seconds per audio second with all replicas busy."""
        measured = [r.rtf for r in tuple(self._runners.values()) if r.rtf is not None]
        return max(measured) if measured else UNMEASURED_RTF

    def state(self) -> QueueState:
        """The present, for people and metrics; safe to call from any thread."""
        tickets = tuple(self._tickets)
        lanes = {lane.value: sum(t.seconds for t in tickets if t.lane is lane) for lane in Lane}
        return QueueState(
            requests=len(self._tickets),
            queued_seconds=self.queued_seconds,
            max_queued_seconds=self.settings.max_queued_seconds,
            running_batches=sum(r.running + r.guests for r in tuple(self._runners.values())),
            real_time_factor=self.real_time_factor,
            eta_seconds=self.eta(),
            by_lane=lanes,
        )

    def stop_admitting(self) -> None:
        """Let nothing new in from now on; whoever has least audio left is served first."""
        self._draining = True
        for runner in self._runners.values():
            runner.hasten()

    async def drain(self, seconds: float) -> bool:
        """Let nothing new in and wait for what is there; answers whether all of it was done."""
        self.stop_admitting()
        if self._tickets and seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)
        return not self._tickets

    def refuse_rest(self) -> int:
        """Answer everything that still waits with an error; how many requests that are."""
        tickets = tuple(self._tickets)
        for ticket in tickets:
            ticket.fail(ShuttingDown(retry_after=RESTART_SECONDS))
        return len(tickets)

    async def close(self, drain: float = 0.0) -> None:
        """Stop admitting, wait up to ``drain`` seconds, then answer all others with an error."""
        if not await self.drain(drain):
            log.warning("the server stops: %d requests are ended", self.refuse_rest())
        await asyncio.gather(*(runner.close() for runner in self._runners.values()))
        self._runners.clear()

    def _runner(self, engine: Engine) -> Runner:
        runner = self._runners.get(id(engine))
        if runner is None:
            runner = Runner(engine, self.settings, self.clock, self._note_batch, self._tracing)
            self._runners[id(engine)] = runner
            if self._draining:
                runner.hasten()
        return runner

    async def forget(self, engine: Engine) -> None:
        """Drop the threads of an engine that is about to be closed."""
        runner = self._runners.pop(id(engine), None)
        if runner is not None:
            await runner.close()

    def _closed_ticket(self, ticket: Ticket) -> None:
        self._tickets.pop(ticket, None)
        if not self._tickets:
            self._idle.set()

    def _note_batch(self, size: int, audio: float, wall: float, waited: float) -> None:
        if self.on_batch is not None:
            self.on_batch(size, audio, wall, waited)


def _by_lane(tickets: Iterable[Ticket]) -> dict[Lane, list[Ticket]]:
    """The same, highest lane first, in their order."""
    found: dict[Lane, list[Ticket]] = {lane: [] for lane in LANES}
    for ticket in tickets:
        found[ticket.lane].append(ticket)
    return found


def _ends(seconds: Sequence[float]) -> list[float]:
    """Audio seconds done until each request of one lane is; all get as much at the same time."""
    ends, done = [0.0] * len(seconds), 0.0
    for rank, index in enumerate(sorted(range(len(seconds)), key=seconds.__getitem__)):
        ends[index] = done + seconds[index] * (len(seconds) - rank)
        done += seconds[index]
    return ends
