"""Decodes one window until it is good: the temperature ladder, then the rescue of gaps.

Temperature 0 means Whisper's fallback (Radford et al. 2022, section 4.5): a decoding that
loops or is too improbable is tried again at rising temperatures. Failed windows go back to the
scheduler one by one, which packs those of equal temperature and seed. Speech that ended up
without text is decoded once more alone. Both draw on one budget per request.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from whisper_api.engines.base import Decoded, DecodeParams, Engine
from whisper_api.merge import WindowResult, delayed
from whisper_api.metrics import Metrics
from whisper_api.quality import Verdict, best, judge, uncovered
from whisper_api.scheduler import Ticket
from whisper_api.types import SAMPLE_RATE, Audio, Plan, Waveform, Window

GAP_SECONDS = 2.0
"""Speech of this length without text is decoded again."""
GAP_MARGIN = SAMPLE_RATE // 4
"""Samples of context on both sides of a gap that is decoded again."""


class Budget:
    """Second attempts left to one request: twice its windows and a few more."""

    def __init__(self, windows: int) -> None:
        self.left = 2 * windows + 8

    def take(self) -> bool:
        """Whether one more attempt may be made; counts it."""
        self.left -= 1
        return self.left >= 0


class WindowDecoder:
    """Decodes the windows of one plan."""

    def __init__(
        self, plan: Plan, waveform: Waveform, engine: Engine, ticket: Ticket, metrics: Metrics
    ) -> None:
        self._plan = plan
        self._waveform = waveform
        self._engine = engine
        self._ticket = ticket
        self._metrics = metrics
        self._budget = Budget(len(plan.windows))

    async def decode(self, window: Window) -> WindowResult:
        """The accepted decoding of ``window``, or none where it holds no speech."""
        key = window_key(self._ticket, window)
        try:
            decoded, warnings = await self._ladder(key, window)
            if decoded is None:
                return WindowResult(window, None, warnings)
            return WindowResult(window, decoded, warnings, await self._rescue(window, decoded))
        finally:
            self._engine.release([key])

    async def _ladder(self, key: str, window: Window) -> tuple[Decoded | None, tuple[str, ...]]:
        thresholds = self._engine.thresholds
        attempts: list[Decoded] = []
        for temperature in self._temperatures():
            if attempts and not self._budget.take():
                break
            decoded = await self._attempt(key, window, temperature)
            match judge(decoded, thresholds, window.faint):
                case Verdict.GOOD:
                    return decoded, ()
                case Verdict.SILENT:
                    return None, ()
                case Verdict.LOOP | Verdict.UNSURE:
                    attempts.append(decoded)
                    self._metrics.fallbacks.inc()
        chosen = best(attempts, thresholds)
        if chosen.compression_ratio > thresholds.compression_ratio:
            start = self._waveform.seconds(window.start)
            return chosen, (f"the text from {start:.1f} s on repeats itself and may be wrong",)
        return chosen, ()

    async def _rescue(self, window: Window, decoded: Decoded) -> tuple[Decoded, ...]:
        if not self._plan.options.vad.enabled:
            return ()  # without VAD nobody knows that there is speech in a gap
        found: list[Decoded] = []
        for start, stop in uncovered(window, decoded, GAP_SECONDS):
            gap = _gap_window(window, start, stop)
            if gap is None or not self._budget.take():
                continue
            key = f"{window_key(self._ticket, window)}+{start}"
            again = await self._attempt(key, gap, self._temperatures()[0])
            self._engine.release([key])
            if again.text.strip() and judge(again, self._engine.thresholds) is Verdict.GOOD:
                found.append(delayed(again, (gap.start - window.start) / SAMPLE_RATE))
                self._metrics.rescues.inc()
        return tuple(found)

    async def _attempt(self, key: str, window: Window, temperature: float) -> Decoded:
        plan, options = self._plan, self._plan.options
        params = DecodeParams(
            language=plan.language,
            task=options.task,
            beam_size=options.beam_size,
            temperature=temperature,
            seed=plan.seed,
            prompt=plan.first_prompt if window.index == 0 else plan.prompt,
            max_new_tokens=options.max_new_tokens,
            words=options.word_timestamps,
            logprobs=options.logprobs,
        )
        load = partial(load_window, self._waveform, window)
        return await self._ticket.decode(key, load, window.duration, params, window.index)

    def _temperatures(self) -> Sequence[float]:
        asked = self._plan.options.temperature
        return self._engine.thresholds.temperatures if asked == 0 else (asked,)


def window_key(ticket: Ticket, window: Window) -> str:
    """A name for the window's audio, unique while its request lives."""
    return f"{id(ticket):x}:{window.index}"


def load_window(waveform: Waveform, window: Window) -> Audio:
    """The window's samples, read from disk; runs in a worker thread."""
    return waveform.read(window.start, window.stop)


def _gap_window(window: Window, start: int, stop: int) -> Window | None:
    """The gap with some context; None where it is nearly the whole window again."""
    first = max(window.start, start - GAP_MARGIN)
    last = min(window.stop, stop + GAP_MARGIN)
    if last - first > 0.9 * (window.stop - window.start):
        return None
    return Window(window.index, first, last, (stop - start) / SAMPLE_RATE, ((start, stop),))
