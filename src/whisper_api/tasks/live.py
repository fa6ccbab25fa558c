"""One attempt at a task in this process: what it holds open, and what it has done so far."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field

from whisper_api.audio.decode import Decoder
from whisper_api.audio.scratch import Scratch
from whisper_api.config import Settings
from whisper_api.engines.base import Engine
from whisper_api.errors import Conflict
from whisper_api.merge import WindowResult, window_segments
from whisper_api.pipeline import Pipeline
from whisper_api.pool import Pool
from whisper_api.scheduler import Scheduler, Ticket
from whisper_api.stored_audio import StoredAudio
from whisper_api.tasks.record import Part, Planned, Saved, TaskRecord
from whisper_api.types import WINDOW_SECONDS, AudioFile, Lane, Segment, Waveform

MOST_QUEUED_SECONDS = 300.0
"""Audio seconds of a task that count as queued, so that a long one does not shut the door."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a task needs of the process."""

    settings: Settings
    pipeline: Pipeline
    scheduler: Scheduler
    pool: Pool
    decoder: Decoder
    audio: StoredAudio


class Pulse:
    """Wakes everybody who waits for something to happen."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def beat(self) -> None:
        """Wake all who wait now."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def wait(self, seconds: float) -> None:
        """Until the next beat, at most ``seconds``."""
        event = self._event
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return


@dataclass(eq=False, slots=True)
class Open:
    """The audio, the model and the place in the queue of a running attempt."""

    scratch: Scratch
    file: AudioFile
    waveform: Waveform
    engine: Engine
    ticket: Ticket


@dataclass(eq=False, slots=True)
class Attempt:
    """The present attempt; its fields are what followers of the task see beyond the database."""

    record: TaskRecord
    parts: Parts
    pulse: Pulse
    planned: Planned | None = None
    saved: dict[int, Saved] | None = None  #: batches there already, by their first window
    shares: dict[int, Part] | None = None  #: what several processes decode, by the first window
    segments: int = 0  #: segments before the present batch
    fresh: list[Segment] = field(default_factory=list)  #: segments of the present batch
    processed: float = 0.0  #: seconds of audio done, the present batch included
    begun_at: float = 0.0  #: the same when this attempt began to decode
    begun: float = 0.0  #: monotonic time of that moment
    task: asyncio.Task[object] | None = None  #: the step that runs now
    stopped: bool = False
    opened: Open | None = None
    stages: dict[str, float] = field(default_factory=dict)  #: seconds of work of this attempt
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _results: AsyncGenerator[WindowResult, None] | None = None
    _at: int = 0  #: the window that ``_results`` yields next
    _until: int = 0  #: one past its last

    @property
    def unread(self) -> float:
        """Seconds of audio, at most ``MOST_QUEUED_SECONDS``, that its place in the queue does not
        count yet, because the file is being read."""
        if self.opened is not None or self.shares:
            return 0.0
        return min(self.record.duration or WINDOW_SECONDS, MOST_QUEUED_SECONDS)

    @property
    def eta(self) -> float | None:
        """Seconds of work left by the speed measured in this attempt."""
        spent, done = time.monotonic() - self.begun, self.processed - self.begun_at
        left = (self.record.duration or 0.0) - self.processed
        return round(left * spent / done, 1) if self.begun and done > 0 else None

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to ``stage``."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.stages[stage] = self.stages.get(stage, 0.0) + time.monotonic() - started

    def stop(self) -> None:
        """End the step that runs now; the attempt does no more."""
        self.stopped = True
        if self.task is not None:
            self.task.cancel()

    async def open(self) -> Open:
        """The audio decoded and the model loaded, once for each attempt.

        Raises:
            WhisperApiError: the audio, the model or the room for them is missing.
        """
        if self.opened is not None:
            return self.opened
        parts, record = self.parts, self.record
        if record.audio is None:
            raise Conflict("The audio of this task is no longer stored.", code="audio_gone")
        await self.close()
        scratch = await asyncio.to_thread(Scratch.create, parts.settings.scratch_dir)
        await self._stack.enter_async_context(scratch)
        file = await parts.audio.file(record.audio, scratch, record.name)
        ticket = await self._stack.enter_async_context(parts.scheduler.admit(Lane(record.lane)))
        model = record.model or record.asked.model
        engine = await self._stack.enter_async_context(parts.pool.lease(model))
        ticket.bind(engine)
        with self.timed("decode"):
            waveform = await parts.decoder.decode(file, scratch, record.asked.options)
        left = max(0.0, waveform.duration - self.processed)
        ticket.resize(min(left, MOST_QUEUED_SECONDS))
        self.opened = Open(scratch, file, waveform, engine, ticket)
        return self.opened

    async def close(self) -> None:
        """Let go of all that; decoding in progress is withdrawn. It may be opened again."""
        self.opened = None
        results, self._results = self._results, None
        try:
            if results is not None:
                await results.aclose()
        finally:
            await self._stack.aclose()

    async def decode(self, first: int, seconds: float, most: int) -> list[WindowResult]:
        """Windows from ``first`` on: for about so many seconds, at least one, at most ``most``.

        The windows behind them are on their way already, so that the engine never waits for a
        checkpoint; a call that does not follow the last one begins anew.
        """
        assert self.planned is not None
        opened, plan = await self.open(), self.planned.plan
        if self._results is not None and (first != self._at or first >= self._until):
            results, self._results = self._results, None
            await results.aclose()
        if self._results is None:
            self._until = min(
                (at for at in self.shares or () if at > first), default=len(plan.windows)
            )
            rest = plan.windows[first : self._until]
            self._results = self.parts.pipeline.run(
                plan, opened.waveform, rest, opened.engine, opened.ticket
            )
            self._count(first)
        if not self.begun:
            self.begun, self.begun_at = time.monotonic(), self.processed
        self.fresh, until = [], time.monotonic() + seconds
        done: list[WindowResult] = []
        async for result in self._results:
            done.append(result)
            number = self.segments + len(self.fresh)
            self.fresh += window_segments(opened.waveform, result, first_id=number)
            self.processed = opened.waveform.seconds(result.window.stop)
            self.pulse.beat()
            if len(done) == most or time.monotonic() >= until:
                break
        self._at = first + len(done)
        self._count(self._at)
        return done

    def _count(self, at: int) -> None:
        assert self.planned is not None
        assert self.opened is not None
        left = sum(window.duration for window in self.planned.plan.windows[at:])
        self.opened.ticket.resize(min(left, MOST_QUEUED_SECONDS))
