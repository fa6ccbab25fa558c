"""Equal work is done once: callers listen to jobs, and what was done is kept for a while.

A job is one run of the pipeline. It goes on for as long as somebody listens; the last who leaves
stops it, and its plan and finished windows are kept for ``retry_grace_seconds``, so that a retry
goes on from there. A finished transcript is kept for ``result_cache_ttl_s``. Work is equal when
audio, options, model and owner are: what belongs to one API key never answers another.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, Protocol

from cachetools import TTLCache

from whisper_api.audio.scratch import Scratch
from whisper_api.cache import Cache, Kept, Key
from whisper_api.config import Settings
from whisper_api.errors import InvalidOption, RequestError, RequestTimedOut, ShuttingDown
from whisper_api.metrics import Metrics
from whisper_api.pipeline import Progress, Update
from whisper_api.types import AudioFile, Options, Transcript

Outcome = Literal["miss", "hit", "joined", "resumed"]
"""What was there already: nothing, the result, a running job, or the work of a stopped one."""

IDEMPOTENCY_KEYS = 10_000
"""Idempotency keys that are remembered at the same time."""


@dataclass(frozen=True, slots=True)
class Work:
    """What decides a transcript, and whose it is."""

    owner: str  #: id of the API key
    digest: str  #: sha256 of the audio file
    model: str  #: id of the model, aliases resolved
    options: Options
    revision: str = ""  #: tells apart models that had the same id one after the other

    @property
    def key(self) -> Key:
        """Short and the same for equal work; begins with the owner and the audio."""
        how = repr((self.model, self.revision, self.options))
        return self.owner, self.digest, hashlib.sha256(how.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Terms:
    """What a request allows to be taken and left behind."""

    reuse: bool = True  #: whether an earlier result may answer it
    keep: bool = True  #: whether anything of it may be kept, and others may join it
    retry: bool = False  #: whether it says that it repeats an earlier request
    idempotency_key: str | None = None

    @property
    def repeats(self) -> bool:
        """Whether it may be the second attempt of an earlier request."""
        return self.retry or self.idempotency_key is not None


class Streams(Protocol):
    """What does the work: the pipeline, or workers elsewhere."""

    resumes: bool
    """Whether it keeps ``progress`` up to date, so that stopped work goes on from there."""

    def stream(
        self,
        file: AudioFile,
        options: Options,
        scratch: Scratch,
        *,
        model: str | None = None,
        progress: Progress | None = None,
    ) -> AsyncGenerator[Update, None]:
        """As ``Pipeline.stream``."""


class Record:
    """The updates of a job so far, for any number of readers."""

    def __init__(self) -> None:
        self.updates: list[Update] = []
        self.ended = False
        self.error: Exception | None = None
        self._news = asyncio.Event()

    @classmethod
    def of(cls, transcript: Transcript) -> Record:
        """The record that a job with this result would have left."""
        record, end = cls(), transcript.duration
        record.add(Update(transcript.segments, end, end))
        record.add(Update((), end, end, transcript))
        record.end(None)
        return record

    @property
    def transcript(self) -> Transcript | None:
        """The result, once it is there."""
        return self.updates[-1].transcript if self.updates else None

    def add(self, update: Update) -> None:
        """One update more."""
        self.updates.append(update)
        self._wake()

    def end(self, error: Exception | None) -> None:
        """Nothing more comes; ``error`` says why the result does not."""
        self.ended, self.error = True, error
        self._wake()

    async def news(self) -> None:
        """Wait until something changes."""
        await self._news.wait()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Shared:
    """A scratch folder that goes when its last holder lets go."""

    def __init__(self, scratch: Scratch) -> None:
        """With one holder."""
        self._scratch = scratch
        self._holders = 1

    def hold(self) -> None:
        """One holder more."""
        self._holders += 1

    async def release(self) -> None:
        """One holder less."""
        self._holders -= 1
        if self._holders == 0:
            await self._scratch.__aexit__(None, None, None)


class Job:
    """One run of the pipeline, in a task of its own."""

    def __init__(
        self,
        work: Work,
        keep: bool,
        updates: AsyncGenerator[Update, None],
        progress: Progress,
        shared: Shared,
        over: Callable[[Job], None],
    ) -> None:
        """``over`` is called in the turn of the loop in which the work ends."""
        self.work = work
        self.keep = keep
        self.progress = progress
        self.record = Record()
        self.listeners = 0
        shared.hold()
        self._shared = shared
        self._over = over
        self._task = asyncio.create_task(self._run(updates))

    async def stop(self) -> None:
        """Withdraw the work and wait until nothing of it is left; idempotent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._finish(None)  # a task that is cancelled before its first step never runs

    async def _run(self, updates: AsyncGenerator[Update, None]) -> None:
        error: Exception | None = None
        try:
            async with aclosing(updates):
                async for update in updates:
                    self.record.add(update)
        except Exception as caught:
            error = caught
        finally:
            await self._finish(error)

    async def _finish(self, error: Exception | None) -> None:
        if not self.record.ended:
            self.record.end(error)
            self._over(self)
            await self._shared.release()


