"""Stored audio for players: bytes that browsers can play, and what they draw of it.

Both are made when first asked for, once, and kept beside the audio; the envelope of what went
through the pipeline is there already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from whisper_api.audio.decode import Decoder
from whisper_api.audio.envelope import with_speech
from whisper_api.audio.media import plays_in_browsers
from whisper_api.audio.scratch import Scratch
from whisper_api.audio.speech import SpeechDetector, plan_windows
from whisper_api.config import Settings
from whisper_api.errors import NotFound
from whisper_api.storage import GONE
from whisper_api.stored_audio import StoredAudio
from whisper_api.types import Envelope, Options, VadOptions

T = TypeVar("T")

_ENDINGS = {"audio/mpeg": "mp3", "audio/mp4": "m4a"}
"""Endings of file names where they differ from the type's."""
TRANSCODED = "webm"
"""Ending of what ``Decoder.transcode`` makes."""


@dataclass(frozen=True, slots=True)
class Playable:
    """Bytes that a browser plays."""

    key: str  #: name in the store; the same name is always the same bytes
    mime: str
    ending: str  #: of a file name, without the dot
    size: int


class Playback:
    """Makes audio playable and drawable; for one event loop."""

    def __init__(
        self, settings: Settings, audio: StoredAudio, decoder: Decoder, detector: SpeechDetector
    ) -> None:
        """Nothing happens before the first request."""
        self._settings = settings
        self._audio = audio
        self._decoder = decoder
        self._detector = detector
        self._running: dict[str, asyncio.Task[Any]] = {}

    async def playable(self, digest: str) -> Playable:
        """The original where browsers play that, else a copy as Opus in WebM.

        Raises:
            NotFound: the audio is gone.
            UndecodableAudio: it cannot be decoded (any more).
            CapacityError: no room, or the database or store is away.
        """
        facts = await self._audio.facts(digest)
        if plays_in_browsers(facts.mime, facts.codec):
            key, mime = digest, facts.mime
            ending = _ENDINGS.get(mime, mime.partition("/")[2])
        else:
            key, mime, ending = f"{digest}.{TRANSCODED}", "audio/webm", TRANSCODED
        size = await asyncio.to_thread(self._audio.store.size, key)
        if size is None and key != digest:
            await self._once(key, partial(self._transcode, digest, key))
            size = await asyncio.to_thread(self._audio.store.size, key)
        if size is None:
            raise NotFound(GONE)
        return Playable(key, mime, ending, size)

    async def open(self, playable: Playable) -> BinaryIO:
        """Its bytes, seekable; reading blocks.

        Raises:
            NotFound: the audio is gone.
        """
        return await asyncio.to_thread(self._audio.store.open, playable.key)

    async def envelope(self, digest: str) -> Envelope:
        """What a player draws. Raises the same as ``playable``."""
        known = await self._audio.envelope(digest)
        if known is not None:
            return known
        return await self._once(f"{digest}.peaks", partial(self._measure, digest))

    async def _once(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """The result of ``work``, which runs once however many ask."""
        task = self._running.get(name)
        if task is None:
            task = self._running[name] = asyncio.ensure_future(work())
            task.add_done_callback(partial(self._ended, name))
        result: T = await asyncio.shield(task)
        return result

    def _ended(self, name: str, task: asyncio.Task[Any]) -> None:
        self._running.pop(name, None)
        # Where everybody has left, nobody asks for the error.
        if not task.cancelled():
            task.exception()

    async def close(self) -> None:
        """Stop what runs."""
        running = tuple(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _transcode(self, digest: str, key: str) -> None:
        async with self._scratch() as scratch:
            file = await self._audio.file(digest, scratch)
            path: Path = await self._decoder.transcode(file, scratch)
            await asyncio.to_thread(self._audio.store.put, key, path)

    async def _measure(self, digest: str) -> Envelope:
        options = Options(vad=VadOptions(enabled=self._settings.vad))
        async with self._scratch() as scratch:
            file = await self._audio.file(digest, scratch)
            waveform = await self._decoder.decode(file, scratch, options)
            windows = await asyncio.to_thread(plan_windows, waveform, options, self._detector)
        envelope = with_speech(waveform, windows)
        assert envelope is not None
        await self._audio.set_envelope(digest, envelope)
        return envelope

    def _scratch(self) -> Scratch:
        return Scratch.create(self._settings.scratch_dir)
