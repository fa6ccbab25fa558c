"""Log-mel: OpenAI's values, padding included."""

from __future__ import annotations

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor

from whisper_api.features import FRAMES, log_mel, mel_filters
from whisper_api.types import SAMPLE_RATE


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("seconds", [30, 12.345, 0.3, 0.01, 0])
def test_equal_to_padding_the_audio_with_zeros(mels: int, seconds: float) -> None:
    rng = np.random.default_rng(0)
    audio = rng.normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype(np.float32)
    padded = np.pad(audio, (0, 30 * SAMPLE_RATE - audio.size))
    expected = FeatureExtractor(feature_size=mels)(padded, padding=0)
    found = log_mel(audio, mels)
    assert found.shape == (mels, FRAMES)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_more_than_a_window_is_cut_off() -> None:
    audio = np.random.default_rng(1).normal(0, 0.1, 31 * SAMPLE_RATE).astype(np.float32)
    np.testing.assert_array_equal(log_mel(audio), log_mel(audio[: 30 * SAMPLE_RATE]))


def test_filters_are_slaneys() -> None:
    for mels in (80, 128):
        expected = FeatureExtractor.get_mel_filters(SAMPLE_RATE, 400, mels)
        np.testing.assert_allclose(mel_filters(mels), expected, atol=1e-7)


def test_a_tone_shows_where_it_sounds() -> None:
    audio = np.zeros(3 * SAMPLE_RATE, np.float32)
    times = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    audio[SAMPLE_RATE : 2 * SAMPLE_RATE] = np.sin(2 * np.pi * 1000 * times)
    loudness = log_mel(audio).max(axis=0)
    assert loudness[110:190].min() > loudness[:90].max() + 0.5
    assert loudness[110:190].min() > loudness[210:].max() + 0.5
