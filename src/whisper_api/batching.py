"""One engine's queue and threads: pack, run, measure, answer.

A running batch cannot be stopped, so how long one may run is decided when it is packed: as large
as the engine takes while nobody hurries, and by measured time as long as short requests or higher
lanes come.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from whisper_api.config import Settings
from whisper_api.engines.base import Decoded, DecodeParams, Engine, WindowItem, batch_size_of
from whisper_api.errors import EngineError, EngineOutOfMemory
from whisper_api.fairness import LANES, FairQueue, Share
from whisper_api.fitting import Fitting
from whisper_api.reserve import Reserve
from whisper_api.tracing import OFF, Tracing, Values
from whisper_api.types import Audio, Lane

log = logging.getLogger(__name__)

R = TypeVar("R")
Languages = dict[str, float]
Outcome = Decoded | Languages | Exception
OnBatch = Callable[[int, float, float, float], None]
"""Called after each batch with its size, audio seconds, wall seconds and its longest wait."""

SHORT_SECONDS = 60.0
"""Requests with no more audio than this are short: their callers wait for them."""
CALM_SECONDS = 60.0
"""How long batches of long requests stay bounded at most after a short one: the next may come any
time, and a batch cannot be stopped for it."""
CALM_GAPS, CALM_LEAST = 3.0, 5.0
"""For so many of the pauses that short requests made last, and so many seconds at least: one alone
must not cost a long file the speed of large batches for a minute."""
IDLE_SECONDS, IDLE_PART = 0.1, 0.5
"""How long a replica idles at most between two batches of long requests while short ones are about
to have work for it, and in parts of what such a batch may take then."""
CLOSE_SECONDS = 3.0
"""How long closing waits for a batch that runs."""


@dataclass(eq=False, slots=True)
class Job(Generic[R]):
    """One window to detect or decode; ``params`` is None for detection."""

    key: str
    load: Callable[[], Audio]
    seconds: float
    params: DecodeParams | None
    done: asyncio.Future[R]
    order: int = 0  #: index of the window in its request
    queued_at: float = 0.0  #: on the runner's clock
    trace: Any = None  #: of its request, see ``tracing``

    @property
    def batch_key(self) -> Hashable:
        """Equal for jobs that one engine call may hold."""
        return None if self.params is None else self.params.batch_key


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
        self.running = 0  #: batches
        self.rtf: float | None = None  #: engine seconds for a second of audio
        self._settings = settings
        self._clock = clock
        self._tracing = tracing
        self._on_batch = on_batch
        self._queue: FairQueue[Job[Any]] = FairQueue(
            lambda job: job.done.done(), settings.task_share
        )
        self._replicas = max(1, engine.info.replicas)
        self._threads = ThreadPoolExecutor(self._replicas, thread_name_prefix="engine")
        self._item_seconds: float | None = None
        self._fitting = Fitting(batch_size_of(engine.info, settings))
        self._begun: dict[int, tuple[float, int]] = {}  # running batches: since when, windows
        self._short_at = self._short_until = float("-inf")
        self._last_short: Share[Job[Any]] | None = None
        self._lane_until = dict.fromkeys(LANES, float("-inf"))
        self._tasks: set[asyncio.Task[None]] = set()
        self._pumping = False
        self._reserve = Reserve(min(IDLE_SECONDS, IDLE_PART * settings.max_batch_seconds))
        self._waking: asyncio.TimerHandle | None = None
        self._long: set[Share[Job[Any]]] = set()

    def join(self, lane: Lane, short: bool = False) -> Share[Job[Any]]:
        """A new request's part of the queue; ``short``: it has little audio."""
        share = self._queue.join(lane)
        if short:
            self._reserve.join(share, _now())
        return share

    def leave(self, share: Share[Job[Any]]) -> None:
        """Take a request's part out, with what waits in it."""
        if share is self._last_short:
            self._last_short = None
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
        self._lane_until[share.lane] = job.queued_at + CALM_SECONDS
        if short:
            self._expect_more(share, job.queued_at)
            self._reserve.push(share)
            job.done.add_done_callback(lambda _: self._reserve.done(share, _now()))
        else:
            self._long.add(share)
            self._reserve.leave(share)  # its length may not have been known when it joined
        # Detection is paid for with the window's decoding, which finds it encoded already.
        charged = 0.0 if job.params is None else job.seconds
        self._queue.push(share, job, charged, job.batch_key, job.order)
        self._soon()

    def _expect_more(self, share: Share[Job[Any]], now: float) -> None:
        """A window of a short request came: how long the next such request is waited for."""
        gap = now - self._short_at
        if share is not self._last_short:
            wait = CALM_GAPS * gap if gap <= CALM_SECONDS else CALM_LEAST
            wait = min(max(wait, CALM_LEAST), CALM_SECONDS)
            self._short_until = max(self._short_until, now + wait)
        self._short_until = max(self._short_until, now + CALM_LEAST)
        self._last_short, self._short_at = share, now

    def hasten(self) -> None:
        """From now on serve whoever has least audio left, in short batches: the server stops."""
        self._queue.shortest_first = True

    async def close(self) -> None:
        """Run nothing more; a batch that runs is waited for a moment, then left to itself."""
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
        while self.running < self._replicas and not self._idles():
            long = bool(self._long) and self._queue.next_is_long()
            batch = self._queue.take(min(self._most(), self._even_part()), self._most_long())
            if not batch:
                return
            self.running += 1
            self._reserve.begin(_now(), long)
            self._begun[id(batch)] = (self._clock(), len(batch))
            self._spawn(self._run(batch))

    def _idles(self) -> bool:
        """Whether the last free replica waits for a short request's next window."""
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        lane = self._queue.next_lane() if self._long else None
        if lane is None or not self._queue.next_is_long():
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
        lane = self._queue.next_lane()
        if lane is None or not self._hurried(lane):
            return self._most()
        if self._item_seconds is None:
            return 1
        return max(1, int(self._settings.max_batch_seconds / max(self._item_seconds, 1e-6)))

    def _hurried(self, lane: Lane) -> bool:
        """Whether somebody may soon wait for a batch of ``lane``'s long requests."""
        if self._queue.shortest_first:
            return True
        above = [self._lane_until[other] for other in LANES[: LANES.index(lane)]]
        return self._clock() < max(self._short_until, *above, float("-inf"))

    async def _run(self, batch: list[Job[Any]]) -> None:
        started = self._clock()
        try:
            outcomes = await self._attempt(batch)
        except Exception as error:
            outcomes = [error] * len(batch)
        except asyncio.CancelledError:
            outcomes = [EngineError("The engine was closed.")] * len(batch)
        finally:
            self.running -= 1
            del self._begun[id(batch)]
        self._measure(batch, self._clock() - started, started)
        for job, outcome in zip(batch, outcomes, strict=True):
            if job.done.done():
                continue
            if isinstance(outcome, Exception):
                job.done.set_exception(outcome)
            else:
                job.done.set_result(outcome)
        self._soon()

    async def _attempt(self, batch: Sequence[Job[Any]]) -> list[Outcome]:
        """Run a batch, in smaller pieces where memory does not take it."""
        outcomes: list[Outcome] = []
        while rest := batch[len(outcomes) :]:
            piece = rest[: self._fitting.most]
            try:
                outcomes += await self._call(piece)
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
                log.error("engine failed on a batch of %d windows: %s", len(piece), error)
                outcomes += [error] * len(piece)
            else:
                if batch[0].params is not None:  # detection takes less
                    self._fitting.held(len(piece))
        return outcomes

    async def _call(self, piece: Sequence[Job[Any]]) -> list[Outcome]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _compute, self.engine, piece)

    def _measure(self, batch: Sequence[Job[Any]], wall: float, started: float) -> None:
        audio = sum(job.seconds for job in batch)
        if batch[0].params is not None and audio > 0:
            self.rtf = _smooth(self.rtf, wall / audio / self._replicas)
            self._item_seconds = _smooth(self._item_seconds, wall / len(batch))
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


def _now() -> float:
    """What timers go by."""
    return asyncio.get_running_loop().time()


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else 0.7 * old + 0.3 * new
