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
from collections.abc import Callable, Coroutine, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from whisper_api.config import Settings
from whisper_api.engines.base import Decoded, DecodeParams, Engine, WindowItem
from whisper_api.errors import EngineError, EngineOutOfMemory, Overloaded, ShuttingDown
from whisper_api.fairness import FairQueue, Share
from whisper_api.types import Audio, Lane

log = logging.getLogger(__name__)

R = TypeVar("R")
Languages = dict[str, float]
Outcome = Decoded | Languages | Exception
UNMEASURED_RTF = 0.2
"""Engine seconds per audio second that estimates start from."""


@dataclass(eq=False, slots=True)
class Job(Generic[R]):
    """One window to detect or decode; ``params`` is None for detection."""

    key: str
    load: Callable[[], Audio]
    seconds: float
    params: DecodeParams | None
    done: asyncio.Future[R]
    order: int = 0  #: index of the window in its request

    @property
    def batch_key(self) -> Hashable:
        """Equal for jobs that one engine call may hold."""
        return None if self.params is None else self.params.batch_key


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


class Ticket:
    """One admitted request; close it (or leave its ``async with``) whatever happens."""

    def __init__(self, scheduler: Scheduler, lane: Lane, seconds: float) -> None:
        self.lane = lane
        self.seconds = seconds  #: audio seconds that still count as queued
        self._scheduler = scheduler
        self._runner: _Runner | None = None
        self._share: Share[Job[Any]] | None = None
        self._open: set[asyncio.Future[Any]] = set()
        self._closed = False

    async def __aenter__(self) -> Ticket:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def bind(self, engine: Engine) -> None:
        """Send this request's windows to ``engine`` from now on."""
        self._runner = self._scheduler._runner(engine)
        self._share = self._runner.join(self.lane)

    def resize(self, seconds: float) -> None:
        """Replace the estimate given at admission by the true audio seconds."""
        self.seconds = max(0.0, seconds)

    def settle(self, seconds: float) -> None:
        """Count ``seconds`` of audio as done."""
        self.seconds = max(0.0, self.seconds - seconds)

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
        """Answer everything that still waits with ``error``."""
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
        if self._closed or self._runner is None or self._share is None:
            job.done.cancel()
            raise RuntimeError("the ticket is closed or has no engine")
        self._runner.push(self._share, job)
        return await job.done


