"""One engine's queue and threads: pack, run, measure, answer.

A running batch cannot be stopped. Engines that work in steps let short requests pass a batch of
long ones (``passing``), and some have a call to spare for them. Of others, how long a batch may run
is decided when it is packed: as large as the engine takes while nobody hurries, and by measured
time as long as short requests or higher lanes come.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from whisper_api.calm import CALM_SECONDS, Calm
from whisper_api.config import Settings
from whisper_api.engine_calls import Job, Outcome, compute
from whisper_api.engines.base import Engine, batch_size_of
from whisper_api.errors import EngineError, EngineOutOfMemory
from whisper_api.fairness import FairQueue, Share
from whisper_api.fitting import Fitting
from whisper_api.passing import PASSING_WINDOWS, Host, Passing, is_over
from whisper_api.reserve import Reserve
from whisper_api.tracing import OFF, Tracing, Values
from whisper_api.types import Lane

log = logging.getLogger(__name__)

OnBatch = Callable[[int, float, float, float], None]
"""Called after each batch with its size, audio seconds, wall seconds and its longest wait."""

SHORT_SECONDS = 60.0
"""Requests with no more audio than this are short: their callers wait for them."""
IDLE_SECONDS, IDLE_PART = 0.1, 0.5
"""How long a replica idles at most between two batches of long requests while short ones are about
to have work for it, and in parts of what such a batch may take then."""
CLOSE_SECONDS = 3.0
"""How long closing waits for a batch that runs."""


class Runner:
    """One engine's queue and threads. Lives on one event loop."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        clock: Callable[[], float],
        on_batch: OnBatch,
        tracing: Tracing = OFF,
    ) -> None:
        """``on_batch`` is told about each batch."""
        self.engine = engine
        self.running = 0  #: batches that have a replica for themselves
        self.guests = 0  #: those that pass one
        self.rtf: float | None = None  #: engine seconds for a second of audio
        self._settings = settings
        self._clock = clock
        self._tracing = tracing
        self._on_batch = on_batch
        self._queue: FairQueue[Job[Any]] = FairQueue(
            lambda job: job.done.done(), settings.task_share
        )
        self._replicas = max(1, engine.info.replicas)
        self._threads = ThreadPoolExecutor(
            self._replicas + engine.info.spare, thread_name_prefix="engine"
        )
        self._item_seconds: float | None = None
        self._long_seconds: float | None = None  # the same, of batches of long requests
        self._fitting = Fitting(batch_size_of(engine.info, settings))
        self._begun: dict[int, tuple[float, int]] = {}  # running batches: since when, windows
        self._calm = Calm()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pumping = False
        self._reserve = Reserve(min(IDLE_SECONDS, IDLE_PART * settings.max_batch_seconds))
        self._waking: asyncio.TimerHandle | None = None
        self._long: set[Share[Job[Any]]] = set()
        self._passing = Passing(self._fetch, self._run_guest, inline=not engine.info.spare)
        self._hosts: list[Lane] = []
        self._again: list[list[Job[Any]]] = []  # did not fit beside the batch they passed
        self._alone_until = float("-inf")
        self._closed = False

    def join(self, lane: Lane, short: bool = False) -> Share[Job[Any]]:
        """A new request's part of the queue; ``short``: it has little audio."""
        share = self._queue.join(lane)
        if short:
            self._reserve.join(share, _now())
        return share

    def leave(self, share: Share[Job[Any]]) -> None:
        """Take a request's part out, with what waits in it."""
        self._calm.leave(share)
        self._reserve.leave(share)
        self._long.discard(share)
        self._queue.leave(share)
        if self._waking is not None:
            self._soon()

    def push(self, share: Share[Job[Any]], job: Job[Any], short: bool) -> None:
        """Queue one window; ``short``: its request has little audio."""
        share.short = short
        job.queued_at = self._clock()
        job.trace = self._tracing.here()
        self._calm.push(share, job.queued_at)
        if short:
            self._reserve.push(share)
            job.done.add_done_callback(lambda _: self._reserve.done(share, _now()))
        else:
            self._long.add(share)
            self._reserve.leave(share)  # its length may not have been known when it joined
        # Detection is paid for with the window's decoding, which finds it encoded already.
        charged = 0.0 if job.params is None else job.seconds
        self._queue.push(share, job, charged, job.batch_key, job.order)
        self._soon()

    def hasten(self) -> None:
        """From now on serve whoever has least audio left, in short batches: the server stops."""
        self._queue.shortest_first = True

    async def close(self) -> None:
        """Run nothing more; a batch that runs is waited for a moment, then left to itself."""
        self._closed = True
        self._passing.lane = None
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=CLOSE_SECONDS)
        for task in tuple(self._tasks):
            task.cancel()
        if self._waking is not None:
            self._waking.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _soon(self) -> None:
        # One turn of the loop later, so that windows submitted together share a batch.
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        while self.running < self._replicas and (self._again or not self._idles()):
            lane = self._queue.next_lane() or Lane.TASK
            long = not self._again and bool(self._long) and self._queue.next_is_long()
            batch = self._again.pop() if self._again else self._next()
            if not batch:
                break
            self.running += 1
            self._hosts += [lane] * long
            self._reserve.begin(_now(), long)
            self._begun[id(batch)] = (self._clock(), len(batch))
            self._spawn(self._run(batch, long, lane))
        self._passing.lane = self._passing_lane()
        if self.engine.info.spare and not self.guests and (batch := self._take_guests()):
            self._passing.begin_beside()
            self._spawn(self._run_beside(batch))

    def _next(self) -> list[Job[Any]]:
        return self._queue.take(min(self._most(), self._even_part()), self._most_long())

    # --- short requests that pass a batch of long ones ------------------------------------------

    def _passing_lane(self) -> Lane | None:
        """The lane of short requests that wait while all replicas are busy, some with long ones."""
        busy = self.guests < len(self._hosts) and self.running >= self._replicas
        if not busy or self._again or self._closed or self._clock() < self._alone_until:
            return None
        if self._queue.shortest_first and self._queue.next_is_long():
            return None
        lane = self._queue.short_lane()
        return lane if lane and any(is_over(lane, host) for host in self._hosts) else None

    def _take_guests(self) -> list[Job[Any]]:
        self._passing.lane = self._passing_lane()
        if self._passing.lane is None:
            return []
        batch = self._queue.take_short(min(self._most(), PASSING_WINDOWS))
        self.guests += bool(batch)
        return batch

    def _fetch(self, asked: Future[Sequence[Any] | None], lane: Lane) -> None:
        """Answer a thread that lets others pass."""
        if not asked.set_running_or_notify_cancel():
            return
        batch: list[Job[Any]] = []
        try:
            self._passing.lane = self._passing_lane()
            batch = self._take_guests() if self._passing.over(lane) else []
            self._passing.lane = self._passing_lane()
        finally:  # the engine's thread waits for it
            asked.set_result(batch or None)

    def _run_guest(self, batch: Sequence[Job[Any]]) -> None:
        """In the thread of the batch that it passes."""
        started = self._clock()
        outcomes: Sequence[Outcome]
        try:
            outcomes = compute(self.engine, batch, Host(batch, None, Lane.REALTIME))
        except Exception as error:
            outcomes = [error] * len(batch)
        with suppress(RuntimeError):  # the loop is closed
            self._passing.loop.call_soon_threadsafe(self._guest_done, batch, outcomes, started)

    async def _run_beside(self, batch: list[Job[Any]]) -> None:
        """In the thread that the engine has to spare."""
        started = self._clock()
        outcomes: Sequence[Outcome]
        try:
            outcomes = await self._call(batch, Host(batch, None, Lane.REALTIME))
        except Exception as error:
            outcomes = [error] * len(batch)
        except asyncio.CancelledError:
            outcomes = [EngineError("The engine was closed.")] * len(batch)
        self._guest_done(batch, outcomes, started)

    def _guest_done(
        self, batch: Sequence[Job[Any]], outcomes: Sequence[Outcome], started: float
    ) -> None:
        self.guests -= 1
        self._passing.nobody.set()
        if any(isinstance(outcome, EngineOutOfMemory) for outcome in outcomes):
            self._alone_until = self._clock() + CALM_SECONDS
            self._again.append(list(batch))
        else:
            self._measure(batch, outcomes, self._clock() - started, started)
            self._answer(batch, outcomes)
        self._soon()

    # --------------------------------------------------------------------------------------------

    def _idles(self) -> bool:
        """Whether the last free replica waits for a short request's next window."""
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        lane = self._queue.next_lane() if self._long else None
        if lane is None or self.engine.info.lets_pass or not self._queue.next_is_long():
            self._reserve.stop(_now())
            return False
        if self._idle() > 1 or self._queue.shortest_first:
            return False
        if not (idle := self._reserve.idle(_now(), lane)):
            return False
        self._waking = asyncio.get_running_loop().call_later(idle, self._soon)
        return True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _most(self) -> int:
        """Windows in the next batch, by what memory takes."""
        return self._fitting.most

    def _even_part(self) -> int:
        """Windows in the next batch with which all replicas would end at the same time.

        One that took all that waits would leave the others idle; one that took too few would
        leave most of the work to batches that are small for nothing.
        """
        lane = self._queue.next_lane()
        windows, takers = float(self._queue.waiting(lane)) if lane else 0.0, self._idle()
        for left in sorted(self._windows_left()):
            if left * takers >= windows:
                break
            windows, takers = windows + left, takers + 1
        return max(1, math.ceil(windows / takers))

    def _idle(self) -> int:
        return self._replicas - self.running

    def _windows_left(self) -> list[float]:
        """What each running batch has still to do, by measured time."""
        now, each = self._clock(), self._item_seconds
        if not each:
            return [float(size) for _, size in self._begun.values()]
        return [max(0.0, size - (now - since) / each) for since, size in self._begun.values()]

    def _most_long(self) -> int:
        """Windows in the next batch before one of a long request may be added."""
        lane, lets_pass = self._queue.next_lane(), self.engine.info.lets_pass
        if lane is not None and lets_pass and self._long and not self._queue.next_is_long():
            return 0  # nobody passes a batch that began with short ones
        if lane is None or not self._hurried(lane):
            return self._most()
        if self._long_seconds is None:
            return 1
        return max(1, int(self._settings.max_batch_seconds / max(self._long_seconds, 1e-6)))

    def _hurried(self, lane: Lane) -> bool:
        """Whether somebody may soon wait for a batch of ``lane``'s long requests."""
        if self._queue.shortest_first:
            return True
        return self._calm.over(lane, self._clock(), self.engine.info.lets_pass)

    async def _run(self, batch: list[Job[Any]], long: bool, lane: Lane) -> None:
        started, host = self._clock(), Host(batch, self._passing if long else None, lane)
        try:
            outcomes = await self._attempt(batch, host)
        except Exception as error:
            outcomes = [error] * len(batch)
        except asyncio.CancelledError:
            outcomes = [EngineError("The engine was closed.")] * len(batch)
        finally:
            self.running -= 1
            if long:
                self._hosts.remove(lane)
            del self._begun[id(batch)]
        self._measure(batch, outcomes, self._clock() - started - host.lent, started, long)
        self._answer(batch, outcomes)
        self._soon()

    @staticmethod
    def _answer(batch: Sequence[Job[Any]], outcomes: Sequence[Outcome]) -> None:
        for job, outcome in zip(batch, outcomes, strict=True):
            if job.done.done():
                continue
            if isinstance(outcome, Exception):
                job.done.set_exception(outcome)
            else:
                job.done.set_result(outcome)

    async def _attempt(self, batch: Sequence[Job[Any]], host: Host) -> list[Outcome]:
        """Run a batch, in smaller pieces where memory does not take it."""
        outcomes: list[Outcome] = []
        while rest := batch[len(outcomes) :]:
            host.jobs = piece = rest[: self._fitting.most]
            try:
                outcomes += await self._call(piece, host)
            except EngineOutOfMemory as error:
                self._fitting.failed(len(piece))
                if len(piece) == 1:
                    outcomes.append(error)
                    continue
                log.warning(
                    "engine out of memory with %d windows; batches have %d from now on",
                    len(piece),
                    self._fitting.most,
                )
            except EngineError as error:
                outcomes += [error] * len(piece)
            else:
                if batch[0].params is not None:  # detection takes less
                    self._fitting.held(len(piece))
        return outcomes

    async def _call(self, piece: Sequence[Job[Any]], host: Host) -> list[Outcome]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, compute, self.engine, piece, host)

    def _measure(
        self,
        batch: Sequence[Job[Any]],
        outcomes: Sequence[Outcome],
        wall: float,
        started: float,
        long: bool = False,
    ) -> None:
        """Count what was done; what failed or was left tells nothing of the engine's speed."""
        pairs = zip(batch, outcomes, strict=True)
        if not (batch := [job for job, outcome in pairs if not isinstance(outcome, Exception)]):
            return
        audio = sum(job.seconds for job in batch)
        if batch[0].params is not None and audio > 0:
            self.rtf = _smooth(self.rtf, wall / audio / self._replicas)
            self._item_seconds = _smooth(self._item_seconds, wall / len(batch))
            if long:
                self._long_seconds = _smooth(self._long_seconds, wall / len(batch))
        self._on_batch(len(batch), audio, wall, started - min(job.queued_at for job in batch))
        if self._tracing.on:
            info, kind = self.engine.info, "detect" if batch[0].params is None else "decode"
            values: Values = {
                "whisper.engine": info.engine,
                "whisper.model": info.model,
                "whisper.batch.windows": len(batch),
                "whisper.batch.audio_seconds": audio,
            }
            waits = [(job.trace, started - job.queued_at) for job in batch]
            self._tracing.batch(f"engine.{kind}", values, waits, wall)


def _now() -> float:
    """What timers go by."""
    return asyncio.get_running_loop().time()


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else 0.7 * old + 0.3 * new
