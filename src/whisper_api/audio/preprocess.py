"""The old sox chain and loudness, as passes over PCM on disk in bounded memory.

The chain of old installations was: mono at ``audio_rate``, ``sox norm``, ``sox compand``, then
2 s of silence in front and 1 s behind. libav's compand takes the same figures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whisper_api.config import Settings
from whisper_api.errors import SettingsError
from whisper_api.types import SAMPLE_RATE

LEAD = 2 * SAMPLE_RATE
"""Samples of silence in front of the old chain's output."""
TAIL = SAMPLE_RATE
"""Samples of silence behind it."""
OLD_RATE, OLD_LEVEL = 8000, -0.5
OLD_COMPAND = "0.3,1 -90,-90,-70,-70,-60,-20,0,0 -5 0 0.2"
"""Defaults of the old server for stages that a config leaves out."""

BLOCK = 1 << 18  # samples read at a time
LOUDNESS_TARGET = -20.0
"""Gated level in dB (RMS of full scale) that loudness normalisation aims at."""
_CEILING = 10 ** (-1 / 20)
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"

Pcm = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Compand:
    """The figures of sox's ``compand``; times in seconds, levels in dB."""

    attack: float
    decay: float
    points: tuple[tuple[float, float], ...]
    knee: float = 0.01
    gain: float = 0.0
    volume: float = 0.0
    delay: float = 0.0

    def filter_args(self) -> str:
        """The same as arguments of libav's compand filter."""
        points = "|".join(f"{a:g}/{b:g}" for a, b in self.points)
        return (
            f"attacks={self.attack:g}:decays={self.decay:g}:points={points}:"
            f"soft-knee={self.knee:g}:gain={self.gain:g}:volume={self.volume:g}:"
            f"delay={self.delay:g}"
        )


@dataclass(frozen=True, slots=True)
class OldChain:
    """One installation's chain."""

    rate: int
    level: float  #: dB of full scale for the peak
    compand: Compand


def old_chain(settings: Settings) -> OldChain | None:
    """The chain that the settings ask for, None when they name no part of it.

    Raises:
        SettingsError: ``compand_params`` is not in sox's syntax.
    """
    if not settings.preprocess:
        return None
    level = settings.norm_level
    return OldChain(
        rate=settings.audio_rate or OLD_RATE,
        level=OLD_LEVEL if level is None else level,
        compand=parse_compand(settings.compand_params or OLD_COMPAND),
    )


def parse_compand(text: str) -> Compand:
    """Figures in sox's syntax: ``attack,decay [knee:]in,out{,in,out} [gain [volume [delay]]]``.

    Raises:
        SettingsError: anything else.
    """
    parts = text.split()
    try:
        if not 2 <= len(parts) <= 5:
            raise ValueError("2 to 5 groups separated by spaces are needed")
        attack, decay = _numbers(parts[0], 2)
        knee, _, curve = parts[1].rpartition(":")
        flat = _numbers(curve)
        if len(flat) % 2 or len(flat) < 2:
            raise ValueError("the curve needs pairs of levels")
        points = tuple(zip(flat[::2], flat[1::2], strict=True))
        if any(a[0] >= b[0] for a, b in pairwise(points)):
            raise ValueError("input levels must rise")
        rest = [_numbers(part, 1)[0] for part in parts[2:]]
        gain, volume, delay = [*rest, 0.0, 0.0, 0.0][:3]
    except ValueError as error:
        raise SettingsError(f"compand_params: {text!r} is not sox's syntax: {error}.") from error
    if attack < 0 or decay < 0 or not 0 <= delay <= 10:
        raise SettingsError("compand_params: times are 0 or more, and the delay at most 10 s.")
    return Compand(attack, decay, points, float(knee) if knee else 0.01, gain, volume, delay)


