"""Long recordings on several machines: cut by the plan, decoded part by part, merged in order.

Whoever planned a task hands its parts out and waits for them one after the other; any process
with an engine takes them, the one that waits included. What a part came to goes through the
database, its audio never does: it lies in the store, cut out of the decoded whole (``stretches``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from whisper_api.audio.scratch import Scratch
from whisper_api.errors import CapacityError, Conflict, WhisperApiError
from whisper_api.merge import WindowResult, coverage, window_segments
from whisper_api.tasks.live import MOST_QUEUED_SECONDS, Attempt, Open, Parts
from whisper_api.tasks.part_store import PartStore
from whisper_api.tasks.policy import persist
from whisper_api.tasks.record import Batch, Part, Planned, TaskRecord
from whisper_api.tasks.store import TaskStore
from whisper_api.tasks.stretches import Stretches
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

SMALLEST = 5
"""The last parts of a recording are not smaller than one of so many pieces of a large one."""

HandOut = Callable[[TaskRecord, list[Part], int], Awaitable[None]]
"""Put parts into the queue, behind so many others; twice does no harm."""


def cut(plan: Plan, seconds: float, workers: int) -> list[tuple[int, int]]:
    """First and stop of each part; none where it stays whole.

    Parts have at most about ``seconds`` of audio and shrink towards the end, so that all workers
    are busy until the last moment.
    """
    total = sum(window.duration for window in plan.windows)
    if seconds <= 0 or workers < 2 or total < 1.5 * seconds:
        return []
    sharers = min(workers, round(total / seconds))
    parts: list[tuple[int, int]] = []
    first, have, left = 0, 0.0, total
    for index, window in enumerate(plan.windows):
        have += window.duration
        size = min(seconds, max(left / (2 * sharers), seconds / SMALLEST))
        if have >= size - 0.001 or index == len(plan.windows) - 1:
            parts.append((first, index + 1))
            first, have, left = index + 1, 0.0, left - have
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
    stretches: Stretches
    running: set[asyncio.Task[object]] = field(default_factory=set)
    _audio: dict[str, _Audio] = field(default_factory=dict)
    _giving: dict[str, asyncio.Task[None]] = field(default_factory=dict)  #: by task
    _tidying: set[asyncio.Task[None]] = field(default_factory=set)
    _unread: dict[object, tuple[str | None, float]] = field(default_factory=dict)
    """Lane and seconds of each part that runs here and has no place in the queue yet."""

    async def cut(self, plan: Plan) -> list[tuple[int, int]]:
        """As the module's ``cut``, by the settings and the processes that live.

        Raises:
            DatabaseUnavailable: nobody knows who lives.
        """
        seconds = self.parts.settings.task_part_s
        # Only of long recordings it is worth a question.
        return cut(plan, seconds, await self.workers()) if cut(plan, seconds, 2) else []

    def unread(self, *lanes: Lane) -> float:
        """Seconds of audio of parts whose audio is being read; from any thread."""
        found = tuple(self._unread.values())
        return sum(seconds for lane, seconds in found if lane is None or lane in lanes)

    def distribute(
        self, record: TaskRecord, planned: Planned, parts: Sequence[Part], opened: Open | None
    ) -> None:
        """Begin to hand parts out, each as soon as its audio is stored; ``opened`` has it."""
        if parts:
            work = self._distribute(record, planned, parts, opened)
            self._giving[record.id] = asyncio.create_task(work)

    async def settle(self, attempt: Attempt, *, keep: bool) -> None:
        """At the end of an attempt: hand out no more; unless ``keep``, audio that is left goes."""
        giving = self._giving.pop(attempt.record.id, None)
        if giving is not None:
            giving.cancel()
            await asyncio.gather(giving, return_exceptions=True)
        left = [part for part in (attempt.shares or {}).values() if part.batch is None]
        if attempt.planned is not None and left and not keep:
            self._tidy(attempt.record, attempt.planned, left)

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
        self._unread[me] = (None, MOST_QUEUED_SECONDS)
        try:
            record = await self._persist(ident, lambda: self.store.wanted(ident, run, first))
            planned = await self._persist(ident, lambda: self.tasks.plan(ident))
            part = (await self._persist(ident, lambda: self.store.all(ident))).get(first)
            if record is None or planned is None or part is None:
                return
            self._unread[me] = (record.lane, planned.length(part))
            read = partial(self._unread.pop, me, None)
            work = asyncio.ensure_future(self._work(record, planned, part, here, read))
            try:
                await self._watch(work, ident, run, first)
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
        finally:
            self.running.discard(me)
            self._unread.pop(me, None)

    async def close(self) -> None:
        """Stop everything and let go of all audio."""
        tasks = (*self.running, *self._giving.values(), *self._tidying)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._audio:
            await _let_go(self._audio.popitem()[1])

    async def _again(self, record: TaskRecord, first: int) -> Part | None:
        giving = self._giving.get(record.id)
        if giving is None or giving.done():
            every = await self.store.all(record.id)
            await self.hand_out(record, [part for part in every.values() if part.first >= first], 0)
        return await self.wait(record, first)

    async def _distribute(
        self, record: TaskRecord, planned: Planned, parts: Sequence[Part], opened: Open | None
    ) -> None:
        for number, part in enumerate(parts):
            if opened is not None:
                try:
                    await self.stretches.keep(
                        record, planned, part, opened.waveform, opened.scratch
                    )
                except (WhisperApiError, OSError) as error:
                    log.warning("task %s: parts are read from the file: %s", record.id, error)
                    opened = None
            await self._persist(record.id, partial(self.hand_out, record, [part], number))

    def _tidy(self, record: TaskRecord, planned: Planned, parts: Sequence[Part]) -> None:
        async def work() -> None:
            try:
                for part in parts:
                    await self.stretches.drop(record, planned, part)
            except WhisperApiError as error:
                log.warning("task %s: audio of parts goes later: %s", record.id, error.message)

        task = asyncio.create_task(work())
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)

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
        self,
        record: TaskRecord,
        planned: Planned,
        part: Part,
        here: Attempt | None,
        read: Callable[[], object],
    ) -> None:
        ident = record.id
        try:
            batch = await persist(lambda: self._batch(record, planned, part, here, read), ident)
        except WhisperApiError as error:
            log.warning("task %s: a part failed here: %s", ident, error.message)
        except Exception:
            log.exception("task %s: a part failed here", ident)
        else:
            await self._persist(ident, lambda: self.store.save(ident, batch, self.name()))
            self._tidy(record, planned, [part])
            return
        # Whoever merges decodes it too, and says what is wrong.
        await self._persist(ident, lambda: self.store.fail(ident, part.first))

    async def _batch(
        self,
        record: TaskRecord,
        planned: Planned,
        part: Part,
        here: Attempt | None,
        read: Callable[[], object],
    ) -> Batch:
        """Decode a part; ``read`` is called when its audio is there."""
        scheduler, pool, plan = self.parts.scheduler, self.parts.pool, planned.plan
        async with (
            self._waveform(record, planned, part, here) as waveform,
            scheduler.admit(Lane(record.lane)) as ticket,
            pool.lease(record.model) as engine,
        ):
            if not planned.fits(waveform):
                raise Conflict("This machine decodes the audio in another way.")
            ticket.bind(engine)
            ticket.resize(min(planned.length(part), MOST_QUEUED_SECONDS))
            read()
            windows = plan.windows[part.first : part.stop]
            decoded = self.parts.pipeline.run(plan, waveform, windows, engine, ticket)
            results = [result async for result in decoded]
            return _batch_of(part, waveform, results)

    @asynccontextmanager
    async def _waveform(
        self, record: TaskRecord, planned: Planned, part: Part, here: Attempt | None
    ) -> AsyncIterator[Waveform]:
        """The part's samples: of the attempt in this process, from the store, or of the file."""
        if here is not None and here.opened is not None:
            yield here.opened.waveform
            return
        scratch = await asyncio.to_thread(Scratch.create, self.parts.settings.scratch_dir)
        async with scratch:
            stretch = await self.stretches.read(record, planned, part, scratch)
            if stretch is not None:
                yield stretch
                return
        async with self._whole(record) as waveform:
            yield waveform

    @asynccontextmanager
    async def _whole(self, record: TaskRecord) -> AsyncIterator[Waveform]:
        """The decoded recording, shared by all its parts in this process."""
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
                del self._audio[ident]  # at once: who comes now must not get what is being closed
                task = loop.create_task(_let_go(audio))
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

    @staticmethod
    async def _persist(ident: str, work: Callable[[], Awaitable[T]]) -> T:
        return await persist(work, ident, tries={})


async def _let_go(audio: _Audio) -> None:
    if audio.timer is not None:
        audio.timer.cancel()
    audio.ready.cancel()
    await asyncio.gather(audio.ready, return_exceptions=True)
    await audio.stack.aclose()


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
