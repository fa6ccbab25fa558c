"""Decoding in a warm pool of killable processes; the event loop only waits.

A file that crashes its process, eats its memory or never ends costs the one request that
brought it. PCM comes back as a file, never through a pipe.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from whisper_api.audio import worker
from whisper_api.audio.preprocess import old_chain
from whisper_api.audio.scratch import Scratch
from whisper_api.audio.worker import DecodeJob, Probe
from whisper_api.config import Settings
from whisper_api.errors import RequestError, ShuttingDown, UndecodableAudio
from whisper_api.types import AudioFile, Options, Waveform

T = TypeVar("T")
PROBE_TIMEOUT = 20.0
"""Seconds that looking into one file may take."""


class Decoder:
    """The pool. ``start`` it before use; all methods are for one event loop."""

    def __init__(self, settings: Settings) -> None:
        """Nothing runs yet.

        Raises:
            SettingsError: ``compand_params`` is not in sox's syntax.
        """
        self._settings = settings
        self._chain = old_chain(settings)
        self._pool: ProcessPool | None = None

    def start(self) -> None:
        """Start the processes and wait until one of them answers."""
        self._pool = ProcessPool(
            max_workers=self._settings.decode_workers,
            max_tasks=self._settings.decode_recycle,
            initializer=worker.limit_process,
            initargs=(self._settings.decode_memory_mb,),
            # A fork would copy the server's threads and locks in an unknown state.
            context=multiprocessing.get_context("spawn"),
        )
        self._pool.schedule(_ready).result(timeout=60)

    def close(self) -> None:
        """Kill whatever runs and end the pool."""
        if self._pool is not None:
            self._pool.stop()  # type: ignore[no-untyped-call]
            self._pool.join()
            self._pool = None

    async def probe(self, path: Path) -> Probe:
        """What the file at ``path`` is.

        Raises:
            UndecodableAudio: nothing that is served here.
        """
        return await self._call(worker.probe_file, path, timeout=PROBE_TIMEOUT)

    async def decode(self, file: AudioFile, scratch: Scratch, options: Options) -> Waveform:
        """The file as PCM in ``scratch``; cancelling the call kills the work.

        Raises:
            UndecodableAudio: broken; also when it crashes its process or takes too long.
            AudioTooShort, AudioTooLong.
        """
        job = DecodeJob(
            source=file.path,
            target=scratch.unique("pcm", ".raw"),
            max_seconds=self._settings.max_duration_s,
            chain=self._chain,
            loudness=options.loudness,
        )
        result = await self._call(worker.decode_file, job, timeout=self._settings.decode_timeout_s)
        return Waveform(job.target, result.samples, result.lead, result.tail, result.peak)

    async def _call(self, function: Callable[[Any], T], argument: object, timeout: float) -> T:
        if self._pool is None:
            raise ShuttingDown
        try:
            future: Future[T] = self._pool.schedule(function, args=[argument], timeout=timeout)
        except RuntimeError as error:
            raise ShuttingDown from error
        try:
            return await asyncio.wrap_future(future)
        except RequestError:
            raise
        except TimeoutError as error:
            raise UndecodableAudio(
                f"Decoding took longer than this server allows ({timeout:.0f} seconds).",
                code="decode_timeout",
            ) from error
        except ProcessExpired as error:
            raise UndecodableAudio(
                "The audio file made the decoder stop.", code="decoder_crashed"
            ) from error
        except MemoryError as error:
            raise UndecodableAudio(
                "Decoding the audio file needs more memory than this server allows.",
                code="decoder_memory",
            ) from error
        except (ValueError, OSError, IndexError) as error:
            raise UndecodableAudio from error


def _ready() -> bool:
    return True
