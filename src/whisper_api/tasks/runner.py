"""What the steps of a task do, on the event loop; every error ends in a state, never in a loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from whisper_api.audio.envelope import with_speech
from whisper_api.errors import ServerError, TaskAbandoned, TaskStale, WhisperApiError
from whisper_api.merge import add_coverage, coverage
from whisper_api.metrics import Metrics
from whisper_api.pipeline import assemble, check_options
from whisper_api.tasks.live import Attempt, Parts, Pulse
from whisper_api.tasks.policy import persist
from whisper_api.tasks.record import Batch, Planned, Saved, Status, TaskRecord
from whisper_api.tasks.spread import Spread, renumbered
from whisper_api.tasks.store import Also, Progress, TaskStore
from whisper_api.transcript_codec import TRANSCRIPT
from whisper_api.types import Coverage, Lane, Transcript

log = logging.getLogger(__name__)
T = TypeVar("T")

INTERNAL = "internal_error"
ENDED = -1
LEFT = -2
"""The process stops; the task stays as it is."""
MOST_WINDOWS = 64
"""Windows of one batch."""
SOON_S = 0.5
"""Seconds of work after which segments are saved that a request waits for."""


class Transcripts(Protocol):
    """Where finished transcripts go."""

    async def keep(
        self, record: TaskRecord, transcript: Transcript, stages: Mapping[str, float]
    ) -> str:
        """Write a task's transcript, once however often it is called; the record's id.

        ``stages`` holds the seconds of work of the last attempt, by stage.
        """
        ...

    async def transcript(self, record: TaskRecord) -> Transcript:
        """What was written, as it was written.

        Raises:
            NotFound: it was deleted.
        """
        ...


Describe = Callable[[WhisperApiError], dict[str, Any]]
"""An error as OpenAI's object."""


