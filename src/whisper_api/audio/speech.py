"""Where speech is.

Silero VAD (github.com/snakers4/silero-vad, MIT; the ONNX file that faster-whisper ships) runs
over the waveform block by block with its state carried, so any length takes the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from whisper_api.audio.cuts import FRAME, Activity, Span, Values, cut_windows, energy_of
from whisper_api.audio.faint import doubted, emphasised, faint_runs, joined
from whisper_api.errors import ModelBroken
from whisper_api.types import SAMPLE_RATE, Audio, Options, VadOptions, Waveform, Window

_CONTEXT = 64
_BLOCK = 512 * FRAME  # samples read at a time: 16 s
_HYSTERESIS = 0.15
_PER_MS = SAMPLE_RATE // 1000
_HEAD = 64 * FRAME  # 2 s
_PAUSE = np.zeros((6, FRAME), np.float32)


class Cancelled(Exception):
    """The caller no longer wants the result."""


class SpeechDetector:
    """The loaded VAD; thread-safe, holds no state between calls."""

    def __init__(self) -> None:
        """Load the model (a third of a second).

        Raises:
            ModelBroken: the file is missing from the installation.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = options.intra_op_num_threads = 1
        # The arena would keep the memory of the largest block for good.
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(
            str(_model_path()), providers=["CPUExecutionProvider"], sess_options=options
        )

    def probabilities(
        self, audio: Audio, *, block: int = _BLOCK, cancelled: Callable[[], bool] = lambda: False
    ) -> Values:
        """Speech probability of every frame of ``FRAME`` samples of audio in memory.

        ``block`` (samples, a multiple of ``FRAME``) does not change the result.

        Raises:
            Cancelled: ``cancelled()`` became true between two blocks.
        """
        blocks = (audio[at : at + block] for at in range(0, audio.size, block))
        activity = Activity.silent(audio.size)
        self._hear(blocks, activity, cancelled)
        return activity.speech

    def find_speech(
        self,
        waveform: Waveform,
        vad: VadOptions,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[Span]:
        """Stretches of speech in a waveform, as ``find_spans`` gives them, with faint ones.

        Raises:
            Cancelled: ``cancelled()`` became true between two blocks.
        """
        return _hear_out(self.listen(waveform, cancelled), waveform.samples, vad)[0]

    def listen(self, waveform: Waveform, cancelled: Callable[[], bool] = lambda: False) -> Activity:
        """Speech and energy of every frame, read from disk in one go.

        Raises:
            Cancelled: ``cancelled()`` became true between two blocks.
        """
        activity = Activity.silent(waveform.samples)
        self._hear(read_blocks(waveform), activity, cancelled)
        # The detector starts deaf: a word at the very start, such as a lone digit cut to its
        # sound, is heard only by one that has already listened for a moment.
        head = _frames(waveform.read(0, _HEAD))
        again = self.probabilities(np.vstack([head, _PAUSE, head]).reshape(-1))
        first = activity.speech[: len(head)]
        np.maximum(first, again[len(head) + len(_PAUSE) :][: first.size], out=first)
        return activity

    def _hear(
        self, blocks: Iterable[Audio], activity: Activity, cancelled: Callable[[], bool]
    ) -> None:
        """Fill ``activity`` from blocks of whole frames (the last may end early).

        The results have their place from the start: were each block's kept by itself, these
        small arrays would hold the freed memory of the large ones apart for hours of audio.
        """
        h: Any = np.zeros((1, 1, 128), np.float32)
        c: Any = np.zeros((1, 1, 128), np.float32)
        before = np.zeros(_CONTEXT, np.float32)
        at = 0
        for block in blocks:
            if cancelled():
                raise Cancelled
            frames = _frames(block)
            heads = np.vstack([before[None], frames[:-1, -_CONTEXT:]])
            before = frames[-1, -_CONTEXT:].copy()
            inputs = np.concatenate([heads, frames], axis=1)
            out, h, c = self._session.run(None, {"input": inputs, "h": h, "c": c})
            here = slice(at, at + len(frames))
            activity.speech[here] = np.asarray(out).reshape(-1)
            activity.energy[here] = energy_of(frames)
            at += len(frames)


def plan_windows(
    waveform: Waveform,
    options: Options,
    detector: SpeechDetector,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Window]:
    """The windows of a waveform; none where it holds no speech.

    With VAD off the whole file is tiled, cut at quiet places.

    Raises:
        Cancelled: ``cancelled()`` became true between two blocks.
    """
    longest = int(options.chunk_length_s * SAMPLE_RATE)
    if options.vad.enabled:
        heard = detector.listen(waveform, cancelled)
        spans, sure, activity = _hear_out(heard, waveform.samples, options.vad)
    else:
        activity = _loudness(waveform, cancelled)
        spans = [(0, waveform.samples)]
        sure = [(0, activity.speech.size)]
    if cancelled():  # where long work gives way, too
        raise Cancelled
    windows = cut_windows(spans, activity, longest, _unvoiced(options.vad.threshold))
    return doubted(windows, sure)


def find_spans(speech: Values, samples: int, vad: VadOptions) -> list[Span]:
    """Stretches of certain speech as sample pairs: ascending, padded, never overlapping.

    Speech starts at ``threshold`` and ends after ``min_silence_ms`` under it less 0.15.
    """
    return _padded(_runs(speech, vad, vad.threshold), samples, vad)


def _hear_out(
    activity: Activity, samples: int, vad: VadOptions
) -> tuple[list[Span], list[Span], Activity]:
    """Spans with the faint ones, runs of frames that are surely speech, and what to cut by."""
    sure = _runs(activity.speech, vad, vad.threshold)
    possible = _runs(activity.speech, vad, vad.threshold * vad.faint) if vad.faint < 1 else []
    faint = faint_runs(activity, possible, sure, vad.min_speech_ms * _PER_MS)
    if faint:
        activity = emphasised(activity, faint, 1 / vad.faint)
    return _padded(joined(sure, faint), samples, vad), sure, activity


def read_blocks(waveform: Waveform, block: int = _BLOCK) -> Iterator[Audio]:
    """The waveform's samples, ``block`` at a time."""
    for start in range(0, waveform.samples, block):
        yield waveform.read(start, start + block)


def _frames(block: Audio) -> Audio:
    """The block as rows of ``FRAME`` samples, the last one filled with zeros."""
    return np.pad(block, (0, -block.size % FRAME)).reshape(-1, FRAME)


def _loudness(waveform: Waveform, cancelled: Callable[[], bool]) -> Activity:
    """Energy alone, for a caller who does not trust the detector."""
    activity = Activity.silent(waveform.samples)
    at = 0
    for block in read_blocks(waveform):
        if cancelled():
            raise Cancelled
        frames = _frames(block)
        activity.energy[at : at + len(frames)] = energy_of(frames)
        at += len(frames)
    return activity


def _model_path() -> Path:
    spec = find_spec("faster_whisper")
    folder = Path(spec.origin).parent / "assets" if spec and spec.origin else Path()
    files = sorted(folder.glob("silero_vad*.onnx"))
    if not files:
        raise ModelBroken("The speech detector's model is missing; reinstall faster-whisper.")
    return files[-1]


def _unvoiced(threshold: float) -> float:
    """The probability under which speech, once begun, pauses."""
    return max(threshold - _HYSTERESIS, 0.01)


def _runs(speech: Values, vad: VadOptions, threshold: float) -> list[Span]:
    """Frame pairs of speech that is long enough."""
    silence = max(1, vad.min_silence_ms * _PER_MS // FRAME)
    low = _unvoiced(threshold) if threshold == vad.threshold else threshold / 2
    return [run for run in _all_runs(speech, threshold, low, silence) if _long_enough(*run, vad)]


def _long_enough(first: int, last: int, vad: VadOptions) -> bool:
    return (last - first) * FRAME >= vad.min_speech_ms * _PER_MS


def _all_runs(speech: Values, threshold: float, low: float, silence: int) -> Iterator[Span]:
    """Frame pairs: from a frame at ``threshold`` to ``silence`` frames under the lower one."""
    likely = speech.astype(np.float64)  # so that the thresholds are not rounded
    turns = np.diff(np.concatenate([[0], likely < low, [0]]).astype(np.int8))
    firsts, lasts = np.flatnonzero(turns > 0), np.flatnonzero(turns < 0)
    pauses = lasts - firsts >= silence
    end = firsts[-1] if firsts.size and lasts[-1] == speech.size else speech.size
    loud = np.flatnonzero(likely >= threshold)
    for start, stop in zip([0, *lasts[pauses]], [*firsts[pauses], end], strict=True):
        at = int(np.searchsorted(loud, start))
        if at < loud.size and loud[at] < stop:
            yield int(loud[at]), int(stop)


def _padded(runs: Sequence[Span], samples: int, vad: VadOptions) -> list[Span]:
    """Frames to samples, every span padded on both sides, neighbours meeting half-way."""
    pad = vad.speech_pad_ms * _PER_MS
    spans = [(first * FRAME, min(last * FRAME, samples)) for first, last in runs]
    padded: list[Span] = []
    for index, (start, stop) in enumerate(spans):
        left = spans[index - 1][1] if index else 0
        right = spans[index + 1][0] if index + 1 < len(spans) else samples
        before = pad if index == 0 else min(pad, (start - left) // 2)
        after = pad if index + 1 == len(spans) else min(pad, (right - stop) // 2)
        padded.append((max(0, start - before), min(samples, stop + after)))
    return padded
