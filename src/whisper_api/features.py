"""Log-mel spectrograms, as Whisper was trained on them (openai/whisper, ``audio.py``).

The audio itself is padded with zeros to 30 s, as OpenAI does; frames that hold padding only are
known beforehand and cost nothing.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from whisper_api.types import SAMPLE_RATE, WINDOW_SECONDS, Audio

N_FFT = 400
HOP = 160
FRAMES = WINDOW_SECONDS * SAMPLE_RATE // HOP
"""Frames of 10 ms in a window: 3000."""

_SAMPLES = WINDOW_SECONDS * SAMPLE_RATE
_EDGE = N_FFT // 2
_CHUNK = 500  # frames transformed at once, so that they stay in the processor's cache
_SILENCE = -10.0  # log10 of the smallest power


def log_mel(audio: Audio, n_mels: int = 80, length: int = FRAMES) -> NDArray[np.float32]:
    """The spectrogram of one window: float32 ``[n_mels, length]``, C-contiguous.

    ``audio`` is at most 30 s; what is longer is cut off. Fewer than 3000 frames are the head of
    the full spectrogram; the caller sees to it that they hold the audio.
    """
    signal = _centred(audio[:_SAMPLES])
    used = min(length, -(-(min(audio.size, _SAMPLES) + _EDGE) // HOP))
    mel = np.full((n_mels, length), _SILENCE, np.float32)
    frames = sliding_window_view(signal, N_FFT)[::HOP]
    for first in range(0, used, _CHUNK):
        last = min(first + _CHUNK, used)
        spectrum = np.fft.rfft(frames[first:last] * _window())
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        mel[:, first:last] = np.log10(np.maximum(_filtered(power, n_mels), 1e-10))
    np.maximum(mel, mel.max() - 8.0, out=mel)
    return (mel + 4.0) / 4.0


def _filtered(power: NDArray[np.float32], n_mels: int) -> NDArray[np.float32]:
    """``mel_filters(n_mels) @ power.T``, of which only one factor in forty is not zero.

    A matrix product would wake the threads of numpy's BLAS, which then spin on the cores that the
    engine's threads compute on: ten times the processor time (measured on two cores).
    """
    bins, weights, starts = _sparse_filters(n_mels)
    parts = power.T[bins]
    parts *= weights
    return np.asarray(np.add.reduceat(parts, starts, axis=0), np.float32)


@lru_cache(maxsize=4)
def _sparse_filters(
    n_mels: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """The bins of all filters one after another, their weights, and where each filter starts."""
    filters = mel_filters(n_mels)
    # A narrow filter may fall between two bins: it keeps one that weighs nothing.
    bins = [np.flatnonzero(row) if row.any() else np.zeros(1, np.int64) for row in filters]
    weights = np.concatenate([row[places] for row, places in zip(filters, bins, strict=True)])
    starts = np.cumsum([0, *(places.size for places in bins[:-1])])
    return np.concatenate(bins), weights[:, None], starts


@lru_cache(maxsize=4)
def mel_filters(n_mels: int) -> NDArray[np.float32]:
    """Slaney's triangular filters of equal area: float32 ``[n_mels, 201]``."""
    edges = _to_hz(np.linspace(0.0, _to_mel(SAMPLE_RATE / 2), n_mels + 2))
    bins = np.linspace(0.0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    widths = np.diff(edges)[:, None]
    rising = (bins - edges[:-2, None]) / widths[:-1]
    falling = (edges[2:, None] - bins) / widths[1:]
    area = 2.0 / (edges[2:] - edges[:-2])[:, None]
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)) * area, np.float32)


def _centred(audio: Audio) -> Audio:
    """The window with its edges mirrored, so that frame i is centred on sample 160 i."""
    signal = np.zeros(_SAMPLES + 2 * _EDGE, np.float32)
    signal[_EDGE : _EDGE + audio.size] = audio
    signal[:_EDGE] = signal[2 * _EDGE : _EDGE : -1]
    signal[-_EDGE:] = signal[-_EDGE - 2 : -2 * _EDGE - 2 : -1]
    return signal


@lru_cache(maxsize=1)
def _window() -> NDArray[np.float32]:
    return np.hanning(N_FFT + 1)[:-1].astype(np.float32)


def _to_mel(hz: float) -> float:
    return 15.0 + float(np.log(hz / 1000.0)) * 27.0 / float(np.log(6.4))


def _to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    curved = 1000.0 * np.exp(np.log(6.4) / 27.0 * (mel - 15.0))
    return np.where(mel < 15.0, mel * 200.0 / 3.0, curved)
