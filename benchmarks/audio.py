"""Files for benchmarks, cut from one recording."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np


def stretched(clip: Path, seconds: float) -> bytes:
    """``clip`` again and again, with pauses of 0.1 to 0.4 s, for about ``seconds``.

    The pauses are too short for a voice detector to take out: who cuts windows at silence and who
    joins what is left then have about the same number of windows.
    """
    with wave.open(str(clip)) as file:
        rate = file.getframerate()
        voice = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    rng, parts, length = np.random.default_rng(0), list[np.ndarray](), 0
    while length < seconds * rate:
        pause = np.zeros(int(rng.uniform(0.1, 0.4) * rate), "<i2")
        parts += [voice, pause]
        length += len(voice) + len(pause)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(np.concatenate(parts)[: int(seconds * rate)].tobytes())
    return buffer.getvalue()


def clip_of(source: Path, target: Path, seconds: float) -> Path:
    """``target`` with the first ``seconds`` of a WAV file, repeated where it is shorter."""
    with wave.open(str(source)) as file:
        rate, voice = file.getframerate(), file.readframes(file.getnframes())
    size = 2 * int(seconds * rate)
    with wave.open(str(target), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((voice * (size // len(voice) + 1))[:size])
    return target


def seconds_of(path: Path) -> float:
    """Length of a WAV file."""
    with wave.open(str(path)) as file:
        return file.getnframes() / file.getframerate()
