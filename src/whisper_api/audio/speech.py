"""Where speech is, and how it is cut into windows.

Silero VAD (github.com/snakers4/silero-vad, MIT; the ONNX file that faster-whisper ships) runs
over the waveform block by block with its state carried, so any length takes the same memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whisper_api.errors import ModelBroken
from whisper_api.types import SAMPLE_RATE, Audio, Options, VadOptions, Waveform, Window

FRAME = 512
"""Samples that get one speech probability (32 ms)."""
_CONTEXT = 64
_BLOCK = 2048 * FRAME  # samples read at a time: 65 s
_HYSTERESIS = 0.15
Span = tuple[int, int]
Probabilities = NDArray[np.float32]


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
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(
            str(_model_path()), providers=["CPUExecutionProvider"], sess_options=options
        )
        self._lock = threading.Lock()

    def probabilities(
        self, blocks: Iterator[Audio], cancelled: Callable[[], bool] = lambda: False
    ) -> Probabilities:
        """Speech probability of every frame of ``FRAME`` samples.

        ``blocks`` hold whole frames each, except that the last may end early.

        Raises:
            Cancelled: ``cancelled()`` became true between two blocks.
        """
        h: Any = np.zeros((1, 1, 128), np.float32)
        c: Any = np.zeros((1, 1, 128), np.float32)
        before = np.zeros(_CONTEXT, np.float32)
        found: list[Probabilities] = []
        for block in blocks:
            if cancelled():
                raise Cancelled
            if block.size % FRAME:
                block = np.pad(block, (0, FRAME - block.size % FRAME))
            frames = block.reshape(-1, FRAME)
            heads = np.vstack([before[None], frames[:-1, -_CONTEXT:]])
            before = frames[-1, -_CONTEXT:].copy()
            inputs = np.concatenate([heads, frames], axis=1)
            out, h, c = self._session.run(None, {"input": inputs, "h": h, "c": c})
            found.append(np.asarray(out, np.float32).reshape(-1))
        return np.concatenate(found) if found else np.zeros(0, np.float32)


def plan_windows(
    waveform: Waveform,
    options: Options,
    detector: SpeechDetector,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Window]:
    """The windows of a waveform; none where it holds no speech.

    With VAD off the whole file is tiled, cut at quiet places.
    """
    longest = int(options.chunk_length_s * SAMPLE_RATE)
    if not options.vad.enabled and waveform.samples <= longest:
        whole = (0, waveform.samples)
        return [Window(0, *whole, waveform.samples / SAMPLE_RATE, (whole,))]
    speech = detector.probabilities(read_blocks(waveform), cancelled)
    if options.vad.enabled:
        spans = find_spans(speech, waveform.samples, options.vad)
    else:
        spans = [(0, waveform.samples)]
    return cut_windows(spans, speech, longest)


def find_spans(speech: Probabilities, samples: int, vad: VadOptions) -> list[Span]:
    """Stretches of speech as sample pairs: ascending, padded, never overlapping.

    Speech starts at ``threshold`` and ends after ``min_silence_ms`` under it less 0.15.
    """
    per_ms = SAMPLE_RATE // 1000
    silence = max(1, vad.min_silence_ms * per_ms // FRAME)
    shortest = vad.min_speech_ms * per_ms
    spans: list[Span] = []
    for first, last in _runs(speech, vad.threshold, silence):
        if (last - first) * FRAME >= shortest:
            spans.append((first * FRAME, min(last * FRAME, samples)))
    return _padded(spans, vad.speech_pad_ms * per_ms, samples)


def cut_windows(spans: Sequence[Span], speech: Probabilities, longest: int) -> list[Window]:
    """Windows of at most ``longest`` samples that tile the speech exactly.

    Longer speech is cut where it is least likely to be speech; neighbours are joined as long
    as they fit, silence between them included.
    """
    pieces = [piece for span in spans for piece in _split(span, speech, longest)]
    groups: list[list[Span]] = []
    for piece in pieces:
        if groups and piece[1] - groups[-1][0][0] <= longest:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return [
        Window(
            index=index,
            start=group[0][0],
            stop=group[-1][1],
            voiced=sum(b - a for a, b in group) / SAMPLE_RATE,
            spans=_joined(group),
        )
        for index, group in enumerate(groups)
    ]


def read_blocks(waveform: Waveform, block: int = _BLOCK) -> Iterator[Audio]:
    """The waveform's samples, ``block`` at a time."""
    for start in range(0, waveform.samples, block):
        yield waveform.read(start, start + block)


def _model_path() -> Path:
    spec = find_spec("faster_whisper")
    folder = Path(spec.origin).parent / "assets" if spec and spec.origin else Path()
    files = sorted(folder.glob("silero_vad*.onnx"))
    if not files:
        raise ModelBroken("The speech detector's model is missing; reinstall faster-whisper.")
    return files[-1]


def _runs(speech: Probabilities, threshold: float, silence: int) -> Iterator[Span]:
    """Frame pairs: from a frame at ``threshold`` to ``silence`` frames under the lower one."""
    low = max(threshold - _HYSTERESIS, 0.01)
    start, quiet = -1, 0
    for frame, value in enumerate(speech.tolist()):
        if value >= threshold and start < 0:
            start, quiet = frame, 0
        elif start >= 0:
            quiet = quiet + 1 if value < low else 0
            if quiet >= silence:
                yield start, frame + 1 - quiet
                start = -1
    if start >= 0:
        yield start, speech.size - quiet


def _padded(spans: Sequence[Span], pad: int, samples: int) -> list[Span]:
    """Every span ``pad`` samples longer on both sides, neighbours meeting half-way."""
    padded: list[Span] = []
    for index, (start, stop) in enumerate(spans):
        left = spans[index - 1][1] if index else 0
        right = spans[index + 1][0] if index + 1 < len(spans) else samples
        before = pad if index == 0 else min(pad, (start - left) // 2)
        after = pad if index + 1 == len(spans) else min(pad, (right - stop) // 2)
        padded.append((max(0, start - before), min(samples, stop + after)))
    return padded


def _split(span: Span, speech: Probabilities, longest: int) -> list[Span]:
    """``span`` in parts of at most ``longest``, cut in the last third at the least speech."""
    start, stop = span
    parts: list[Span] = []
    while stop - start > longest:
        first = -(-(start + longest * 2 // 3) // FRAME)
        last = (start + longest) // FRAME
        choice = speech[first:last]
        cut = (
            (first + int(choice.argmin())) * FRAME + FRAME // 2 if choice.size else start + longest
        )
        cut = min(max(cut, start + 1), start + longest)
        parts.append((start, cut))
        start = cut
    parts.append((start, stop))
    return parts


def _joined(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Spans with those that touch made one."""
    joined: list[Span] = []
    for start, stop in spans:
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)
