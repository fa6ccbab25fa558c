"""The whole path, and the file to read first: audio file in, transcript out.

Three stages, each usable alone: ``plan`` (waveform -> windows, language, prompt tokens),
``run`` (windows -> decoded windows, batched across requests, order kept) and ``finish``
(decoded windows -> transcript). ``stream`` composes them into one async generator and
``transcribe`` collects it. No state passes from window to window except what the plan holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import TypeVar

from whisper_api.audio.decode import Decoder
from whisper_api.audio.effort import Effort
from whisper_api.audio.envelope import with_speech
from whisper_api.audio.scratch import Scratch
from whisper_api.audio.speech import SpeechDetector, plan_windows
from whisper_api.engines.base import Engine, batch_size_of
from whisper_api.errors import InvalidOption
from whisper_api.ladder import WindowDecoder, load_window, window_key
from whisper_api.languages import english_name
from whisper_api.merge import WindowResult, coverage, window_segments
from whisper_api.metrics import Metrics
from whisper_api.pool import Pool
from whisper_api.prompts import build_prompt
from whisper_api.scheduler import Scheduler, Ticket
from whisper_api.tracing import OFF, Tracing
from whisper_api.types import (
    AudioFile,
    Coverage,
    Envelope,
    Lane,
    Options,
    Plan,
    Segment,
    Transcript,
    Waveform,
    Window,
)
from whisper_api.usage import spend_audio, stages_var

log = logging.getLogger(__name__)
T = TypeVar("T")

VOTES = 4
"""Windows that vote on the language of a file."""


@dataclass(frozen=True, slots=True)
class Update:
    """What a stream yields: the segments of one more window; the last one has the transcript."""

    segments: tuple[Segment, ...]
    done: float  #: audio seconds behind us
    total: float  #: audio seconds altogether
    transcript: Transcript | None = None
    envelope: Envelope | None = None  #: beside the transcript: what a player draws


@dataclass(eq=False, slots=True)
class Progress:
    """How far a request came. Given to ``stream`` again, the work goes on from there.

    Good for the same bytes and options only: windows are sample offsets of that audio.
    """

    plan: Plan | None = None
    results: list[WindowResult] = field(default_factory=list)
    """The decoded windows, a head of ``plan.windows``."""


class Pipeline:
    """Runs requests; holds no state of any."""

    resumes = True

    def __init__(
        self,
        decoder: Decoder,
        detector: SpeechDetector,
        effort: Effort,
        pool: Pool,
        scheduler: Scheduler,
        metrics: Metrics,
        tracing: Tracing = OFF,
    ) -> None:
        self.tracing = tracing
        self._decoder = decoder
        self._detector = detector
        self._effort = effort
        self._pool = pool
        self._scheduler = scheduler
        self._metrics = metrics

    async def transcribe(
        self,
        file: AudioFile,
        options: Options,
        scratch: Scratch,
        *,
        model: str | None = None,
        lane: Lane = Lane.INTERACTIVE,
    ) -> Transcript:
        """The transcript of ``file``; cancelling the call withdraws all of its windows.

        Raises:
            RequestError: the audio or an option is refused.
            CapacityError: the server has no room now.
            ServerError: the engine failed.
        """
        updates = self.stream(file, options, scratch, model=model, lane=lane)
        async with aclosing(updates):
            async for update in updates:
                if update.transcript is not None:
                    return update.transcript
        raise AssertionError("a stream ends with a transcript")

    async def stream(
        self,
        file: AudioFile,
        options: Options,
        scratch: Scratch,
        *,
        model: str | None = None,
        lane: Lane = Lane.INTERACTIVE,
        progress: Progress | None = None,
    ) -> AsyncGenerator[Update, None]:
        """Segments window by window, in order, then the transcript. Close it to cancel.

        ``progress`` is kept up to date; windows that it has already are yielded again, but not
        decoded again. Raises the same as ``transcribe``; everything about the request itself is
        raised before the first update.
        """
        progress = progress if progress is not None else Progress()
        async with (
            self._scheduler.admit(lane, file.duration or 0.0) as ticket,
            self._pool.lease(model) as engine,
        ):
            check_options(engine, options)
            ticket.bind(engine)
            self._effort.expect(file.duration or 0.0)
            with self._timed("decode"):
                waveform = await self._decoder.decode(file, scratch, options)
            if progress.plan is None:
                ticket.resize(waveform.duration)
                await spend_audio(waveform.duration)
            plan = progress.plan or await self.plan(file, waveform, options, engine, ticket)
            progress.plan = plan
            todo = plan.windows[len(progress.results) :]
            ticket.resize(sum(window.duration for window in todo))
            before = _behind(waveform, progress)
            segments: list[Segment] = []

            def update(result: WindowResult) -> Update:
                fresh = window_segments(waveform, result, first_id=len(segments))
                segments.extend(fresh)
                return Update(tuple(fresh), waveform.seconds(result.window.stop), plan.duration)

            for result in tuple(progress.results):
                yield update(result)
            async with aclosing(self.run(plan, waveform, todo, engine, ticket)) as run:
                async for result in run:
                    progress.results.append(result)
                    yield update(result)
            transcript = finish(plan, waveform, progress.results, segments)
            self._metrics.audio_seconds.inc(plan.duration - before)
            envelope = with_speech(waveform, plan.windows)
            yield Update((), plan.duration, plan.duration, transcript, envelope)

    async def plan(
        self,
        file: AudioFile,
        waveform: Waveform,
        options: Options,
        engine: Engine,
        ticket: Ticket,
    ) -> Plan:
        """Stage one: where the speech is, which language it is in, what precedes each window."""
        longest = min(options.chunk_length_s, engine.thresholds.window_seconds)
        options = replace(options, chunk_length_s=longest)
        with self._timed("vad"):
            work = partial(plan_windows, waveform, options, self._detector)
            windows = await self._effort.run(waveform.duration, work)
        with self._timed("language"):
            language, probability = await self._language(
                file, waveform, windows, options, engine, ticket
            )
        prompt = build_prompt(engine, options)
        return Plan(
            model=engine.info.model,
            options=options,
            duration=waveform.duration,
            language=language,
            language_probability=probability,
            windows=tuple(windows),
            first_prompt=prompt.first,
            prompt=prompt.others,
            seed=int(file.digest[:8], 16) & 0x7FFFFFFF,
            warnings=prompt.warnings,
        )

    async def run(
        self,
        plan: Plan,
        waveform: Waveform,
        windows: Sequence[Window],
        engine: Engine,
        ticket: Ticket,
    ) -> AsyncGenerator[WindowResult, None]:
        """Stage two: decode ``windows`` (any slice of the plan's), in order as they finish."""
        decoder = WindowDecoder(plan, waveform, engine, ticket, self._metrics)
        batch = batch_size_of(engine.info, self._scheduler.settings)
        ahead = max(32, 4 * batch * engine.info.replicas)
        running: deque[asyncio.Task[WindowResult]] = deque()
        todo = iter(windows)
        with self._timed("infer"):
            try:
                while True:
                    while len(running) < ahead and (window := next(todo, None)) is not None:
                        running.append(asyncio.create_task(decoder.decode(window)))
                    if not running:
                        return
                    result = await running[0]
                    running.popleft()
                    ticket.settle(result.window.duration)
                    yield result
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)

    async def _language(
        self,
        file: AudioFile,
        waveform: Waveform,
        windows: Sequence[Window],
        options: Options,
        engine: Engine,
        ticket: Ticket,
    ) -> tuple[str, float]:
        if not engine.info.multilingual:
            return "en", 1.0
        if options.language is not None:
            return options.language, 1.0
        candidates = options.languages or engine.info.languages
        voters = voters_of(windows)
        if len(candidates) == 1 or not voters:
            return candidates[0], 1.0 if len(candidates) == 1 else 0.0
        ballots = await asyncio.gather(
            *(
                ticket.detect(
                    window_key(ticket, window),
                    partial(load_window, waveform, window),
                    window.duration,
                )
                for window in voters
            )
        )
        return elect(ballots, [window.voiced or window.duration for window in voters], candidates)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = perf_counter()
        try:
            with self.tracing.span(stage):
                yield
        finally:
            seconds = perf_counter() - started
            self._metrics.stage_seconds.labels(stage=stage).observe(seconds)
            if (stages := stages_var.get()) is not None:
                stages[stage] = stages.get(stage, 0.0) + seconds


