"""Log-mel spectrograms of many windows at once, on the device; equal to ``features.log_mel``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from whisper_api.features import FRAMES, HOP, N_FFT, mel_filters
from whisper_api.types import SAMPLE_RATE, WINDOW_SECONDS, Audio


class LogMel:
    """Spectrograms on one device; computed in float32 whatever the model computes in."""

    def __init__(self, mels: int, device: Any) -> None:
        """``mels``: 80, or 128 for large-v3."""
        self._device = device
        self._filters = torch.from_numpy(mel_filters(mels)).to(device)
        self._window = torch.hann_window(N_FFT, device=device)
        self._pin = device.type == "cuda"

    def __call__(self, audios: Sequence[Audio], frames: int = FRAMES) -> Any:
        """Float32 ``[windows, mels, frames]``; what is longer than 30 s is cut off."""
        return self.transform(self.stage(audios, frames))

    def stage(self, audios: Sequence[Audio], frames: int = FRAMES) -> Any:
        """The sound on the device, ``[windows, samples]``: mostly the host's work."""
        samples = frames * HOP
        # Pinned memory comes from torch's own cache, which waits for copies still under way.
        staged = torch.zeros(len(audios), samples, pin_memory=self._pin)
        for row, audio in zip(staged, audios, strict=True):
            used = min(audio.size, samples, WINDOW_SECONDS * SAMPLE_RATE)
            row[:used] = torch.from_numpy(audio[:used])
        return staged.to(self._device, non_blocking=True)

    def transform(self, sound: Any) -> Any:
        """The spectrograms of what ``stage`` answered."""
        frames = sound.shape[1] // HOP
        spectrum = torch.stft(
            sound, N_FFT, HOP, window=self._window, center=True, return_complex=True
        )[..., :frames]
        power = spectrum.real.square() + spectrum.imag.square()
        mel = torch.matmul(self._filters, power).clamp_(min=1e-10).log10_()
        floor = mel.amax(dim=(1, 2), keepdim=True) - 8.0
        return (torch.maximum(mel, floor) + 4.0) / 4.0
