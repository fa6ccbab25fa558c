"""How much an engine does by itself: whole batches of the same windows, and nothing else."""

from __future__ import annotations

import io
import time
import wave
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from whisper_api.audio.speech import SpeechDetector, plan_windows
from whisper_api.config import Settings
from whisper_api.engines.base import DecodeParams, Engine, WindowItem
from whisper_api.models import ModelStore
from whisper_api.pool import engine_loader
from whisper_api.types import SAMPLE_RATE, Options, Waveform


class Alone:
    """An engine in this process, with the server's settings."""

    def __init__(self, settings: Settings, tokens: int | None) -> None:
        """``tokens`` are the most of each window."""
        self.settings = settings
        self.engine: Engine = engine_loader(settings)(ModelStore(settings).prepare(), settings)
        most = tokens or settings.max_new_tokens
        self._params = DecodeParams("en", beam_size=settings.beam_size, max_new_tokens=most)
        self._detector = SpeechDetector()
        self._count = 0

    def windows(self, wav: bytes, folder: Path) -> list[WindowItem]:
        """The windows that the server makes of a recording."""
        with wave.open(io.BytesIO(wav)) as file:
            samples, frames = file.getnframes(), file.readframes(file.getnframes())
            assert file.getframerate() == SAMPLE_RATE
        path = folder / "samples.pcm"
        path.write_bytes(frames)
        waveform = Waveform(path, samples)
        longest = min(self.settings.chunk_length_s, self.engine.thresholds.window_seconds)
        options = replace(Options(), chunk_length_s=longest)
        found = []
        for window in plan_windows(waveform, options, self._detector):
            self._count += 1
            audio = waveform.read(window.start, window.stop)
            found.append(WindowItem(f"w{self._count}", audio, self._params))
        return found

    def seconds(self, windows: list[WindowItem], size: int) -> float:
        """How long it takes for ``windows`` in batches of ``size``, all replicas busy."""
        batches = [windows[at : at + size] for at in range(0, len(windows), size)]

        def run(batch: list[WindowItem]) -> None:
            self.engine.decode(batch)
            self.engine.release([item.key for item in batch])

        started = time.perf_counter()
        with ThreadPoolExecutor(max(1, self.engine.info.replicas)) as pool:
            list(pool.map(run, batches))
        return time.perf_counter() - started

    def close(self) -> None:
        """Free the model."""
        self.engine.close()