def finish(
    plan: Plan,
    waveform: Waveform,
    results: Sequence[WindowResult],
    segments: Sequence[Segment],
) -> Transcript:
    """Stage three: the transcript of a plan whose windows are all decoded."""
    warnings = [warning for result in results for warning in result.warnings]
    return assemble(plan, segments, coverage(waveform, results), warnings, waveform.damaged)


def assemble(
    plan: Plan,
    segments: Sequence[Segment],
    covered: Coverage,
    warnings: Sequence[str],
    damaged: int,
) -> Transcript:
    """As ``finish``, from what was kept of the windows; ``damaged`` counts unreadable packets."""
    damage = f"the file is damaged: {damaged} packets could not be decoded"
    return Transcript(
        task=plan.options.task,
        language=plan.language,
        language_probability=plan.language_probability,
        duration=plan.duration,
        segments=tuple(segments),
        model=plan.model,
        coverage=covered,
        warnings=plan.warnings + ((damage,) if damaged else ()) + tuple(warnings),
    )


def _behind(waveform: Waveform, progress: Progress) -> float:
    """Seconds of audio that need no more work."""
    return waveform.seconds(progress.results[-1].window.stop) if progress.results else 0.0


def check_options(engine: Engine, options: Options) -> None:
    """Refuse what the model cannot do.

    Raises:
        InvalidOption: a language or task that this model does not have.
    """
    info = engine.info
    if not info.multilingual and options.task == "translate":
        raise InvalidOption(
            f"The model {info.model!r} knows English only and cannot translate.", param="model"
        )
    wanted = [("language", options.language)] if options.language else []
    wanted += [("languages[]", code) for code in options.languages]
    known = info.languages if info.multilingual else ("en",)
    for param, code in wanted:
        if code is not None and code not in known:
            names = ", ".join(f"{english_name(c)} ({c})" for c in known[:8])
            more = f" and {len(known) - 8} more" if len(known) > 8 else ""
            raise InvalidOption(
                f"The model {info.model!r} does not know {english_name(code)} ({code}); "
                f"it knows {names}{more}.",
                param=param,
                code="unsupported_language",
            )


def elect(
    ballots: Sequence[dict[str, float]], weights: Sequence[float], candidates: Sequence[str]
) -> tuple[str, float]:
    """The language with most probability over all ballots, among ``candidates``."""
    total = sum(weights) or 1.0
    scores = {
        code: sum(
            ballot.get(code, 0.0) * weight for ballot, weight in zip(ballots, weights, strict=True)
        )
        / total
        for code in candidates
    }
    winner = max(scores, key=lambda code: scores[code])
    mass = sum(scores.values())
    return winner, min(1.0, scores[winner] / mass) if mass > 0 else 0.0


def voters_of(windows: Sequence[Window]) -> list[Window]:
    """Windows spread over the file, in each stretch the one with most speech.

    Those that hold faint sounds alone are asked only where there are no others.
    """
    windows = [window for window in windows if not window.faint] or windows
    count = min(VOTES, len(windows))
    stretches = [
        windows[i * len(windows) // count : (i + 1) * len(windows) // count] for i in range(count)
    ]
    return [max(stretch, key=lambda window: window.voiced) for stretch in stretches]
