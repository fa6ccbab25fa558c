"""Cheap distortions that make synthetic speech less clean: one spectral shape a window, and noise."""

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

RATE, WINDOW, HOP = 16000, 400, 160
HANN = np.hanning(WINDOW).astype(np.float32)


def speed(audio: np.ndarray, factor: float) -> np.ndarray:
    """Play faster (factor > 1): tempo, pitch and formants change together."""
    length = max(int(len(audio) / factor), 2)
    return np.interp(np.arange(length) * factor, np.arange(len(audio)), audio).astype(np.float32)


def wobble(rng: np.random.Generator, audio: np.ndarray) -> np.ndarray:
    """Drag some sounds and hurry others, as people do; the length stays the same."""
    knots = max(4, int(len(audio) / RATE * 9))
    pace = np.exp(rng.normal(0, 0.16, knots))
    steps = np.interp(np.arange(len(audio)), np.linspace(0, len(audio), knots), pace)
    places = np.cumsum(steps)
    places *= (len(audio) - 1) / places[-1]
    return np.interp(places, np.arange(len(audio)), audio).astype(np.float32)


def faint_hisses(rng: np.random.Generator, audio: np.ndarray) -> np.ndarray:
    """s, f, th and their kin up to 30 dB weaker: synthesizers make them louder than most people's are."""
    if len(audio) < 2 * WINDOW:
        return audio
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(audio, WINDOW // 2), WINDOW)[::HOP]
    power = np.abs(rfft(frames * HANN)) ** 2
    hisses = power[:, 50:].sum(1) > 0.4 * power[:, 5:].sum(1)  # 2 to 8 kHz against 0.2 to 8 kHz
    gain = np.where(hisses, 10 ** (-rng.uniform(0, 30) / 20), 1.0)
    gain = np.convolve(np.pad(gain, 1, "edge"), (0.25, 0.5, 0.25), "valid")
    places = np.arange(len(gain)) * HOP
    return (audio * np.interp(np.arange(len(audio)), places, gain)).astype(np.float32)


def cut_weak_ends(rng: np.random.Generator, audio: np.ndarray) -> tuple[int, int]:
    """First and last sample of what a careless cut by the voice's loudness leaves of a phrase."""
    count = len(audio) // HOP
    voice = np.convolve(audio, np.full(6, 1 / 6, np.float32), "same")  # little above 2 kHz
    level = np.sqrt((voice[: count * HOP].reshape(count, HOP) ** 2).mean(1))
    loud = np.flatnonzero(level >= level.max(initial=0.0) * 10 ** (-rng.uniform(4, 24) / 20))
    if not loud.size or loud[-1] - loud[0] < 10:
        return 0, len(audio)
    first = int(loud[0]) * HOP if rng.random() < 0.8 else 0
    return first, (int(loud[-1]) + 1) * HOP if rng.random() < 0.6 else len(audio)


def _response(rng: np.random.Generator, bins: int, strength: float) -> np.ndarray:
    """A random smooth equaliser, often band-limited."""
    hertz = np.linspace(0, RATE / 2, bins)
    knots = np.concatenate([[0], np.geomspace(100, 8000, 7)])
    gains = np.interp(hertz, knots, rng.normal(0, 4.5 * strength, 8))
    if rng.random() < 0.45 * min(strength, 1):
        cut = rng.uniform(3300, 4100) if rng.random() < 0.8 else rng.uniform(4000, 7500)
        gains -= np.clip((hertz - cut) / 200, 0, 1) * 70
    if rng.random() < 0.3 * strength:
        gains -= np.clip((rng.uniform(80, 350) - hertz) / 60, 0, 1) * 40
    return (10 ** (gains / 20)).astype(np.float32)


def _room(rng: np.random.Generator) -> np.ndarray:
    """A synthetic room: the direct sound and an exponentially fading noise tail."""
    length = int(rng.uniform(0.05, 0.45) * RATE)
    tail = rng.standard_normal(length).astype(np.float32) * np.exp(
        -6.9 * np.arange(length) / length
    ).astype(np.float32)
    tail *= rng.uniform(0.1, 0.9) / np.sqrt((tail**2).sum())
    tail[: int(0.002 * RATE)] = 0
    tail[0] = 1
    return tail


def shape(rng: np.random.Generator, audio: np.ndarray, strength: float) -> np.ndarray:
    """Equaliser, band limit and room as one multiplication in frequency."""
    room = _room(rng) if rng.random() < 0.35 * strength else None
    size = next_fast_len(len(audio) + (len(room) if room is not None else 400), real=True)
    spectrum = rfft(audio, size)
    spectrum *= _response(rng, len(spectrum), strength)
    if room is not None:
        spectrum *= rfft(room, size)
    return irfft(spectrum, size)[: len(audio)].astype(np.float32)


def telephone(rng: np.random.Generator, audio: np.ndarray) -> np.ndarray:
    """8,000 samples a second, often in mu-law's 8 bits, brought back well or by drawing straight lines."""
    if rng.random() < 0.75:  # else what lies above 4 kHz folds down, as in careless recordings
        spectrum = rfft(audio)
        spectrum[int(len(spectrum) * rng.uniform(0.42, 0.5)) :] = 0
        audio = irfft(spectrum, len(audio)).astype(np.float32)
    few = audio[::2]
    if rng.random() < 0.5:
        peak = max(float(np.abs(few).max()), 1e-5) / rng.uniform(0.1, 1.0)
        code = np.sign(few) * np.log1p(255 * np.minimum(np.abs(few) / peak, 1)) / np.log(256)
        code = np.round(code * 127) / 127
        few = np.sign(code) * (256 ** np.abs(code) - 1) / 255 * peak
    return np.interp(np.arange(len(audio)) / 2, np.arange(len(few)), few).astype(np.float32)


class Noises:
    """A bank of background sounds, made once from a seed."""

    def __init__(self, seed: int, count: int = 48, seconds: int = 31) -> None:
        rng = np.random.default_rng(seed)
        makers = (self._coloured, self._coloured, self._hum, self._music, self._clicks)
        self.bank = [
            self._level(makers[i % len(makers)](rng, seconds * RATE)) for i in range(count)
        ]

    @staticmethod
    def _level(x: np.ndarray) -> np.ndarray:
        return (x / (np.sqrt((x**2).mean()) + 1e-9)).astype(np.float32)

    @staticmethod
    def _coloured(rng: np.random.Generator, n: int) -> np.ndarray:
        spectrum = rfft(rng.standard_normal(n).astype(np.float32))
        hertz = np.maximum(np.linspace(0, RATE / 2, len(spectrum)), 20)
        spectrum *= hertz ** -rng.uniform(0, 1.2)
        if rng.random() < 0.5:
            spectrum *= 0.05 + np.exp(
                -(((hertz - rng.uniform(200, 4000)) / rng.uniform(200, 2000)) ** 2)
            )
        x = irfft(spectrum, n)
        if rng.random() < 0.5:
            slow = np.interp(np.arange(n), np.linspace(0, n, 60), rng.uniform(0.1, 1, 60))
            x = x * slow
        return x

    @staticmethod
    def _hum(rng: np.random.Generator, n: int) -> np.ndarray:
        t = np.arange(n) / RATE
        base = rng.choice([50, 60, 100, 120, rng.uniform(80, 400)])
        x = sum(
            rng.random() / k * np.sin(2 * np.pi * base * k * t + rng.uniform(0, 6))
            for k in range(1, 8)
        )
        return x + 0.05 * rng.standard_normal(n)

    @staticmethod
    def _music(rng: np.random.Generator, n: int) -> np.ndarray:
        x, at = np.zeros(n, np.float32), 0
        while at < n:
            length = min(int(rng.uniform(0.08, 1.5) * RATE), n - at)
            t = np.arange(length) / RATE
            for _ in range(int(rng.integers(1, 4))):
                pitch = 110 * 2 ** (rng.integers(0, 48) / 12)
                tone = sum(
                    rng.random() / k * np.sin(2 * np.pi * pitch * k * t) for k in range(1, 5)
                )
                x[at : at + length] += tone * np.exp(-t * rng.uniform(0, 6))
            at += length
        return x

    @staticmethod
    def _clicks(rng: np.random.Generator, n: int) -> np.ndarray:
        x = 0.02 * rng.standard_normal(n).astype(np.float32)
        for at in rng.integers(0, n - 3000, int(rng.integers(20, 200))):
            length = int(rng.integers(30, 3000))
            x[at : at + length] += rng.standard_normal(length) * np.exp(
                -np.arange(length) / length * 6
            )
        return x

    def take(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """A random piece at level 1."""
        noise = self.bank[int(rng.integers(len(self.bank)))]
        at = int(rng.integers(0, len(noise) - n + 1))
        return noise[at : at + n]


def add_noise(
    rng: np.random.Generator, audio: np.ndarray, noise: np.ndarray, snr: float
) -> np.ndarray:
    """Mix at a signal-to-noise ratio in dB, counted over the louder half of the speech."""
    power = audio**2
    loud = power[power > power.mean() * 0.1]
    level = float(np.sqrt(loud.mean())) if loud.size else 0.05
    return audio + noise * (level * 10 ** (-snr / 20))


def finish(rng: np.random.Generator, audio: np.ndarray, strength: float) -> np.ndarray:
    """Gain, and now and then clipping or coarse samples."""
    audio = (
        audio
        / max(float(np.abs(audio).max()), 1e-5)
        * 10 ** (-rng.uniform(0, 10 + 20 * min(strength, 1)) / 20)
    )
    if rng.random() < 0.06 * strength:
        limit = float(np.abs(audio).max()) * rng.uniform(0.3, 0.9)
        audio = np.clip(audio, -limit, limit)
    if rng.random() < 0.08 * strength:
        levels = 2 ** int(rng.integers(7, 11))
        audio = np.round(audio * levels) / levels
    return audio.astype(np.float32)
