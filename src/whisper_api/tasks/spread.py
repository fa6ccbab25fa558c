"""Long recordings on several machines: cut by the plan, decoded part by part, merged in order.

Whoever planned a task hands its parts out and waits for them one after the other; any process
with an engine takes them, the one that waits included. What a part came to goes through the
database, its audio never does: each process fetches it from the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from whisper_api.audio.scratch import Scratch
from whisper_api.errors import CapacityError, Conflict, WhisperApiError
from whisper_api.merge import WindowResult, coverage, window_segments
from whisper_api.tasks.live import MOST_QUEUED_SECONDS, Attempt, Parts
from whisper_api.tasks.part_store import PartStore
from whisper_api.tasks.policy import persist
from whisper_api.tasks.record import Batch, Part, Planned, TaskRecord
from whisper_api.tasks.store import TaskStore
from whisper_api.types import Lane, Plan, Segment, Waveform

log = logging.getLogger(__name__)
T = TypeVar("T")

LINGER_S = 10.0
"""How long decoded audio waits for another part of the same recording."""
LOOK_S = 1.0
"""Seconds between looks whether a part is still wanted."""
WAIT_S = 0.1
"""Seconds between looks whether a part is done."""
AGAIN_S = 30.0
"""After which parts that do not come are handed out again; nothing happens to those that wait."""

HandOut = Callable[[TaskRecord, list[Part]], Awaitable[None]]
"""Put parts into the queue; twice does no harm."""


def cut(plan: Plan, seconds: float, workers: int) -> list[tuple[int, int]]:
    """First and stop of each part of about ``seconds`` of audio; none where it stays whole."""
    total = sum(window.duration for window in plan.windows)
    if seconds <= 0 or workers < 2 or total < 1.5 * seconds:
        return []
    count = min(round(total / seconds), len(plan.windows))
    parts: list[tuple[int, int]] = []
    first, done = 0, 0.0
    for index, window in enumerate(plan.windows):
        done += window.duration
        # The last one takes what is left, so that rounding loses no window.
        if done >= total * (len(parts) + 1) / count - 0.001 or index == len(plan.windows) - 1:
            parts.append((first, index + 1))
            first = index + 1
    return parts


@dataclass(eq=False, slots=True)
class _Audio:
    """One recording, decoded once for all its parts in this process."""

    ready: asyncio.Task[Waveform]
    stack: AsyncExitStack
    users: int = 0
    timer: asyncio.TimerHandle | None = None


@dataclass(eq=False)
class Spread:
    """Parts of recordings in this process: those that it waits for, and those that it decodes."""

    parts: Parts
    tasks: TaskStore
    store: PartStore
    workers: Callable[[], Awaitable[int]]  #: processes that take work now
    hand_out: HandOut
    name: Callable[[], str]  #: this process
    running: set[asyncio.Task[object]] = field(default_factory=set)
    _audio: dict[str, _Audio] = field(default_factory=dict)

    async def cut(self, plan: Plan) -> list[tuple[int, int]]:
        """As the module's ``cut``, by the settings and the processes that live.

        Raises:
            DatabaseUnavailable: nobody knows who lives.
        """
        seconds = self.parts.settings.task_part_s
        # Only of long recordings it is worth a question.
        return cut(plan, seconds, await self.workers()) if cut(plan, seconds, 2) else []

    async def wait(self, record: TaskRecord, first: int) -> Part | None:
        """A part once it is done or has failed; None where the task is no longer this attempt's.

        Raises:
            DatabaseUnavailable: the database is away; ask again.
        """
        until = asyncio.get_running_loop().time() + AGAIN_S
        while True:
            part = await self.store.get(record, first)
            if part is None or part.failed or part.batch is not None:
                return part
            if asyncio.get_running_loop().time() >= until:
                return await self._again(record, first)
            await asyncio.sleep(WAIT_S)

    async def decode(self, ident: str, run: int, first: int, here: Attempt | None) -> None:
        """Decode and save a part; ``here`` is the attempt at its task in this very process."""
        me = asyncio.current_task()
        assert me is not None
        self.running.add(me)
        try:
            record = await self._persist(ident, lambda: self.store.wanted(ident, run, first))
            planned = await self._persist(ident, lambda: self.tasks.plan(ident))
            part = (await self._persist(ident, lambda: self.store.all(ident))).get(first)
            if record is None or planned is None or part is None:
                return
            work = asyncio.ensure_future(self._work(record, planned, part, here))
            try:
                await self._watch(work, ident, run, first)
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
        finally:
            self.running.discard(me)

    async def close(self) -> None:
        """Stop everything and let go of all audio."""
        for task in tuple(self.running):
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
        for ident in tuple(self._audio):
            await self._forget(ident)

    async def _again(self, record: TaskRecord, first: int) -> Part | None:
        every = await self.store.all(record.id)
        await self.hand_out(record, [part for part in every.values() if part.first >= first])
        return await self.wait(record, first)

    async def _watch(self, work: asyncio.Future[None], ident: str, run: int, first: int) -> None:
        while not work.done():
            await asyncio.wait({work}, timeout=LOOK_S)
            try:
                if not work.done() and await self.store.wanted(ident, run, first) is None:
                    return  # cancelled, or done elsewhere
            except CapacityError:
                continue  # the database is away; what is decoded meanwhile is not lost
        work.result()

    async def _work(
        self, record: TaskRecord, planned: Planned, part: Part, here: Attempt | None
    ) -> None:
        ident = record.id
        try:
            batch = await persist(lambda: self._batch(record, planned, part, here), ident)
        except WhisperApiError as error:
            log.warning("task %s: a part failed here: %s", ident, error.message)
        except Exception:
            log.exception("task %s: a part failed here", ident)
        else:
            await self._persist(ident, lambda: self.store.save(ident, batch, self.name()))
            return
        # Whoever merges decodes it too, and says what is wrong.
        await self._persist(ident, lambda: self.store.fail(ident, part.first))

    async def _batch(
        self, record: TaskRecord, planned: Planned, part: Part, here: Attempt | None
    ) -> Batch:
        scheduler, pool, plan = self.parts.scheduler, self.parts.pool, planned.plan
        windows = plan.windows[part.first : part.stop]
        seconds = sum(window.duration for window in windows)
        async with (
            self._waveform(record, here) as waveform,
            scheduler.admit(Lane(record.lane)) as ticket,
            pool.lease(record.model) as engine,
        ):
            if not planned.fits(waveform):
                raise Conflict("This machine decodes the audio in another way.")
            ticket.bind(engine)
            ticket.resize(min(seconds, MOST_QUEUED_SECONDS))
            decoded = self.parts.pipeline.run(plan, waveform, windows, engine, ticket)
            results = [result async for result in decoded]
            return _batch_of(part, waveform, results)

    @asynccontextmanager
    async def _waveform(self, record: TaskRecord, here: Attempt | None) -> AsyncIterator[Waveform]:
        """The decoded recording, shared by all its parts in this process."""
        if here is not None and here.opened is not None:
            yield here.opened.waveform
            return
        audio = self._audio.get(record.id)
        if audio is None:
            stack = AsyncExitStack()
            ready = asyncio.create_task(self._fetch(record, stack))
            audio = self._audio[record.id] = _Audio(ready, stack)
        audio.users += 1
        if audio.timer is not None:
            audio.timer.cancel()
            audio.timer = None
        failed = True
        try:
            waveform = await asyncio.shield(audio.ready)
            failed = False
            yield waveform
        finally:
            audio.users -= 1
            if audio.users == 0:
                self._linger(record.id, audio, 0.0 if failed else LINGER_S)

    def _linger(self, ident: str, audio: _Audio, seconds: float) -> None:
        loop = asyncio.get_running_loop()

        def over() -> None:
            if audio.users == 0 and self._audio.get(ident) is audio:
                task = loop.create_task(self._forget(ident))
                self.running.add(task)
                task.add_done_callback(self.running.discard)

        audio.timer = loop.call_later(seconds, over)

    async def _fetch(self, record: TaskRecord, stack: AsyncExitStack) -> Waveform:
        if record.audio is None:
            raise Conflict("The audio of this task is no longer stored.", code="audio_gone")
        parts = self.parts
        scratch = await asyncio.to_thread(Scratch.create, parts.settings.scratch_dir)
        await stack.enter_async_context(scratch)
        file = await parts.audio.file(record.audio, scratch, record.name)
        return await parts.decoder.decode(file, scratch, record.asked.options)

    async def _forget(self, ident: str) -> None:
        audio = self._audio.pop(ident, None)
        if audio is not None:
            if audio.timer is not None:
                audio.timer.cancel()
            audio.ready.cancel()
            await asyncio.gather(audio.ready, return_exceptions=True)
            await audio.stack.aclose()

    @staticmethod
    async def _persist(ident: str, work: Callable[[], Awaitable[T]]) -> T:
        return await persist(work, ident, tries={})


def _batch_of(part: Part, waveform: Waveform, results: list[WindowResult]) -> Batch:
    fresh: list[Segment] = []
    for result in results:
        fresh += window_segments(waveform, result, first_id=len(fresh))
    return Batch(
        first=part.first,
        stop=part.stop,
        segments=tuple(fresh),
        coverage=coverage(waveform, results),
        warnings=tuple(warning for result in results for warning in result.warnings),
    )


def renumbered(batch: Batch, before: int) -> Batch:
    """A part's batch with ``before`` segments ahead of it."""
    moved = tuple(replace(segment, id=segment.id + before) for segment in batch.segments)
    return replace(batch, segments=moved)