class Scheduler:
    """All requests, all engines of one process. Lives on one event loop."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.clock = clock
        self.on_batch: Callable[[int, float, float], None] | None = None
        """Called after each batch with its size, audio seconds and wall seconds."""
        self._runners: dict[int, _Runner] = {}
        self._tickets: set[Ticket] = set()
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
            raise ShuttingDown(retry_after=5)
        queued = self.queued_seconds
        full = queued > 0 and queued + seconds > self.settings.max_queued_seconds
        if full or len(self._tickets) >= self.settings.max_concurrent_requests:
            raise Overloaded(
                f"The queue is full: {queued:.0f} seconds of audio in {len(self._tickets)} "
                f"requests wait (limits: {self.settings.max_queued_seconds:.0f} seconds, "
                f"{self.settings.max_concurrent_requests} requests).",
                retry_after=min(120.0, max(1.0, math.ceil(self.eta()))),
            )
        ticket = Ticket(self, lane, max(0.0, seconds))
        self._tickets.add(ticket)
        self._idle.clear()
        return ticket

    @property
    def queued_seconds(self) -> float:
        """Audio seconds admitted and not yet done."""
        return sum(ticket.seconds for ticket in tuple(self._tickets))

    def eta(self, lane: Lane | None = None) -> float:
        """Estimated seconds until what waits now (in ``lane`` and above) is done."""
        lanes = list(Lane)
        ahead = lanes if lane is None else lanes[: lanes.index(lane) + 1]
        waiting = sum(ticket.seconds for ticket in tuple(self._tickets) if ticket.lane in ahead)
        return waiting * self.real_time_factor

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
            running_batches=sum(r.running for r in tuple(self._runners.values())),
            real_time_factor=self.real_time_factor,
            eta_seconds=self.eta(),
            by_lane=lanes,
        )

    async def close(self, drain: float = 0.0) -> None:
        """Stop admitting, wait up to ``drain`` seconds, then answer all others with an error."""
        self._draining = True
        if self._tickets and drain > 0:
            try:
                await asyncio.wait_for(self._idle.wait(), drain)
            except TimeoutError:
                log.warning("drain time is over: %d requests are ended", len(self._tickets))
        for ticket in list(self._tickets):
            ticket.fail(ShuttingDown(retry_after=5))
        await asyncio.gather(*(runner.close() for runner in self._runners.values()))
        self._runners.clear()

    def _runner(self, engine: Engine) -> _Runner:
        runner = self._runners.get(id(engine))
        if runner is None:
            runner = self._runners[id(engine)] = _Runner(self, engine)
        return runner

    async def forget(self, engine: Engine) -> None:
        """Drop the threads of an engine that is about to be closed."""
        runner = self._runners.pop(id(engine), None)
        if runner is not None:
            await runner.close()

    def _closed_ticket(self, ticket: Ticket) -> None:
        self._tickets.discard(ticket)
        if not self._tickets:
            self._idle.set()


class _Runner:
    """One engine's queue and threads."""

    def __init__(self, scheduler: Scheduler, engine: Engine) -> None:
        self.engine = engine
        self.running = 0
        self.rtf: float | None = None
        self._scheduler = scheduler
        self._queue: FairQueue[Job[Any]] = FairQueue(lambda job: job.done.done())
        self._replicas = max(1, engine.info.replicas)
        self._threads = ThreadPoolExecutor(self._replicas, thread_name_prefix="engine")
        self._item_seconds: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._pumping = False

    def join(self, lane: Lane) -> Share[Job[Any]]:
        return self._queue.join(lane)

    def leave(self, share: Share[Job[Any]]) -> None:
        self._queue.leave(share)

    def push(self, share: Share[Job[Any]], job: Job[Any]) -> None:
        self._queue.push(share, job, job.seconds, job.batch_key, job.order)
        self._soon()

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _soon(self) -> None:
        # One turn of the loop later, so that windows submitted together share a batch.
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        while self.running < self._replicas:
            batch = self._queue.take(self._most())
            if not batch:
                return
            self.running += 1
            self._spawn(self._run(batch))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _most(self) -> int:
        """Batch size: a batch cannot be stopped, so measured time bounds it."""
        settings = self._scheduler.settings
        if self._item_seconds is None:
            return settings.batch_size if not self._queue.contended() else 1
        fitting = int(settings.max_batch_seconds / max(self._item_seconds, 1e-6))
        return max(1, min(settings.batch_size, fitting))

    async def _run(self, batch: list[Job[Any]]) -> None:
        clock = self._scheduler.clock
        started = clock()
        try:
            outcomes = await self._attempt(batch)
        except Exception as error:
            outcomes = [error] * len(batch)
        finally:
            self.running -= 1
        self._measure(batch, clock() - started)
        for job, outcome in zip(batch, outcomes, strict=True):
            if job.done.done():
                continue
            if isinstance(outcome, Exception):
                job.done.set_exception(outcome)
            else:
                job.done.set_result(outcome)
        self._soon()

    async def _attempt(self, batch: Sequence[Job[Any]], halved: bool = False) -> list[Outcome]:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, _compute, self.engine, batch)
        except EngineOutOfMemory as error:
            if halved or len(batch) == 1:
                return [error] * len(batch)
            log.warning("engine out of memory with %d windows; halving the batch", len(batch))
            half = len(batch) // 2
            first = await self._attempt(batch[:half], halved=True)
            return first + await self._attempt(batch[half:], halved=True)
        except EngineError as error:
            log.error("engine failed on a batch of %d windows: %s", len(batch), error)
            return [error] * len(batch)

    def _measure(self, batch: Sequence[Job[Any]], wall: float) -> None:
        audio = sum(job.seconds for job in batch)
        if batch[0].params is not None and audio > 0:
            self.rtf = _smooth(self.rtf, wall / audio / self._replicas)
            self._item_seconds = _smooth(self._item_seconds, wall / len(batch))
        if self._scheduler.on_batch is not None:
            self._scheduler.on_batch(len(batch), audio, wall)


def _compute(engine: Engine, batch: Sequence[Job[Any]]) -> list[Outcome]:
    """Load the audio of a batch and run the engine on it; in a worker thread.

    A window whose audio cannot be read fails alone.
    """
    outcomes: list[Outcome] = [EngineError()] * len(batch)
    loaded: list[tuple[int, Job[Any], Audio]] = []
    for position, job in enumerate(batch):
        if job.done.done():
            continue
        try:
            loaded.append((position, job, job.load()))
        except OSError as error:
            outcomes[position] = EngineError(f"The audio could not be read: {error.strerror}")
    if not loaded:
        return outcomes
    try:
        results = _call(engine, loaded)
    except EngineError:
        raise
    except Exception as error:
        log.exception("engine raised an unexpected error")
        raise EngineError("The recognition engine failed unexpectedly.") from error
    for (position, _, _), result in zip(loaded, results, strict=True):
        outcomes[position] = result
    return outcomes


def _call(
    engine: Engine, loaded: Sequence[tuple[int, Job[Any], Audio]]
) -> Sequence[Decoded | Languages]:
    if loaded[0][1].params is None:
        return engine.detect([(job.key, audio) for _, job, audio in loaded])
    items = [
        WindowItem(job.key, audio, job.params) for _, job, audio in loaded if job.params is not None
    ]
    return engine.decode(items)


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else 0.7 * old + 0.3 * new
