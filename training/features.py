"""Whisper's log-mel spectrogram, for a batch of equally long windows."""

import numpy as np
import torch
from torch import Tensor

RATE, FFT, HOP, MELS = 16000, 400, 160, 80


def mel_filters() -> np.ndarray:
    """The 80 slaney-normalised triangular filters over 201 bins."""

    def to_mel(hz: np.ndarray) -> np.ndarray:
        return np.where(
            hz >= 1000, 15 + np.log(np.maximum(hz, 1) / 1000) * 27 / np.log(6.4), hz * 3 / 200
        )

    def to_hz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel >= 15, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)), mel * 200 / 3)

    edges = to_hz(np.linspace(0, to_mel(np.array(RATE / 2)), MELS + 2))
    bins = np.linspace(0, RATE / 2, FFT // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    heights = np.maximum(0, np.minimum(rising, falling))
    return (heights * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


_FILTERS = torch.from_numpy(mel_filters())
_WINDOW = torch.hann_window(FFT)


def log_mel(audio: Tensor) -> Tensor:
    """(batch, samples) -> (batch, 80, samples / 160)."""
    power = torch.stft(audio, FFT, HOP, window=_WINDOW, return_complex=True)[..., :-1].abs() ** 2
    logs = torch.clamp(_FILTERS @ power, min=1e-10).log10()
    logs = torch.maximum(logs, logs.amax((1, 2), keepdim=True) - 8)
    return (logs + 4) / 4
