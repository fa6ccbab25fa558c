"""Ten hours of audio pass through the decoder and the speech detector in little memory."""

from __future__ import annotations

import asyncio
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

from whisper_api.audio.decode import Decoder
from whisper_api.audio.scratch import Scratch
from whisper_api.audio.speech import SpeechDetector, plan_windows
from whisper_api.config import Settings
from whisper_api.types import SAMPLE_RATE, AudioFile, Options

HOURS = 10
RATE = 8000
LIMIT_MB = 300


def write_long_flac(path: Path) -> None:
    """A faint tone with bursts of noise, as a flac at 8 kHz, written a minute at a time."""
    rng = np.random.default_rng(0)
    times = np.arange(60 * RATE) / RATE
    minute = (3000 * np.sin(2 * np.pi * 200 * times) * (times % 3 < 1)).astype(np.int16)
    minute[: 2 * RATE] += rng.integers(-2000, 2000, 2 * RATE, np.int16)
    with av.open(str(path), "w", format="flac") as out:
        stream = out.add_stream(
            "flac", rate=RATE, layout="mono", options={"compression_level": "0"}
        )
        assert isinstance(stream, AudioStream)
        for number in range(HOURS * 60):
            for at in range(0, minute.size, 4000):
                block = minute[None, at : at + 4000]
                frame = AudioFrame.from_ndarray(block, format="s16", layout="mono")
                frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = number * minute.size + at
                out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def peak_mb(pid: int | str) -> float:
    """Largest resident size of a process so far, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def forget_peak() -> float:
    """Start the peak of this process anew; where it stands now, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mb("self")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("old_chain", [False, True])
def test_ten_hours_in_bounded_memory(tmp_path: Path, old_chain: bool) -> None:
    path = tmp_path / "long.flac"
    write_long_flac(path)
    detector = SpeechDetector()
    decoder = Decoder(
        Settings(data_dir=tmp_path, decode_workers=1, audio_rate=8000 if old_chain else None)
    )
    file = AudioFile(path, "long.flac", path.stat().st_size, "", "", "", "", None)
    try:
        asyncio.run(_probe(decoder, path))
        (pid,) = decoder.pids
        worker, parent = peak_mb(pid), forget_peak()
        with Scratch.create(tmp_path) as scratch:
            waveform = asyncio.run(decoder.decode(file, scratch, Options(loudness=not old_chain)))
            assert decoder.pids == [pid]
            worker = peak_mb(pid) - worker
            assert waveform.duration == pytest.approx(HOURS * 3600, abs=0.01)
            if not old_chain:
                windows = plan_windows(waveform, Options(), detector)
                assert all(window.stop <= waveform.samples for window in windows)
        parent = peak_mb("self") - parent
    finally:
        decoder.close()
    print(f"worker +{worker:.0f} MiB, server +{parent:.0f} MiB")
    assert worker + parent < LIMIT_MB
    assert waveform.samples - waveform.lead - waveform.tail == HOURS * 3600 * SAMPLE_RATE


async def _probe(decoder: Decoder, path: Path) -> None:
    assert (await decoder.probe(path)).codec == "flac"
