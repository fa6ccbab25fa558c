"""What turns windows of audio into what a decoder reads; CTranslate2's own, and the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from whisper_api import features
from whisper_api.engines.encodings import Encoding
from whisper_api.engines.steps import step
from whisper_api.engines.timing import ENGINE_CLOCK
from whisper_api.types import SAMPLE_RATE, Audio

_LENGTHS = (2, 4, 6, 8, 10, 12, 15, 20, 25, 30)
"""Seconds that short windows are filled up to, so that many have the same length: only equal ones
share a batch, and each new length costs OpenVINO some compiling."""
_TAIL = 0.5
"""Seconds of silence that a shortened window keeps at its end."""


class Encoder(Protocol):
    """Blocking and thread-safe; a window's result does not depend on its neighbours."""

    name: str  #: of the library and its number format, for people
    streams: int  #: that run at the same time without taking time from each other

    def encode(self, audios: Sequence[Audio]) -> list[Encoding]:
        """The encodings, in order.

        Raises:
            RuntimeError, ValueError, MemoryError: what the library raises.
        """
        ...


class OwnEncoder:
    """The encoder of a model that CTranslate2 loaded.

    On a processor a batch is slower than one window after another (measured), so they go singly.
    """

    def __init__(self, model: Any, library: Any, shortens: bool, streams: int = 1) -> None:
        self.name = f"ctranslate2 {model.compute_type}"
        self._model = model
        self._library = library
        self._shortens = shortens
        self.streams = streams

    def encode(self, audios: Sequence[Audio]) -> list[Encoding]:
        """See ``Encoder``."""
        found: list[Encoding] = []
        size = 1 if self._model.device == "cpu" else len(audios) or 1
        for first in range(0, len(audios), size):
            step()
            part = audios[first : first + size]
            found += self._run([spectrogram(a, self._model.n_mels, self._shortens) for a in part])
        return found

    def _run(self, mels: Sequence[Audio]) -> list[Encoding]:
        if len({mel.shape for mel in mels}) > 1:
            return [encoding for mel in mels for encoding in self._run([mel])]
        view = self._library.StorageView.from_array(np.stack(mels))
        with ENGINE_CLOCK.time("encode"):
            output = np.array(self._model.encode(view, to_cpu=True))
        return [output[i : i + 1] for i in range(len(mels))]


def spectrogram(audio: Audio, mels: int, shortens: bool) -> Audio:
    """Float32 ``[mels, frames]``: of 30 s, or of little more than the audio is long."""
    frames = frames_for(audio.size) if shortens else features.FRAMES
    with ENGINE_CLOCK.time("features"):
        return features.log_mel(audio, mels, frames)


def frames_for(samples: int) -> int:
    """Mel frames of a shortened window; depends on nothing but its own length."""
    seconds = samples / SAMPLE_RATE + _TAIL
    length = next((length for length in _LENGTHS if length >= seconds), _LENGTHS[-1])
    return length * SAMPLE_RATE // features.HOP
