"""Writers that count, hash and store a caller's bytes as they arrive; base64 is one of them."""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import re
from pathlib import Path
from typing import BinaryIO

from whisper_api.audio.media import display_name
from whisper_api.errors import FileTooLarge, InvalidOption, StorageFull

PORTION = 1 << 18
"""Bytes collected before they go to a thread."""
_LONGEST_HEAD = 256
_DATA_URL = re.compile(rb"data:[^,]{0,240};base64,", re.IGNORECASE)
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a disk without room says; the last where a process may write no larger files."""
_STANDARD = bytes.maketrans(b"-_", b"+/")  # the URL-safe alphabet is taken as well


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
            StorageFull: the disk is full.
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
            if error.errno in DISK_FULL:
                raise StorageFull from error
            raise

    def close(self) -> None:
        """Close the file; idempotent.

        Raises:
            StorageFull: the disk is full.
        """
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                raise StorageFull from error

    @property
    def digest(self) -> str:
        """sha256 of all bytes so far, hex."""
        return self._hash.hexdigest()


class Base64Reader:
    """Decodes base64 in portions into a writer."""

    def __init__(self, writer: UploadWriter) -> None:
        """``writer`` gets the bytes."""
        self._writer = writer
        self._begun = False
        self._ended = False
        self._carry = b""

    def feed(self, text: bytes) -> None:
        """Take the next part of the text, a data URL's head included.

        Raises:
            InvalidOption: not base64.
            FileTooLarge: as ``UploadWriter.write``.
        """
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
        for at in range(0, len(text), PORTION):
            part = self._carry + b"".join(text[at : at + PORTION].split())
            whole = len(part) // 4 * 4
            self._carry = part[whole:]
            self._decode(part[:whole])

    def finish(self) -> None:
        """The text is at its end; padding may be missing.

        Raises:
            InvalidOption: it ends inside a character.
        """
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


def _not_base64() -> InvalidOption:
    return InvalidOption("file is not valid base64.", param="file", code="invalid_base64")


def too_large(limit: int) -> FileTooLarge:
    """The error for more than ``limit`` bytes."""
    return FileTooLarge(f"Maximum content size limit ({limit} bytes) exceeded.")