class Runner:
    """The attempts of this process."""

    def __init__(
        self,
        parts: Parts,
        store: TaskStore,
        metrics: Metrics,
        transcripts: Transcripts,
        also: Also,
        spread: Spread,
    ) -> None:
        """``also`` joins the transaction that ends a task."""
        self.describe: Describe = _plainly
        self.attempts: dict[str, Attempt] = {}
        self.leaving = False
        self._parts = parts
        self._store = store
        self._metrics = metrics
        self._transcripts = transcripts
        self._also = also
        self._spread = spread

    async def begin(self, ident: str, run: int) -> int:
        """Take a task up; ``ENDED`` where there is nothing to do."""
        if self.leaving:
            return LEFT
        record = await self._saved(ident, lambda: self._store.begin(ident, run))
        if record is None:
            return ENDED
        limit = self._parts.settings.task_max_attempts
        attempt = Attempt(record, self._parts, Pulse(), processed=record.processed)
        if record.stalls > limit:
            await self._fail(attempt, TaskAbandoned(_abandoned(limit)))
            return ENDED
        self.attempts[ident] = attempt
        return 0

    @property
    def busy(self) -> int:
        """Tasks and parts that run here."""
        return len(self.attempts) + len(self._spread.running)

    def unread(self, *lanes: Lane) -> float:
        """Seconds of audio of tasks and parts whose files are being read; from any thread."""
        every = tuple(self.attempts.values())
        mine = sum(attempt.unread for attempt in every if attempt.record.lane in lanes)
        return mine + self._spread.unread(*lanes)

    async def plan(self, ident: str) -> int:
        """The plan step: its windows' number."""
        return await self._step("plan", ident, self._plan)

    async def batch(self, ident: str, first: int) -> int:
        """A batch step: the index of the next window."""
        return await self._step("batch", ident, lambda attempt: self._batch(attempt, first))

    async def merge(self, ident: str) -> int:
        """The last step."""
        return await self._step("merge", ident, self._merge)

    async def part(self, ident: str, run: int, first: int) -> int:
        """A part of a task that some process waits for."""
        if self.leaving:
            return LEFT
        try:
            await self._spread.decode(ident, run, first, self.attempts.get(ident))
        except asyncio.CancelledError:
            if not self.leaving:
                raise
            return LEFT
        except Exception:
            # DBOS would never begin this run again, and whoever merges would wait for it.
            log.exception("task %s: unexpected error in a part", ident)
            await self._saved(ident, lambda: self._spread.store.fail(ident, first))
        return 0

    async def end(self, ident: str) -> int:
        """Let go of everything."""
        attempt = self.attempts.pop(ident, None)
        if attempt is not None:
            await self._spread.settle(attempt, keep=self.leaving)
            await attempt.close()
            attempt.pulse.beat()
        return 0

    def stop(self, ident: str) -> None:
        """End an attempt of this process, if there is one."""
        if ident in self.attempts:
            self.attempts[ident].stop()

    async def leave(self) -> None:
        """Interrupt all attempts in good order; they go on when a process takes them up."""
        self.leaving = True
        running = list(self.attempts)
        for ident in running:
            self.attempts[ident].stop()
        await self._spread.close()
        if running:
            try:
                await self._store.rest(running)
            except WhisperApiError as error:
                log.warning("interrupted tasks could not be noted: %s", error.message)

    async def _step(self, name: str, ident: str, work: Callable[[Attempt], Awaitable[int]]) -> int:
        """Run ``work``; its errors become the task's state."""
        attempt = self.attempts.get(ident)
        if self.leaving or attempt is None or attempt.stopped:
            return LEFT if self.leaving else ENDED
        attempt.task = asyncio.current_task()
        try:
            with self._parts.pipeline.tracing.step(f"task.{name}", {"whisper.task_id": ident}):
                return await work(attempt)
        except asyncio.CancelledError:
            if not attempt.stopped:
                raise
            return LEFT if self.leaving else ENDED
        except WhisperApiError as error:
            await self._fail(attempt, error)
        except Exception:
            log.exception("task %s: unexpected error", ident)
            unforeseen = ServerError("The server had an error; its log has more.", code=INTERNAL)
            await self._fail(attempt, unforeseen)
        finally:
            attempt.task = None
        return ENDED

    async def _plan(self, attempt: Attempt) -> int:
        if await self._planned(attempt) is None:
            ident = attempt.record.id
            planned = await persist(lambda: self._make_plan(attempt), ident, tidy=attempt.close)
            record = attempt.record
            parts = await self._saved(ident, lambda: self._spread.cut(planned.plan))
            if not await self._saved(ident, lambda: self._store.save_plan(record, planned, parts)):
                return ENDED
            self._use(attempt, planned)
            if parts and attempt.opened is not None:
                attempt.opened.ticket.resize(0.0)  # its parts count
        assert attempt.planned is not None
        return len(attempt.planned.plan.windows)

    async def _make_plan(self, attempt: Attempt) -> Planned:
        opened, options = await attempt.open(), attempt.record.asked.options
        check_options(opened.engine, options)
        waveform = opened.waveform
        with attempt.timed("speech"):
            plan = await self._parts.pipeline.plan(
                opened.file, waveform, options, opened.engine, opened.ticket
            )
        envelope = with_speech(waveform, plan.windows)
        if envelope is not None and attempt.record.audio is not None:
            await self._parts.audio.set_envelope(attempt.record.audio, envelope)
        return Planned(plan, waveform.samples, waveform.lead, waveform.tail, waveform.damaged)

    async def _batch(self, attempt: Attempt, first: int) -> int:
        ident = attempt.record.id
        planned = await self._planned(attempt)
        if planned is None:
            raise TaskStale("The plan of this task is missing; try it again.")
        if attempt.saved is None:
            attempt.saved = await self._saved(ident, lambda: self._store.saved(ident))
        known = attempt.saved.get(first)
        if known is None:
            attempt.segments = _before(attempt.saved, first)
            batch = await self._part(attempt, planned, first)
            if batch is None:
                batch = await persist(
                    lambda: self._decode(attempt, planned, first), ident, tidy=attempt.close
                )
            elif batch.stop == first:
                return ENDED
            known = Saved(batch.stop, attempt.segments + len(batch.segments))
            if not await self._saved(ident, lambda: self._save(attempt, batch)):
                return ENDED
            attempt.saved[first] = known
        attempt.segments, attempt.fresh = known.segments, []
        attempt.pulse.beat()
        return known.stop

    async def _part(self, attempt: Attempt, planned: Planned, first: int) -> Batch | None:
        """The part that begins here, from whoever decoded it; an empty one where the task is no
        longer this attempt's; None where it is to be decoded here."""
        record, ident = attempt.record, attempt.record.id
        if attempt.shares is None:
            attempt.shares = await self._saved(ident, lambda: self._spread.store.all(ident))
            left = [part for part in attempt.shares.values() if part.first >= first]
            self._spread.distribute(record, planned, left, attempt.opened)
        part = attempt.shares.get(first)
        if part is None or part.failed:
            return None
        if not attempt.begun:
            attempt.begun, attempt.begun_at = time.monotonic(), attempt.processed
        found = await self._saved(ident, lambda: self._spread.wait(record, first))
        if found is None:
            return Batch(first, first, (), Coverage())
        attempt.shares[first] = found
        if found.batch is None:
            return None
        attempt.processed = planned.seconds(planned.plan.windows[found.stop - 1].stop)
        return renumbered(found.batch, attempt.segments)

    async def _decode(self, attempt: Attempt, planned: Planned, first: int) -> Batch:
        opened = await attempt.open()
        if not planned.fits(opened.waveform):
            raise TaskStale
        seconds = self._parts.settings.task_checkpoint_s
        if attempt.record.lane == Lane.INTERACTIVE:
            seconds = min(seconds, SOON_S)
        most = min(MOST_WINDOWS, _next_part(attempt, first) - first)
        with attempt.timed("recognise"):
            results = await attempt.decode(first, seconds, most)
        return Batch(
            first=first,
            stop=first + len(results),
            segments=tuple(attempt.fresh),
            coverage=coverage(opened.waveform, results),
            warnings=tuple(warning for result in results for warning in result.warnings),
        )

    async def _save(self, attempt: Attempt, batch: Batch) -> bool:
        return await self._store.save_batch(
            attempt.record, batch, attempt.segments, Progress(attempt.processed, attempt.eta)
        )

    async def _merge(self, attempt: Attempt) -> int:
        record, ident = attempt.record, attempt.record.id
        planned = await self._planned(attempt)
        batches = await self._saved(ident, lambda: self._store.batches(ident))
        if planned is None or not _complete(batches, len(planned.plan.windows)):
            raise TaskStale("Parts of this task are missing; try it again.")
        transcript = assemble(
            planned.plan,
            [segment for batch in batches for segment in batch.segments],
            add_coverage(batch.coverage for batch in batches),
            [warning for batch in batches for warning in batch.warnings],
            planned.damaged,
        )
        end: dict[str, Any] = {}
        if record.lane == Lane.INTERACTIVE:
            end["result"] = await asyncio.to_thread(TRANSCRIPT.dump, transcript)
        else:
            end["history_id"] = await self._saved(
                ident, lambda: self._transcripts.keep(record, transcript, attempt.stages)
            )
        if not await self._saved(
            ident, lambda: self._store.finish(record, Status.COMPLETED, self._also, **end)
        ):
            return ENDED
        self._metrics.audio_seconds.inc(transcript.duration)
        self._metrics.tasks.labels(status=Status.COMPLETED).inc()
        log.info("task %s is complete: %.0f s of audio", ident, transcript.duration)
        return 0

    async def _planned(self, attempt: Attempt) -> Planned | None:
        """The plan, read from the database where another attempt made it."""
        if attempt.planned is None:
            ident = attempt.record.id
            planned = await self._saved(ident, lambda: self._store.plan(ident))
            if planned is not None:
                self._use(attempt, planned)
        return attempt.planned

    def _use(self, attempt: Attempt, planned: Planned) -> None:
        plan = planned.plan
        attempt.planned = planned
        attempt.record = replace(
            attempt.record, model=plan.model, duration=plan.duration, windows=len(plan.windows)
        )
        attempt.pulse.beat()

    async def _fail(self, attempt: Attempt, error: WhisperApiError) -> None:
        record = attempt.record
        told = self.describe(error)
        if record.lane == Lane.INTERACTIVE:
            told |= {"kind": type(error).__name__}  # for the process that answers
        try:
            written = await self._saved(
                record.id,
                lambda: self._store.finish(record, Status.FAILED, self._also, error=told),
            )
        except WhisperApiError as trouble:
            log.error(
                "task %s failed (%s), which could not be written: %s",
                record.id,
                error.message,
                trouble.message,
            )
            return
        if not written:
            return  # it went meanwhile, as requests do whose callers leave
        if isinstance(error, ServerError):
            log.error("task %s failed: %s", record.id, error.message, exc_info=error.__cause__)
        self._metrics.tasks.labels(status=Status.FAILED).inc()

    async def _saved(self, ident: str, work: Callable[[], Awaitable[T]]) -> T:
        """A statement to the database, which is waited for as long as it takes."""
        return await persist(work, ident, tries={})


def _before(saved: Mapping[int, Saved], first: int) -> int:
    """Segments of the batches before window ``first``."""
    return next((batch.segments for batch in saved.values() if batch.stop == first), 0)


def _next_part(attempt: Attempt, first: int) -> int:
    """The first window after ``first`` that another process may decode."""
    windows = attempt.record.windows or 0
    return min((at for at in attempt.shares or () if at > first), default=windows)


def _complete(batches: Sequence[Batch], windows: int) -> bool:
    """Whether the batches hold every window once."""
    at = 0
    for batch in batches:
        if batch.first != at:
            return False
        at = batch.stop
    return at == windows


def _abandoned(limit: int) -> str:
    return (
        f"The server process ended {limit} times in a row while it worked on this task; the file "
        "may be at fault."
    )


def _plainly(error: WhisperApiError) -> dict[str, Any]:
    return {"message": error.message, "type": "", "param": error.param, "code": error.code}
