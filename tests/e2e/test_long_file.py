"""Long files: every marker once, on time, in bounded memory; the bundled model keeps its recall."""

from __future__ import annotations

import re
import sys
import wave
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from whisper_api.config import Settings
from whisper_api.engines.fake import MARKER_SAMPLES, make_marker
from whisper_api.runtime import open_runtime
from whisper_api.types import SAMPLE_RATE, Options, Transcript, VadOptions

RATE = SAMPLE_RATE
pytestmark = pytest.mark.slow


def resident_mb() -> float:
    """Peak resident memory of this process in MiB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM")


def write_wav(path: Path, minutes: float, place: list[tuple[int, np.ndarray]]) -> None:
    """A recording of so many minutes with sounds at sample offsets, written a minute at a time."""
    step = 60 * RATE
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        for first in range(0, int(minutes * step), step):
            block = np.zeros(step, np.float32)
            for at, sound in place:
                if first <= at and at + sound.size <= first + step:
                    block[at - first : at - first + sound.size] = sound
            file.writeframes((block * 32767).astype("<i2").tobytes())


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
async def test_one_hour_of_markers(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    count = 1000
    starts = [int((3.6 * n + 0.1 + rng.uniform(0, 3.0)) * RATE) for n in range(count)]
    starts = [at for at in starts if at % (60 * RATE) + MARKER_SAMPLES <= 60 * RATE]
    write_wav(tmp_path / "hour.wav", 60, [(at, make_marker(n)) for n, at in enumerate(starts)])
    settings = Settings(engine="fake", model_path="fake", data_dir=tmp_path / "data")
    options = Options(language="en", vad=VadOptions(enabled=False))
    async with open_runtime(settings) as runtime:
        before = resident_mb()
        result = await runtime.transcribe_path(tmp_path / "hour.wav", options)
        grown = resident_mb() - before
    found = [(segment.text, segment.start) for segment in result.segments]
    assert [text for text, _ in found] == [f" marker-{n:04d}" for n in range(len(starts))]
    assert max(abs(at - s / RATE) for (_, at), s in zip(found, starts, strict=True)) < 0.02
    assert grown < 150


@dataclass(frozen=True)
class Phrase:
    start: float
    text: str


def phrases(result: Transcript) -> list[Phrase]:
    """The transcript's sentences with the time of the segment they stand in."""
    return [
        Phrase(segment.start, part.strip())
        for segment in result.segments
        for part in re.findall(r"[^.]+\.", segment.text)
    ]


async def test_the_bundled_model_on_a_long_file(tmp_path: Path) -> None:
    with wave.open(str(files("whisper_api") / "assets" / "sample.wav")) as file:
        sample = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768.0
    rng = np.random.default_rng(2)
    starts, at = [], 1.0
    while at + sample.size / RATE < 600 - 1:
        if at % 60 + sample.size / RATE < 60:
            starts.append(at)
        at += sample.size / RATE + float(rng.uniform(0.8, 4.0))
    sounds = [(int(s * RATE), sample * rng.uniform(0.5, 1.0)) for s in starts]
    write_wav(tmp_path / "long.wav", 10, sounds)
    async with open_runtime(Settings(data_dir=tmp_path / "data")) as runtime:
        alone = tmp_path / "alone.wav"
        write_wav(alone, 1, [(RATE, sample)])
        once = Counter(p.text for p in phrases(await runtime.transcribe_path(alone, Options())))
        result = await runtime.transcribe_path(tmp_path / "long.wav", Options())
    said = Counter({text: n * len(starts) for text, n in once.items()})
    heard = Counter(p.text for p in phrases(result))
    recall = sum((said & heard).values()) / sum(said.values())
    assert recall >= 0.97
    firsts = [s for s in result.segments if s.text.strip()]
    late = [min(abs(segment.start - start) for segment in firsts) for start in starts]
    assert sum(error <= 0.5 for error in late) / len(late) >= 0.95
