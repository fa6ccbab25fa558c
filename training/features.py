"""Whisper's log-mel spectrogram, for a batch of equally long windows."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

RATE, FFT, HOP, MELS = 16000, 400, 160, 80


def mel_filters(bend: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
    """The 80 slaney-normalised triangular filters over 201 bins; `bend` moves their edges."""

    def to_mel(hz: np.ndarray) -> np.ndarray:
        return np.where(
            hz >= 1000, 15 + np.log(np.maximum(hz, 1) / 1000) * 27 / np.log(6.4), hz * 3 / 200
        )

    def to_hz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel >= 15, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)), mel * 200 / 3)

    edges = to_hz(np.linspace(0, to_mel(np.array(RATE / 2)), MELS + 2))
    if bend is not None:
        edges = bend(edges)
    bins = np.linspace(0, RATE / 2, FFT // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    heights = np.maximum(0, np.minimum(rising, falling))
    return (heights * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


_FILTERS = torch.from_numpy(mel_filters())
_WINDOW = torch.hann_window(FFT)


def power_of(audio: Tensor) -> Tensor:
    """(batch, samples) -> (batch, 201, samples / 160)."""
    return torch.stft(audio, FFT, HOP, window=_WINDOW, return_complex=True)[..., :-1].abs() ** 2


def log_mel(audio: Tensor) -> Tensor:
    """(batch, samples) -> (batch, 80, samples / 160)."""
    return to_log(_FILTERS @ power_of(audio))


def to_log(mels: Tensor) -> Tensor:
    """Whisper's scale, with a floor 80 dB under each window's peak."""
    logs = torch.clamp(mels, min=1e-10).log10()
    logs = torch.maximum(logs, logs.amax((1, 2), keepdim=True) - 8)
    return (logs + 4) / 4


class Mouths:
    """Spectra as another vocal tract would have made them: mel filters with their edges moved."""

    STEP = 0.025

    def __init__(self, seed: int, kinds: int = 12) -> None:
        rng = np.random.default_rng(seed)
        self.kinds, self.bank = kinds, {}
        for level in range(-20, 21):
            for kind in range(kinds):
                self.bank[level, kind] = torch.from_numpy(mel_filters(self._bend(rng, level, kind)))

    def _bend(
        self, rng: np.random.Generator, level: int, kind: int
    ) -> Callable[[np.ndarray], np.ndarray]:
        waves = rng.normal(0, 0.055, 4) if kind else np.zeros(4)

        def bend(hertz: np.ndarray) -> np.ndarray:
            mel = np.log1p(hertz / 700)
            local = sum(a * np.sin((k + 1) * mel) for k, a in enumerate(waves))
            moved: np.ndarray = np.maximum.accumulate(hertz * np.exp(local - level * self.STEP))
            return moved + np.arange(len(moved)) * 1e-3

        return bend

    def log_mel(self, audio: Tensor, factors: list[float], rng: np.random.Generator) -> Tensor:
        """Formants times each window's factor (0: unchanged), bent a little; a few lose their harmonics."""
        power = power_of(audio)
        for i in range(len(power)):
            if factors[i] and rng.random() < 0.3:
                power[i] = self._whisper(power[i], rng)
        chosen = [self._chosen(f, rng) for f in factors]
        return to_log(torch.stack(chosen) @ power)

    def _chosen(self, factor: float, rng: np.random.Generator) -> Tensor:
        if factor == 0:
            return _FILTERS
        level = round(np.log(factor) / self.STEP)
        return self.bank[min(max(level, -20), 20), int(rng.integers(self.kinds))]

    @staticmethod
    def _whisper(power: Tensor, rng: np.random.Generator) -> Tensor:
        """Spread each frame's harmonics, and roughen the result as breath is rough."""
        width = 2 * int(rng.integers(3, 7)) + 1
        smooth = F.avg_pool1d(power.T[:, None], width, 1, width // 2, count_include_pad=False)[
            :, 0
        ].T
        rough = rng.exponential(1.0, tuple(smooth.shape)).astype(np.float32)
        return smooth * torch.from_numpy(rough)
