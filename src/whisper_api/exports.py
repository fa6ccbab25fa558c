"""Transcripts as files: one document, or many in a zip archive that is made as it is sent."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from time import localtime
from typing import IO, cast

from whisper_api import formats
from whisper_api.audio.media import SUPPORTED, display_name, extension
from whisper_api.formats import Format
from whisper_api.types import Transcript

ENDINGS: dict[str, str] = {"text": "txt", "srt": "srt", "vtt": "vtt"}
"""Format -> ending of a file name; all others are ``json``."""
_RESERVED = '\\/:*?"<>|'
_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The first date that a zip archive can name."""


def document(transcript: Transcript, shape: Format) -> str:
    """The transcript in a format, with words wherever it has them."""
    if shape in formats.PLAIN:
        return formats.PLAIN[shape](transcript)
    if shape == "json":
        body = formats.to_json(transcript)
    else:
        wanted: tuple[formats.Granularity, ...] = ("segment",)
        wanted += ("word",) if transcript.words else ()
        body = formats.to_verbose_json(transcript, granularities=wanted)
    return json.dumps(body, ensure_ascii=False, indent=2) + "\n"


def stem_of(title: str, name: str) -> str:
    """What to call a record's files, without an ending: safe on every system."""
    if not title:
        title = str(PurePosixPath(name).stem) if extension(name) in SUPPORTED else name
    clean = "".join("_" if char in _RESERVED else char for char in title if char.isprintable())
    return display_name(clean[:100]).strip(" .") or "transcript"


def ending(shape: str) -> str:
    """The ending of a file in this format, without the dot."""
    return ENDINGS.get(shape, "json")


class ZipStream:
    """A zip archive written piece by piece; ``add`` and ``close`` return what is to be sent."""

    def __init__(self) -> None:
        """Empty."""
        self._sink = _Sink()
        self._zip = zipfile.ZipFile(cast("IO[bytes]", self._sink), "w", zipfile.ZIP_DEFLATED)
        self._names: set[str] = set()

    def add(self, stem: str, suffix: str, content: str, written: float) -> bytes:
        """One file more; a name that was there before gets a number.

        ``written`` is its Unix time.
        """
        moment = max(localtime(written)[:6], _EARLIEST)
        info = zipfile.ZipInfo(self._unused(stem, suffix), moment)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = 0o644 << 16
        self._zip.writestr(info, content)
        return self._sink.take()

    def close(self) -> bytes:
        """The end of the archive."""
        self._zip.close()
        return self._sink.take()

    def _unused(self, stem: str, suffix: str) -> str:
        for name in _numbered(stem, suffix):
            if name.casefold() not in self._names:
                self._names.add(name.casefold())
                return name
        raise AssertionError("numbers do not end")


def _numbered(stem: str, suffix: str) -> Iterator[str]:
    yield f"{stem}.{suffix}"
    number = 2
    while True:
        yield f"{stem} ({number}).{suffix}"
        number += 1


class _Sink:
    """As much of a file as an archive needs that never goes back."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Keep ``data`` for ``take``."""
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""

    def take(self) -> bytes:
        """What was written since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)
