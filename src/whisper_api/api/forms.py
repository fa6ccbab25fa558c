"""multipart/form-data as it streams in: the file to scratch, small fields to memory.

Written for what official clients send: quoted and bare names, a boundary with ``=``, file first
or last, parts without a Content-Type, ``filename*``, list names with and without brackets.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from whisper_api.api.options import whole
from whisper_api.audio.scratch import Scratch
from whisper_api.audio.sources import Intake, UploadWriter
from whisper_api.errors import AudioMissing, InvalidOption, RequestError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

PORTION = 1 << 18
"""File bytes handed to a thread at a time."""
FIELD_LIMIT = 1 << 20
"""Most bytes of one ordinary field."""
FIELD_LIMITS = {"known_speaker_references": 4 << 20}
"""Fields that may be longer: whole clips as data URLs."""
MOST_PARTS = 1024
"""More than all keywords that a request may have, each in a part of its own."""
BODY_OVERHEAD = 20 << 20
"""Bytes that a body may have beside its file."""

_EXTENDED = re.compile(r";\s*filename\*\s*=\s*\"?([\w-]*)'[\w-]*'([^;\"]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Upload:
    """A parsed body: text fields by the names they came with, and the file, written."""

    fields: dict[str, list[str]]
    writer: UploadWriter


async def read_upload(request: Request, intake: Intake, scratch: Scratch) -> Upload:
    """Parse a multipart request; its file still has to go through ``Intake.finish``.

    Raises:
        RequestError: not multipart, broken, or over a limit.
        FileTooLarge: as soon as it is known.
        AudioMissing: no file.
        ClientDisconnect: the caller left.
    """
    reader = _Reader(_boundary(request), lambda name: intake.writer(scratch, name))
    try:
        async for chunk in request.stream():
            await reader.feed(chunk)
        return Upload(reader.fields, await reader.finish())
    finally:
        reader.close()


async def read_json(request: Request) -> dict[str, Any]:
    """A small JSON object (the body guard limits its size).

    Raises:
        RequestError: not JSON, or not an object.
    """
    return json_object(await request.body())


def json_object(data: bytes) -> dict[str, Any]:
    """``data`` as a JSON object.

    Raises:
        RequestError: it is none.
    """
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The body is not valid JSON: {error}.", code="invalid_json") from error
    if not isinstance(body, dict):
        raise RequestError("The body must be a JSON object.", code="invalid_json")
    return body


def take_text(body: dict[str, Any], name: str) -> str:
    """Take a text out of a JSON object.

    Raises:
        InvalidOption: it is missing, empty or not a text.
    """
    value = body.pop(name, None)
    if not isinstance(value, str) or not value.strip():
        raise InvalidOption(f"{name!r} is needed, as a text.", param=name, code="missing_field")
    return whole(value)


@dataclass(slots=True)
class _Part:
    """One part's name, the file name where it has one, and the text of a field."""

    name: str
    filename: str | None = None
    value: bytearray = field(default_factory=bytearray)

    @classmethod
    def parse(cls, disposition: str) -> _Part:
        kind, options = parse_options_header(disposition)
        name = _text(options.get(b"name", b""))
        if kind != b"form-data" or not name:
            raise _broken("a part has no name")
        filename = _text(options[b"filename"]) if b"filename" in options else None
        # Clients that send both put the readable name here.
        if extended := _EXTENDED.search(disposition):
            filename = urllib.parse.unquote(extended[2], "utf-8", "replace")
        return cls("file" if name == "file[]" else name, filename)

    @property
    def limit(self) -> int:
        return FIELD_LIMITS.get(self.name.partition("[")[0], FIELD_LIMIT)


class _Reader:
    """The parser's callbacks: they only sort bytes; ``feed`` has them written."""

    def __init__(self, boundary: bytes, open_file: Callable[[str | None], UploadWriter]) -> None:
        self.fields: dict[str, list[str]] = {}
        self._open_file = open_file
        self._writer: UploadWriter | None = None
        self._strangers: list[str] = []
        self._pending = bytearray()
        self._headers: dict[str, str] = {}
        self._header = (bytearray(), bytearray())
        self._part = _Part("")
        self._parts = 0
        self._field_bytes = 0
        self._ended = False
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, a, b: self._header[0].extend(data[a:b]),
            "on_header_value": lambda data, a, b: self._header[1].extend(data[a:b]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._all_read,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise _broken(str(error)) from error

    async def feed(self, chunk: bytes) -> None:
        """Parse ``chunk``; write the file's bytes when there is a portion of them."""
        try:
            for at in range(0, len(chunk), PORTION):
                self._parser.write(chunk[at : at + PORTION])
                if len(self._pending) >= PORTION:
                    await self._flush()
        except FormParserError as error:
            raise _broken(str(error)) from error

    async def finish(self) -> UploadWriter:
        """The file's writer, with all bytes written."""
        if not self._ended:
            raise _broken("it ends before its closing boundary")
        await self._flush()
        if self._writer is None:
            found = f" (one came as {self._strangers[0][:60]!r})" if self._strangers else ""
            raise AudioMissing(f"The form has no file in the field 'file'{found}.")
        return self._writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    async def _flush(self) -> None:
        if self._writer is not None and self._pending:
            portion, self._pending = bytes(self._pending), bytearray()
            await asyncio.to_thread(self._writer.write, portion)

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise RequestError(f"The form has more than {MOST_PARTS} fields.", code="too_many")
        self._headers.clear()

    def _header_end(self) -> None:
        # Latin-1 keeps every byte; the parser of options takes nothing else.
        name, value = (part.decode("latin-1") for part in self._header)
        self._headers[name.strip().lower()] = value
        self._header = (bytearray(), bytearray())

    def _headers_end(self) -> None:
        self._part = _Part.parse(self._headers.get("content-disposition", ""))
        if self._part.name == "file":
            if self._writer is not None:
                raise InvalidOption("The form has more than one file.", param="file")
            self._writer = self._open_file(self._part.filename)
        elif self._part.filename:
            self._strangers.append(self._part.name)

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if part.name == "file":
            self._pending += data[start:end]
        elif part.filename is None:
            part.value += data[start:end]
            self._field_bytes += end - start
            if self._field_bytes > BODY_OVERHEAD:
                raise RequestError(
                    f"The fields beside the file have more than {BODY_OVERHEAD} bytes together.",
                    code="too_long",
                )
            if len(part.value) > part.limit:
                raise InvalidOption(
                    f"The field {part.name[:60]!r} is larger than {part.limit} bytes.",
                    param=part.name[:60],
                    code="field_too_large",
                )

    def _end(self) -> None:
        part = self._part
        if part.name == "file" or part.filename is not None:
            return
        try:
            value = part.value.decode()
        except UnicodeDecodeError as error:
            raise InvalidOption(
                f"The field {part.name[:60]!r} is not UTF-8 text.", param=part.name[:60]
            ) from error
        self.fields.setdefault(part.name, []).append(value)

    def _all_read(self) -> None:
        self._ended = True


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        sent = kind.decode("latin-1")[:60] or "nothing"
        raise RequestError(
            f"The Content-Type must be multipart/form-data, not {sent}. For JSON there are "
            "/v1/audio/transcriptions/url and /v1/audio/transcriptions/base64.",
            code="unsupported_content_type",
        )
    if not options.get(b"boundary"):
        raise _broken("its Content-Type names no boundary")
    return options[b"boundary"]


def _broken(why: str) -> RequestError:
    return RequestError(f"The multipart body is broken: {why}.", code="invalid_multipart")


def _text(raw: bytes) -> str:
    """Header text: UTF-8, as browsers send it, else Latin-1."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