class Listener:
    """One caller's ear on a job. Its ``file`` stays on disk until ``close``."""

    def __init__(
        self,
        file: AudioFile,
        outcome: Outcome,
        record: Record,
        deadline: float,
        leave: Callable[[], Awaitable[None]],
    ) -> None:
        """``deadline`` is a time of the running loop; ``leave`` is awaited once."""
        self.file = file
        self.outcome = outcome
        self._record = record
        self._deadline = deadline
        self._leave = leave
        self.on_result: Callable[[Update], Awaitable[None]] | None = None
        """Awaited with the update that has the result, before this caller gets it."""
        self._read = 0
        self._left = False

    async def next(self, wait: float | None = None) -> Update | None:
        """The next update, earlier ones first; None when none came within ``wait`` seconds.

        Raises:
            RequestTimedOut: the deadline passed.
            WhisperApiError: the job failed.
        """
        loop = asyncio.get_running_loop()
        until = self._deadline if wait is None else min(self._deadline, loop.time() + wait)
        try:
            async with asyncio.timeout_at(until):
                while self._read >= len(self._record.updates) and not self._record.ended:
                    await self._record.news()
        except TimeoutError:
            if loop.time() >= self._deadline:
                raise RequestTimedOut from None
            return None
        if self._read < len(self._record.updates):
            self._read += 1
            update = self._record.updates[self._read - 1]
            if update.transcript is not None and self.on_result is not None:
                await self.on_result(update)
            return update
        raise self._record.error or ShuttingDown()

    async def transcript(self) -> Transcript:
        """The whole result. Raises the same as ``next``."""
        while True:
            update = await self.next()
            if update is not None and update.transcript is not None:
                return update.transcript

    async def close(self) -> None:
        """Stop listening; the last who does ends the job. Idempotent."""
        if not self._left:
            self._left = True
            await self._leave()


