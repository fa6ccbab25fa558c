"""How loud audio is where, as a player draws it; measured while decoding, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from whisper_api.types import Envelope, Waveform, Window

MOST_POINTS = 4000
"""Points of one envelope at most: more than a screen shows."""
FINE = 50
"""Points per second while measuring; long audio gets fewer in the end."""
_JOIN_S = 0.05
"""Speech with a shorter gap than this is drawn as one."""


class PeakMeter:
    """Takes 16-bit samples block by block; a byte for each point is all it keeps."""

    def __init__(self, rate: int) -> None:
        """``rate`` in samples per second."""
        self._step = max(1, rate // FINE)
        self._rate = rate
        self._points = bytearray()
        self._waiting: list[NDArray[np.int16]] = []
        self._size = 0

    def add(self, block: NDArray[np.int16]) -> None:
        """The next samples; they must not change afterwards."""
        self._waiting.append(block)
        self._size += block.size
        if self._size >= self._rate:
            self._measure()

    def finish(self) -> Envelope:
        """The envelope of everything so far, as loud as it is."""
        samples = len(self._points) * self._step + self._size
        self._measure()
        if self._size:
            self._measure(np.zeros(self._step - self._size, np.int16))
        points = np.frombuffer(bytes(self._points), np.uint8)
        factor = max(1, -(-points.size // MOST_POINTS))
        padded = np.pad(points, (0, -points.size % factor)).reshape(-1, factor)
        peaks = padded.max(axis=1) if points.size else points
        per_second = self._rate / self._step / factor
        return Envelope(samples / self._rate, per_second, peaks.tobytes().hex())

    def _measure(self, *more: NDArray[np.int16]) -> None:
        samples = np.concatenate([*self._waiting, *more]) if self._waiting or more else None
        if samples is None:
            return
        whole = samples.size // self._step * self._step
        rows = samples[:whole].reshape(-1, self._step)
        if rows.size:
            highest = np.maximum(rows.max(axis=1).astype(np.int32), -rows.min(axis=1).astype(int))
            self._points += (np.minimum(highest, 32767) >> 7).astype(np.uint8).tobytes()
        rest = samples[whole:]
        self._waiting, self._size = ([rest] if rest.size else []), rest.size


def with_speech(waveform: Waveform, windows: Iterable[Window]) -> Envelope | None:
    """The waveform's envelope with the speech that was found in it."""
    if waveform.envelope is None:
        return None
    joined: list[list[float]] = []
    for first, last in (span for window in windows for span in window.spans):
        start, stop = waveform.seconds(first), waveform.seconds(last)
        if joined and start - joined[-1][1] < _JOIN_S:
            joined[-1][1] = max(stop, joined[-1][1])
        elif stop > start:
            joined.append([start, stop])
    speech = tuple((round(start, 3), round(stop, 3)) for start, stop in joined)
    return replace(waveform.envelope, speech=speech)


def peaks_of(envelope: Envelope) -> list[float]:
    """The peaks as numbers from 0 to 1."""
    return [round(value / 255, 3) for value in bytes.fromhex(envelope.peaks)]
