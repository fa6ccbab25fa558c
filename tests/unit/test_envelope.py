"""The envelope that players draw, measured while decoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from whisper_api.audio.envelope import MOST_POINTS, PeakMeter, peaks_of, with_speech
from whisper_api.types import Waveform, Window

RATE = 16_000


def measured(samples: np.ndarray[tuple[int], np.dtype[np.int16]], block: int) -> PeakMeter:
    meter = PeakMeter(RATE)
    for at in range(0, samples.size, block):
        meter.add(samples[at : at + block])
    return meter


@pytest.mark.parametrize("block", [1, 333, 1024, 16_000, 1_000_000])
def test_the_size_of_blocks_does_not_matter(block: int) -> None:
    samples = np.random.default_rng(1).integers(-9000, 9000, 20_011).astype(np.int16)
    found = measured(samples, block if block > 1 else 7).finish()
    assert found == measured(samples, 320).finish()
    assert found.duration == 20_011 / RATE
    assert found.points_per_second == 50
    assert len(found.peaks) // 2 == 63
    loudest = [
        int(np.abs(samples[at : at + 320].astype(int)).max()) for at in range(0, 20_011, 320)
    ]
    assert list(bytes.fromhex(found.peaks)) == [value >> 7 for value in loudest]


def test_long_audio_gets_fewer_points_and_keeps_its_peaks() -> None:
    meter = PeakMeter(RATE)
    second = np.zeros(RATE, np.int16)
    loud = second.copy()
    loud[100] = -32768
    for number in range(3600):
        meter.add(loud if number == 1800 else second)
    found = meter.finish()
    peaks = peaks_of(found)
    assert 2000 < len(peaks) <= MOST_POINTS
    assert found.duration == 3600
    assert max(peaks) == 1.0
    assert peaks.index(1.0) / found.points_per_second == pytest.approx(1800, abs=1)
    assert sum(peak > 0 for peak in peaks) == 1


def test_no_samples_are_no_points() -> None:
    found = PeakMeter(RATE).finish()
    assert (found.duration, found.peaks) == (0.0, "")


def test_speech_is_told_in_seconds_of_the_file_and_joined_where_it_touches() -> None:
    envelope = PeakMeter(RATE).finish()
    waveform = Waveform(Path("x"), 10 * RATE, lead=RATE, envelope=envelope)
    windows = [
        Window(0, 0, 5 * RATE, 1.0, ((RATE, 2 * RATE), (3 * RATE, 5 * RATE))),
        Window(1, 5 * RATE, 9 * RATE, 1.0, ((5 * RATE, 6 * RATE),)),
    ]
    found = with_speech(waveform, windows)
    assert found is not None
    assert found.speech == ((0.0, 1.0), (2.0, 5.0))
    assert with_speech(Waveform(Path("x"), 10), windows) is None
