"""Audio files to PCM in a warm pool of processes that can be killed.

A hostile file may crash, hang or bloat the process that decodes it; that costs this one
request. The pool is one thread and one process (``audio.worker``) per slot. One slot, where
there are several, takes only short work, so that a clip never waits for two long films.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any

from whisper_api import errors
from whisper_api.audio.effort import LIGHT_SECONDS
from whisper_api.audio.envelope import MOST_POINTS
from whisper_api.audio.preprocess import LEAD_SECONDS, TAIL_SECONDS, Chain
from whisper_api.audio.probe import Probe
from whisper_api.audio.scratch import Scratch
from whisper_api.audio.slots import Job, JobQueue, Slot
from whisper_api.config import Settings
from whisper_api.errors import DecoderCrashed, StorageFull, UndecodableAudio
from whisper_api.types import SAMPLE_RATE, AudioFile, Envelope, Options, Waveform

_log = logging.getLogger(__name__)

PROBE_SECONDS = 30.0
"""Longest time that looking into one file may take."""
LIGHT_BYTES = 8 * 1024 * 1024
"""Files up to this size count as short work."""


class Decoder:
    """Decodes and probes files; thread-safe, usable from any event loop."""

    def __init__(self, settings: Settings) -> None:
        """Nothing runs before ``start`` or the first file.

        Raises:
            SettingsError: ``compand_params`` is not in sox's syntax.
        """
        self._settings = settings
        self._chain = Chain.of(settings)
        self._queue = JobQueue()
        self._slots: list[Slot] = []

    def start(self) -> None:
        """Start the worker processes; they warm up in the background."""
        if self._slots or self._queue.closed:
            return
        count = self._settings.decode_workers
        self._slots = [
            Slot(
                self._queue,
                self._limits(gives_way=count > 1 and index > 0),
                recycle=self._settings.decode_recycle,
                light_only=count > 1 and index == 0,
            )
            for index in range(count)
        ]

    def close(self) -> None:
        """Kill the workers; whoever waits gets ShuttingDown. The decoder is of no use after."""
        self._queue.close()
        for slot in self._slots:
            slot.abort()
        for slot in self._slots:
            slot.join()

    @property
    def pids(self) -> list[int]:
        """Process numbers of the live workers."""
        return [pid for slot in self._slots if (pid := slot.pid) is not None]

    async def probe(self, path: Path) -> Probe:
        """What the file is, by its content alone.

        Raises:
            UndecodableAudio: not audio, broken, a format this server does not read, or one
                whose reading crashed (``decoder_crashed``) or hung (``decode_timeout``).
            ShuttingDown: the decoder was closed.
        """
        request = {"op": "probe", "source": _absolute(path)}
        limit = min(PROBE_SECONDS, self._settings.decode_timeout_s)
        reply = await self._run(Job(request, limit, light=True))
        return Probe(**reply)

    async def measure(self, path: Path, size: int) -> float | None:
        """Seconds of audio by what the file holds, not by what it claims; None where it cannot be
        told without decoding.

        Raises:
            ShuttingDown: the decoder was closed.
        """
        request = {
            "op": "measure",
            "source": _absolute(path),
            "max_seconds": self._settings.max_duration_s,
        }
        limit = min(PROBE_SECONDS, self._settings.decode_timeout_s)
        try:
            reply = await self._run(Job(request, limit, light=size <= LIGHT_BYTES))
        except UndecodableAudio:
            return None  # decoding will say what is wrong with it
        return float(reply["seconds"]) or None

    async def decode(self, file: AudioFile, scratch: Scratch, options: Options) -> Waveform:
        """The file as PCM in ``scratch``, preprocessed as the settings and options ask.

        Raises:
            AudioTooShort: under 0.1 s.
            AudioTooLong: over ``max_duration_s``, noticed while decoding.
            UndecodableAudio: no audio came out; also for a file that crashed the decoder
                (``decoder_crashed``), hung it (``decode_timeout``) or needed more memory
                than the limit (``decode_memory``).
            StorageFull: the disk is full.
            ShuttingDown: the decoder was closed.
        """
        target = scratch.unique("pcm", ".s16")
        request = {
            "op": "decode",
            "source": _absolute(file.path),
            "target": _absolute(target),
            "rate": SAMPLE_RATE,
            "max_seconds": self._settings.max_duration_s,
            "chain": asdict(self._chain) if self._chain else None,
            "loudness": options.loudness,
        }
        light = file.size <= LIGHT_BYTES and (file.duration or 0.0) <= LIGHT_SECONDS
        job = Job(request, self._settings.decode_timeout_s, light=light, counts=True)
        reply = await self._run(job)
        return Waveform(
            path=target,
            samples=int(reply["samples"]),
            lead=int(reply["lead"]),
            tail=int(reply["tail"]),
            peak=float(reply["peak"]),
            damaged=int(reply["damaged"]),
            envelope=_envelope(reply["envelope"]),
        )

    async def transcode(self, file: AudioFile, scratch: Scratch) -> Path:
        """The file's audio in ``scratch``, as Opus in WebM.

        Raises:
            UndecodableAudio, AudioTooLong, StorageFull, ShuttingDown: as ``decode``.
        """
        target = scratch.unique("opus", ".webm")
        request = {
            "op": "transcode",
            "source": _absolute(file.path),
            "target": _absolute(target),
            "max_seconds": self._settings.max_duration_s,
        }
        light = file.size <= LIGHT_BYTES
        await self._run(Job(request, self._settings.decode_timeout_s, light=light, counts=True))
        return target

    async def _run(self, job: Job) -> dict[str, Any]:
        self.start()
        self._queue.put(job)
        try:
            reply = await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            job.abort("cancelled")
            await _ended(job.ended)
            raise
        return self._outcome(job, reply)

    def _outcome(self, job: Job, reply: dict[str, Any] | None) -> dict[str, Any]:
        """The worker's answer, or the error that it or its death stands for."""
        if reply is None:
            raise self._death(job)
        if "ok" in reply:
            return dict(reply["ok"])
        if reply.get("detail"):
            _log.info("undecodable audio: %s", reply["detail"])
        if reply.get("error") == "storage_full":
            raise StorageFull
        kind = getattr(errors, str(reply.get("error")), UndecodableAudio)
        raise kind(str(reply.get("message", "")), code=reply.get("code"))

    def _death(self, job: Job) -> Exception:
        if job.reason == "closed":
            return errors.ShuttingDown()
        if job.reason == "timeout":
            return UndecodableAudio(
                f"Decoding this file took longer than this server allows ({job.limit:g} s).",
                code="decode_timeout",
            )
        if not job.started:
            return DecoderCrashed("The audio decoder could not be started on this server.")
        return UndecodableAudio(
            "Decoding this file crashed the audio decoder; the file is probably damaged.",
            code="decoder_crashed",
        )

    def _limits(self, *, gives_way: bool) -> dict[str, int]:
        settings = self._settings
        seconds = settings.max_duration_s + LEAD_SECONDS + TAIL_SECONDS + 60
        rate = max(SAMPLE_RATE, self._chain.rate if self._chain else 0)
        return {
            "memory_bytes": settings.decode_memory_mb << 20,
            "file_bytes": int(2 * rate * seconds),
            "gives_way": int(gives_way),
        }


def _envelope(reply: dict[str, Any]) -> Envelope:
    """The worker's figures; it has read a caller's bytes and is believed in nothing else."""
    peaks = bytes.fromhex(str(reply["peaks"]))[:MOST_POINTS]
    return Envelope(float(reply["duration"]), float(reply["points_per_second"]), peaks.hex())


def _absolute(path: Path) -> str:
    return str(path.absolute())


async def _ended(ended: Future[None]) -> None:
    """Wait until a killed job has let go of its files (milliseconds)."""
    waiting = asyncio.wrap_future(ended)
    while not waiting.done():
        try:
            await asyncio.wait([waiting], timeout=5)
        except asyncio.CancelledError:
            continue
        return
