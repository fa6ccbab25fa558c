"""Every way audio comes in; the only place that makes an ``AudioFile``.

Bytes are counted, hashed and written as they arrive, so nothing larger than the limit is ever
held. What a file is, its content decides; a name only has to end in something allowed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import errno
import hashlib
import os
import re
import stat
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

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
from whisper_api.audio.probe import Probe
from whisper_api.audio.scratch import Scratch
from whisper_api.config import Settings
from whisper_api.errors import (
    AudioMissing,
    CapacityError,
    FileTooLarge,
    InvalidOption,
    PathRefused,
    UndecodableAudio,
    UnsupportedMedia,
)
from whisper_api.types import AudioFile

_PORTION = 1 << 18
_LONGEST_HEAD = 256
_DATA_URL = re.compile(rb"data:[^,]{0,240};base64,", re.IGNORECASE)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


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
            CapacityError: the disk is full.
        """
        self.size += len(data)
        if self.size > self._limit:
            self.close()
            raise too_large(self._limit)
        assert self._file is not None
        self._hash.update(data)
        try:
            self._file.write(data)
        except OSError as error:
            if error.errno in _DISK_FULL:
                raise storage_full() from error
            raise

    def close(self) -> None:
        """Close the file; idempotent.

        Raises:
            CapacityError: the disk is full.
        """
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                raise storage_full() from error

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
        return await self._copied(scratch, partial(_copy_inside, file_path, roots))

    async def from_own_path(self, scratch: Scratch, path: Path) -> AudioFile:
        """A file that the process's owner names; copied, so that it cannot change meanwhile.

        Raises:
            PathRefused: it cannot be read or is no regular file.
            FileTooLarge: and what ``finish`` raises.
        """
        return await self._copied(scratch, partial(_copy_own, path), path.name)

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
        return AudioFile(
            path, name, size, digest, probe.container, probe.codec, probe.mime, probe.duration
        )

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


def too_large(limit: int) -> FileTooLarge:
    """The error for more than ``limit`` bytes."""
    return FileTooLarge(f"Maximum content size limit ({limit} bytes) exceeded.")


def storage_full() -> CapacityError:
    """The error for a disk without room."""
    return CapacityError(
        "The server's disk is full; try again later.", retry_after=60, code="storage_full"
    )


class _Base64:
    """Decodes base64 in portions into a writer."""

    def __init__(self, writer: UploadWriter) -> None:
        self._writer = writer
        self._begun = False
        self._ended = False
        self._carry = b""

    def feed(self, text: bytes) -> None:
        text = self._carry + text
        if not self._begun:
            text = text.lstrip()
            # The head of a data URL is told by its comma; base64 has none.
            heading = b"data:".startswith(text[:5].lower()) and b"," not in text
            if heading and len(text) < _LONGEST_HEAD:
                self._carry = text
                return
            self._begun = True
            if head := _DATA_URL.match(text):
                text = text[head.end() :]
        self._carry = b""
        for at in range(0, len(text), _PORTION):
            part = self._carry + b"".join(text[at : at + _PORTION].split())
            whole = len(part) // 4 * 4
            self._carry = part[whole:]
            self._decode(part[:whole])

    def finish(self) -> None:
        rest = b"".join(self._carry.split())
        self._decode(rest + b"=" * (-len(rest) % 4))

    def _decode(self, text: bytes) -> None:
        if not text:
            return
        if self._ended:
            raise _not_base64()
        self._ended = text.endswith(b"=")
        try:
            data = base64.b64decode(text.translate(_STANDARD), validate=True)
        except binascii.Error as error:
            raise _not_base64() from error
        self._writer.write(data)


_STANDARD = bytes.maketrans(b"-_", b"+/")  # the URL-safe alphabet is taken as well


def _not_base64() -> InvalidOption:
    return InvalidOption("file is not valid base64.", param="file", code="invalid_base64")


def _copy_inside(file_path: str, roots: tuple[Path, ...], writer: UploadWriter) -> None:
    """Copy a file that truly lies in one of ``roots``; nothing else about it is ever told."""
    try:
        real = Path(file_path).resolve(strict=True)
        allowed = [root.resolve() for root in roots]
    except (OSError, ValueError, RuntimeError) as error:
        raise PathRefused from error
    if not _within(real, allowed):
        raise PathRefused
    writer.name = display_name(real.name)
    with _open_regular(real) as file:
        # A folder on the way may have become a link since it was looked at.
        if not _within(_opened_path(file, real), allowed):
            raise PathRefused
        _copy(file, writer)


def _copy_own(path: Path, writer: UploadWriter) -> None:
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise PathRefused(f"{path} cannot be read.", param="file") from error
    with _open_regular(real) as file:
        _copy(file, writer)


def _within(path: Path, roots: list[Path]) -> bool:
    return any(path.is_relative_to(root) for root in roots)


def _opened_path(file: BinaryIO, path: Path) -> Path:
    """Where an open file lies, as the system tells it; elsewhere, where its path leads now."""
    try:
        return Path(os.readlink(f"/proc/self/fd/{file.fileno()}"))
    except OSError:
        now = path.resolve(strict=True)
        same = os.path.samestat(os.fstat(file.fileno()), now.stat())
        return now if same else Path("changed")


def _open_regular(path: Path) -> BinaryIO:
    """A regular file for reading; links, devices and pipes are refused without waiting on them."""
    names = ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_NOCTTY", "O_CLOEXEC")
    flags = os.O_RDONLY
    for name in names:
        flags |= getattr(os, name, 0)
    try:
        handle = os.open(path, flags)
    except OSError as error:
        raise PathRefused(f"The file cannot be read ({error.strerror}).") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise PathRefused("The path is not a regular file.")
    return os.fdopen(handle, "rb")


def _copy(file: BinaryIO, writer: UploadWriter) -> None:
    while data := file.read(_PORTION):
        writer.write(data)
