"""Every way audio comes in; the only place that makes an ``AudioFile``.

Bytes are counted, hashed and written as they arrive, so nothing larger than the limit is ever
held. What a file is, its content decides; a name only has to end in something allowed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
import re
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

from whisper_api.audio.decode import Decoder
from whisper_api.audio.download import Allowed, fetch
from whisper_api.audio.media import (
    EXTENSIONS,
    canonical_mime,
    container_mime,
    display_name,
    extension,
)
from whisper_api.audio.scratch import Scratch
from whisper_api.config import Settings
from whisper_api.errors import (
    AudioMissing,
    FileTooLarge,
    InvalidOption,
    PathRefused,
    UndecodableAudio,
    UnsupportedMedia,
)
from whisper_api.types import AudioFile

_PORTION = 1 << 18
_DATA_URL = re.compile(rb"data:[^,]{0,200},")


class UploadWriter:
    """Takes bytes into a scratch file; its methods block, so call them from a thread."""

    def __init__(self, path: Path, name: str | None, limit: int) -> None:
        """``name`` is the caller's; ``limit`` counts bytes."""
        self.path = path
        self.name = display_name(name)
        self.size = 0
        self._limit = limit
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = path.open("wb")

    def write(self, data: bytes) -> None:
        """Append ``data``.

        Raises:
            FileTooLarge: the file would pass its limit; nothing more is written.
        """
        self.size += len(data)
        if self.size > self._limit:
            self.close()
            raise too_large(self._limit)
        assert self._file is not None
        self._hash.update(data)
        self._file.write(data)

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def digest(self) -> str:
        """sha256 of all bytes so far, hex."""
        return self._hash.hexdigest()


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
        self._containers = set(rules.allowed_containers)
        self._codecs = set(rules.allowed_codecs)

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
                if len(portion) >= _PORTION:
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
        decoder = _Base64(writer)
        try:
            if isinstance(text, str):
                await asyncio.to_thread(decoder.feed, text.encode("ascii", "replace"))
            else:
                portion = bytearray()
                async for chunk in text:
                    portion += chunk
                    if len(portion) >= _PORTION:
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
            timeout=self._settings.url_timeout_s,
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
        path = await asyncio.to_thread(_inside, file_path, roots)
        return await self.from_own_path(scratch, path)

    async def from_own_path(self, scratch: Scratch, path: Path) -> AudioFile:
        """A file that the process's owner names; copied, so that it cannot change meanwhile.

        Raises:
            PathRefused: it cannot be read or is no regular file.
            FileTooLarge: and what ``finish`` raises.
        """
        writer = await asyncio.to_thread(self.writer, scratch, path.name)
        try:
            await asyncio.to_thread(_copy, path, writer)
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
        mime = container_mime(probe.container)
        refused = [
            what
            for what, value, allowed in (
                ("MIME type", canonical_mime(mime), self._mimes),
                ("container", probe.container, self._containers),
                ("codec", probe.codec, self._codecs),
            )
            if allowed and not ({value, *value.split(",")} & allowed)
        ]
        if refused:
            raise UnsupportedMedia(
                f"This server does not allow the file's {' and '.join(refused)} "
                f"({mime}, {probe.container}, {probe.codec}). {self._refusal()}"
            )
        return AudioFile(
            path, name, size, digest, probe.container, probe.codec, mime, probe.duration
        )

    def _listed(self, name: str) -> bool:
        return extension(name) in (self._extensions or EXTENSIONS)

    def _refusal(self) -> str:
        return f"Invalid file format. Supported formats: {list(self.extensions)}"


def too_large(limit: int) -> FileTooLarge:
    """The error for more than ``limit`` bytes."""
    return FileTooLarge(f"Maximum content size limit ({limit} bytes) exceeded.")


class _Base64:
    """Decodes base64 in portions into a writer."""

    def __init__(self, writer: UploadWriter) -> None:
        self._writer = writer
        self._begun = False
        self._carry = b""

    def feed(self, text: bytes) -> None:
        text = self._carry + text
        if not self._begun:
            # The head of a data URL is told by its comma; base64 has none.
            if b"data:".startswith(text[:5]) and b"," not in text and len(text) < 256:
                self._carry = text
                return
            self._begun = True
            if head := _DATA_URL.match(text, 0, 220):
                text = text[head.end() :]
        self._carry = b""
        for at in range(0, len(text), _PORTION):
            part = self._carry + b"".join(text[at : at + _PORTION].split())
            whole = len(part) // 4 * 4
            self._carry = part[whole:]
            self._writer.write(_decode64(part[:whole]))

    def finish(self) -> None:
        if rest := b"".join(self._carry.split()):
            self._writer.write(_decode64(rest + b"=" * (-len(rest) % 4)))


def _decode64(text: bytes) -> bytes:
    for alphabet in (None, b"-_"):
        try:
            return base64.b64decode(text, altchars=alphabet, validate=True)
        except binascii.Error:
            continue
    raise InvalidOption("file is not base64.", param="file", code="invalid_base64")


def _inside(file_path: str, roots: tuple[Path, ...]) -> Path:
    try:
        real = Path(file_path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise PathRefused from error
    if any(real.is_relative_to(root.resolve()) for root in roots):
        return real
    raise PathRefused


def _copy(path: Path, writer: UploadWriter) -> None:
    for data in _read_regular(path):
        writer.write(data)


def _read_regular(path: Path) -> Iterator[bytes]:
    """The bytes of a regular file; devices, pipes and links swapped in meanwhile are refused."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path.resolve(), flags | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise PathRefused(f"The file cannot be read ({error.strerror}).") from error
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise PathRefused("The path is not a regular file.")
        while data := file.read(_PORTION):
            yield data