def run_chain(chain: OldChain, source: Path, target: Path, peak: float) -> tuple[int, float]:
    """Pass two: ``source`` (s16 at the chain's rate) normalised, companded, at 16 kHz, padded.

    Returns the samples written, silence included, and the new peak.
    """
    gain = 10 ** (chain.level / 20) / peak if peak > 0 else 1.0
    samples, top = LEAD + TAIL, 0
    with target.open("wb") as out:
        out.write(bytes(2 * LEAD))
        for block in _companded(chain, source, gain):
            samples += block.size
            if block.size:
                top = max(top, int(block.max()), -int(block.min()))
            out.write(block.tobytes())
        out.write(bytes(2 * TAIL))
    return samples, min(1.0, top / 32768)


def loudness_gain(source: Path, peak: float) -> float:
    """The factor that brings 16 kHz PCM to ``LOUDNESS_TARGET`` without clipping; 1 for silence.

    The level is gated as in ITU-R BS.1770 (blocks of 400 ms, absolute gate at -70 dB, relative
    gate 10 dB under the mean) but not frequency-weighted.
    """
    size = SAMPLE_RATE * 2 // 5
    powers = np.concatenate([_block_powers(block, size) for block in read_pcm(source, 50 * size)])
    loud = powers[powers > 1e-7]
    if peak <= 0 or loud.size == 0:
        return 1.0
    loud = loud[loud > loud.mean() / 10]
    wanted = float(10 ** (LOUDNESS_TARGET / 20) / np.sqrt(loud.mean()))
    return min(wanted, _CEILING / peak) if wanted > 1 else wanted


def write_gain(source: Path, target: Path, gain: float) -> None:
    """``source`` times ``gain`` into ``target``, clipped to 16 bits."""
    with target.open("wb") as out:
        for block in read_pcm(source):
            scaled = np.rint(block.astype(np.float32) * gain)
            out.write(np.clip(scaled, -32768, 32767).astype("<i2").tobytes())


def read_pcm(source: Path, block: int = BLOCK) -> Iterator[Pcm]:
    """The samples of a PCM file, ``block`` at a time."""
    with source.open("rb") as file:
        while raw := file.read(2 * block):
            yield np.frombuffer(raw, "<i2")


def _block_powers(block: Pcm, size: int) -> NDArray[np.float64]:
    whole = block.size // size * size
    parts = [block[:whole].reshape(-1, size)] if whole else []
    if whole < block.size:
        parts.append(block[whole:].reshape(1, -1))
    return np.concatenate([np.mean((p / 32768.0) ** 2, axis=1) for p in parts])


def _companded(chain: OldChain, source: Path, gain: float) -> Iterator[Pcm]:
    import av
    import av.filter
    from av.audio.frame import AudioFrame

    graph = av.filter.Graph()
    nodes = [
        graph.add_abuffer(format="s16", sample_rate=chain.rate, layout="mono"),
        graph.add("aformat", "sample_fmts=dblp"),
        graph.add("volume", f"volume={gain:.9g}:precision=double"),
        graph.add("compand", chain.compand.filter_args()),
        graph.add("aresample", str(SAMPLE_RATE)),
        graph.add("aformat", f"sample_fmts=s16:sample_rates={SAMPLE_RATE}"),
        graph.add("abuffersink"),
    ]
    for one, two in pairwise(nodes):
        one.link_to(two)
    graph.configure()
    for block in read_pcm(source, 1 << 14):
        frame = AudioFrame.from_ndarray(block.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = chain.rate
        frame.pts = None
        graph.push(frame)
        yield from _pull(graph)
    graph.push(None)
    yield from _pull(graph)


def _pull(graph: Any) -> Iterator[Pcm]:
    while True:
        try:
            frame = graph.pull()
        except (BlockingIOError, EOFError):
            return
        if frame.samples:
            yield np.frombuffer(memoryview(frame.planes[0])[: 2 * frame.samples], "<i2")


def _numbers(text: str, count: int | None = None) -> list[float]:
    parts = text.split(",")
    if any(not re.fullmatch(_NUMBER, part) for part in parts):
        raise ValueError(f"{text!r} is not a list of numbers")
    if count is not None and len(parts) != count:
        raise ValueError(f"{text!r} should be {count} number(s)")
    return [float(part) for part in parts]
