"""Every way audio comes in; the only place that makes an ``AudioFile``.

Bytes are counted, hashed and written as they arrive, so nothing larger than the limit is ever
held. What a file is, its content decides; a name only has to end in something allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from whisper_api.audio.decode import Decoder
from whisper_api.audio.download import Allowed, fetch
from whisper_api.audio.media import (
    EXTENSIONS,
    SUPPORTED,
    canonical_mime,
    display_name,
    extension,
    same_container,
)
from whisper_api.audio.paths import copy_inside, copy_own, link_and_hash
from whisper_api.audio.probe import Probe
from whisper_api.audio.scratch import Scratch
from whisper_api.audio.uploads import PORTION, Base64Reader, UploadWriter, too_large
from whisper_api.config import Settings
from whisper_api.errors import (
    AudioMissing,
    PathRefused,
    UndecodableAudio,
    UnsupportedMedia,
)
from whisper_api.types import AudioFile

__all__ = ["Intake", "UploadWriter", "too_large"]


class Intake:
    """Turns uploads, URLs, base64 and paths into checked audio files."""

    def __init__(self, settings: Settings, decoder: Decoder) -> None:
        """``decoder`` looks into the files."""
        self._settings = settings
        self._decoder = decoder
        self._allowed = Allowed.parse(settings.url_allowed_hosts)
        rules = settings.file_validation
        self._extensions = {e.lower().lstrip(".") for e in rules.allowed_extensions}
        self._mimes = {canonical_mime(mime) for mime in rules.allowed_mime_types}
        self._containers = rules.allowed_containers
        self._codecs = {codec.lower() for codec in rules.allowed_codecs}

    @property
    def extensions(self) -> tuple[str, ...]:
        """File endings let in, for texts and ``/v1/capabilities``."""
        return tuple(sorted(self._extensions)) or EXTENSIONS

    def writer(self, scratch: Scratch, name: str | None) -> UploadWriter:
        """A writer for one upload; ``finish`` it."""
        return UploadWriter(scratch.unique("upload"), name, self._settings.max_file_bytes)

    async def finish(self, writer: UploadWriter) -> AudioFile:
        """Check what was written.

        Raises:
            AudioMissing: no bytes.
            UnsupportedMedia: name or content is not allowed.
            UndecodableAudio: not audio.
        """
        await asyncio.to_thread(writer.close)
        return await self._checked(writer.path, writer.name, writer.size, writer.digest)

    async def from_stream(
        self,
        scratch: Scratch,
        name: str | None,
        chunks: AsyncIterator[bytes],
        *,
        declared: int | None = None,
    ) -> AudioFile:
        """Bytes as they arrive; ``declared`` is the length announced, refused at once if too much.

        Raises:
            FileTooLarge: and what ``finish`` raises.
        """
        if declared is not None and declared > self._settings.max_file_bytes:
            raise too_large(self._settings.max_file_bytes)
        writer = await asyncio.to_thread(self.writer, scratch, name)
        try:
            portion = bytearray()
            async for chunk in chunks:
                portion += chunk
                if len(portion) >= PORTION:
                    await asyncio.to_thread(writer.write, bytes(portion))
                    portion.clear()
            await asyncio.to_thread(writer.write, bytes(portion))
            return await self.finish(writer)
        finally:
            writer.close()

    async def from_base64(
        self, scratch: Scratch, name: str | None, text: str | AsyncIterator[bytes]
    ) -> AudioFile:
        """Base64 (standard or URL-safe alphabet, padding optional, also a whole data URL).

        ``text`` may come in chunks, so that it is never held whole.

        Raises:
            InvalidOption: not base64.
            FileTooLarge: and what ``finish`` raises.
        """
        writer = await asyncio.to_thread(self.writer, scratch, name)
        decoder = Base64Reader(writer)
        try:
            if isinstance(text, str):
                await asyncio.to_thread(decoder.feed, text.encode("ascii", "replace"))
            else:
                portion = bytearray()
                async for chunk in text:
                    portion += chunk
                    if len(portion) >= PORTION:
                        await asyncio.to_thread(decoder.feed, bytes(portion))
                        portion.clear()
                await asyncio.to_thread(decoder.feed, bytes(portion))
            await asyncio.to_thread(decoder.finish)
            return await self.finish(writer)
        finally:
            writer.close()

    async def from_url(self, scratch: Scratch, url: str) -> AudioFile:
        """The file behind a public http(s) URL.

        Raises:
            UrlRefused, UrlFailed, FileTooLarge: and what ``finish`` raises.
        """
        opened = fetch(
            url,
            allowed=self._allowed,
            seconds=self._settings.url_timeout_s,
            max_redirects=self._settings.url_max_redirects,
        )
        async with opened as found:
            name = display_name(found.name)
            if extension(name) and not self._listed(name):
                # A path such as /get.php names the program, not the file.
                name = "download"
            return await self.from_stream(scratch, name, found.chunks, declared=found.length)

    async def from_path(self, scratch: Scratch, file_path: str) -> AudioFile:
        """A file of this server, copied, when it truly lies in an allowed directory.

        Raises:
            PathRefused: the feature is off, the path leads elsewhere, or it is no regular file.
            FileTooLarge: and what ``finish`` raises.
        """
        roots = self._settings.allowed_directories
        if not roots:
            raise PathRefused("Local files are switched off (allowed_directories is empty).")
        return await self._copied(scratch, partial(copy_inside, file_path, roots))

    async def from_own_path(self, scratch: Scratch, path: Path) -> AudioFile:
        """A file that the process's owner names; copied, so that it cannot change meanwhile.

        Raises:
            PathRefused: it cannot be read or is no regular file.
            FileTooLarge: and what ``finish`` raises.
        """
        return await self._copied(scratch, partial(copy_own, path), path.name)

    async def from_upload(self, scratch: Scratch, path: Path, name: str) -> AudioFile:
        """A finished upload in parts, hard-linked where that can be.

        Raises:
            NotFound: it was removed meanwhile.
            StorageFull: and what ``finish`` raises.
        """
        target = scratch.unique("upload")
        digest = await asyncio.to_thread(link_and_hash, path, target)
        size = (await asyncio.to_thread(target.stat)).st_size
        return await self._checked(target, name, size, digest)

    async def _copied(
        self, scratch: Scratch, copy: Callable[[UploadWriter], None], name: str | None = None
    ) -> AudioFile:
        writer = await asyncio.to_thread(self.writer, scratch, name)
        try:
            await asyncio.to_thread(copy, writer)
            return await self.finish(writer)
        finally:
            writer.close()

    async def _checked(self, path: Path, name: str, size: int, digest: str) -> AudioFile:
        if size == 0:
            raise AudioMissing("The audio file is empty.")
        if extension(name) and not self._listed(name):
            raise UnsupportedMedia(f"{self._refusal()} The file name ends in .{extension(name)}.")
        try:
            probe = await self._decoder.probe(path)
        except UndecodableAudio as error:
            raise UndecodableAudio(f"{error.message} {self._refusal()}", code=error.code) from error
        if refused := self._refused(probe):
            raise UnsupportedMedia(
                f"This server does not allow the file's {' and '.join(refused)}. {self._refusal()}"
            )
        duration = probe.duration or await self._decoder.measure(path, size)
        return AudioFile(
            path, name, size, digest, probe.container, probe.codec, probe.mime, duration
        )

    async def measured(self, file: AudioFile) -> AudioFile:
        """The same with the length that it has, which may not be the one that it claims."""
        duration = await self._decoder.measure(file.path, file.size)
        return file if duration is None else replace(file, duration=duration)

    def _refused(self, probe: Probe) -> list[str]:
        """What about the content no list of the settings allows, with what was found."""
        checks = (
            (f"MIME type ({probe.mime})", self._mimes, probe.mime in self._mimes),
            (
                f"container ({probe.container})",
                self._containers,
                any(same_container(name, probe.container) for name in self._containers),
            ),
            (f"codec ({probe.codec})", self._codecs, probe.codec in self._codecs),
            (
                f"content ({probe.container})",
                self._extensions,
                any(self._stands_for(ending, probe) for ending in self._extensions),
            ),
        )
        return [what for what, allowed, passes in checks if allowed and not passes]

    def _stands_for(self, ending: str, probe: Probe) -> bool:
        """Whether a listed ending means such content, so that renaming a file gains nothing."""
        item = SUPPORTED.get(ending)
        return item is None or probe.container in item.containers or probe.mime == item.mime

    def _listed(self, name: str) -> bool:
        return extension(name) in (self._extensions or EXTENSIONS)

    def _refusal(self) -> str:
        return f"Invalid file format. Supported formats: {list(self.extensions)}"