class Jobs:
    """Everything that runs for callers, and what is kept of it. For one event loop."""

    def __init__(self, settings: Settings, pipeline: Streams, metrics: Metrics) -> None:
        """Limits and times come from ``settings``."""
        self._settings = settings
        self._pipeline = pipeline
        self._metrics = metrics
        self._running: dict[Work, Job] = {}
        self._all: set[Job] = set()
        self._cache = Cache(int(settings.result_cache_mb * 1024 * 1024))
        longest = max(settings.result_cache_ttl_s, settings.retry_grace_seconds)
        self._keys: TTLCache[tuple[str, str], Key] = TTLCache(IDEMPOTENCY_KEYS, longest)
        metrics.follow_cache(lambda: self._cache.size)

    def listen(
        self,
        work: Work,
        terms: Terms,
        file: AudioFile,
        scratch: Scratch,
        *,
        deadline: float,
    ) -> Listener:
        """Hear the result of ``work``: stored, of a running job, or of one begun for it.

        The listener waits until ``deadline`` (a time of the running loop), and takes ``scratch``
        (which holds ``file``) over: close it.

        Raises:
            InvalidOption: the idempotency key came with other work before.
        """
        self._claim(work, terms)
        job, shared = self._joinable(work, terms), Shared(scratch)
        kept = self._stored(work, terms)
        if kept is not None and kept.transcript is not None:
            record = Record.of(kept.transcript)
            listener = Listener(file, "hit", record, deadline, shared.release)
        else:
            outcome: Outcome = "joined" if job else "resumed" if kept else "miss"
            job = job or self._start(work, terms, file, scratch, shared, kept)
            listener = Listener(file, outcome, job.record, deadline, self._ear(job, shared))
        self._metrics.reuse.labels(outcome=listener.outcome).inc()
        return listener

    def runs_for(self, owner: str) -> bool:
        """Whether anything runs that a request of ``owner`` might join."""
        return any(work.owner == owner for work in self._running)

    def keeps_windows(self, terms: Terms) -> bool:
        """Whether a caller on such terms who leaves and comes again goes on from there."""
        kept = self._settings.retry_grace_seconds > 0 and self._cache.most > 0
        return terms.keep and kept and self._pipeline.resumes

    def forget(self, owner: str, digest: str) -> None:
        """Drop what is kept of an owner's work on this audio."""
        self._cache.drop((owner, digest))

    async def close(self) -> None:
        """Stop everything that runs."""
        await asyncio.gather(*(job.stop() for job in tuple(self._all)))

    def _claim(self, work: Work, terms: Terms) -> None:
        if terms.idempotency_key is None or not terms.keep:
            return
        name = (work.owner, terms.idempotency_key)
        if self._keys.setdefault(name, work.key) != work.key:
            raise InvalidOption(
                "This Idempotency-Key was used before with other audio or other options.",
                param="Idempotency-Key",
                code="idempotency_key_reused",
            )

    def _shares(self, terms: Terms) -> bool:
        if not terms.keep:
            return False
        return terms.repeats or (terms.reuse and self._settings.result_cache_ttl_s > 0)

    def _joinable(self, work: Work, terms: Terms) -> Job | None:
        return self._running.get(work) if self._shares(terms) else None

    def _stored(self, work: Work, terms: Terms) -> Kept | None:
        kept = self._cache.get(work.key) if self._shares(terms) else None
        # A request without cache may be repeated, but an old result is no attempt of its own.
        may_hit = terms.reuse or terms.idempotency_key is not None
        return None if kept is None or (kept.transcript is not None and not may_hit) else kept

    def _start(
        self,
        work: Work,
        terms: Terms,
        file: AudioFile,
        scratch: Scratch,
        shared: Shared,
        kept: Kept | None,
    ) -> Job:
        progress = Progress()
        if kept is not None and kept.progress is not None:
            progress = Progress(kept.progress.plan, list(kept.progress.results))
        updates = self._pipeline.stream(
            file, work.options, scratch, model=work.model, progress=progress
        )
        job = Job(work, terms.keep, updates, progress, shared, self._retire)
        self._all.add(job)
        if terms.keep:
            self._running[work] = job
        return job

    def _ear(self, job: Job, shared: Shared) -> Callable[[], Awaitable[None]]:
        job.listeners += 1

        async def leave() -> None:
            job.listeners -= 1
            try:
                if not job.listeners:
                    # Before the work has stopped: a retry may come meanwhile.
                    self._retire(job)
                    await job.stop()
            finally:
                await shared.release()

        return leave

    def _retire(self, job: Job) -> None:
        """Nobody may join ``job`` any more; keep what it has; idempotent."""
        if job not in self._all:
            return
        self._all.discard(job)
        if self._running.get(job.work) is job:
            del self._running[job.work]
        if not job.keep:
            return
        grace = self._settings.retry_grace_seconds
        if (transcript := job.record.transcript) is not None:
            seconds = max(grace, self._settings.result_cache_ttl_s)
            self._keep(job.work, Kept(transcript, None, seconds))
        elif job.progress.plan is not None and not isinstance(job.record.error, RequestError):
            done = Progress(job.progress.plan, list(job.progress.results))
            self._keep(job.work, Kept(None, done, grace))

    def _keep(self, work: Work, kept: Kept) -> None:
        self._cache.put(work.key, kept)
        # Without this the text would stay in memory until the next request.
        asyncio.get_running_loop().call_later(kept.seconds + 0.01, self._cache.expire)
