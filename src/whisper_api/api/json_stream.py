"""A JSON object with one huge text in it: the text is handed on as it arrives, never held."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request

from whisper_api.api.forms import FIELD_LIMIT, json_object
from whisper_api.audio.scratch import Scratch
from whisper_api.audio.sources import Intake
from whisper_api.errors import AudioMissing, RequestError
from whisper_api.types import AudioFile

_LONGEST_TOKEN = 64


async def read_any(
    request: Request, intake: Intake, scratch: Scratch
) -> tuple[dict[str, Any], AudioFile | None]:
    """As ``read_base64``, for bodies that need not have a ``file``."""
    splitter = TextSplitter("file")
    body: dict[str, Any] = {}
    try:
        file = await intake.from_base64(scratch, "", _characters(request, splitter, body))
    except AudioMissing:
        if splitter.found:
            raise
        return body, None
    del body["file"]
    return body, file


async def _characters(
    request: Request, splitter: TextSplitter, body: dict[str, Any]
) -> AsyncIterator[bytes]:
    """The text of ``file`` as it arrives; then ``body`` gets everything else."""
    async for chunk in request.stream():
        yield splitter.feed(chunk)
    # Judged before the audio, so that a broken body is not called broken audio.
    body.update(json_object(bytes(splitter.skeleton)))


async def read_base64(
    request: Request, intake: Intake, scratch: Scratch
) -> tuple[dict[str, Any], AudioFile]:
    """The members of a JSON body beside ``file``, and the audio that ``file`` holds as base64.

    Raises:
        RequestError: not a JSON object, or an over-long one.
        AudioRejected: no file, or one that is refused.
        InvalidOption: ``file`` is not base64.
        ClientDisconnect: the caller left.
    """
    body, file = await read_any(request, intake, scratch)
    if file is None:
        raise AudioMissing("The body has no text 'file' with the audio as base64.")
    return body, file


class TextSplitter:
    """Takes the text of one top-level member out of a JSON object that comes in chunks.

    ``skeleton`` keeps everything else, with an empty text in that place.
    """

    def __init__(self, name: str, limit: int = FIELD_LIMIT) -> None:
        """``name`` is the member's; ``limit`` the most bytes of everything else."""
        self.skeleton = bytearray()
        self.found = False
        self._name = json.dumps(name).encode()
        self._limit = limit
        self._mode = self._outside
        self._depth = 0
        self._token = bytearray()  # the last text outside, with its quotes
        self._after_colon = False
        self._rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """The characters of the member's text in ``chunk``, unescaped.

        Raises:
            RequestError: too much else, or the member comes twice.
        """
        data, at, out = self._rest + chunk, 0, bytearray()
        while at < len(data):
            after = self._mode(data, at, out)
            if after == at:  # an escape that goes on in the next chunk
                break
            at = after
            if len(self.skeleton) > self._limit:
                raise RequestError(
                    f"The body has more than {self._limit} bytes beside the file.", code="too_long"
                )
        self._rest = data[at:]
        return bytes(out)

    def _outside(self, data: bytes, at: int, out: bytearray) -> int:
        char = data[at : at + 1]
        self.skeleton += char
        if char == b'"':
            self._open_text()
        elif not char.isspace():
            self._depth += (char in b"{[") - (char in b"}]")
            self._after_colon = char == b":"
        return at + 1

    def _open_text(self) -> None:
        wanted = self._after_colon and self._depth == 1 and self._token == self._name
        self._after_colon = False
        if not wanted:
            self._token = bytearray(b'"')
            self._mode = self._inside
            return
        if self.found:
            raise RequestError("The body has more than one file.", param="file")
        self.found = True
        self._mode = self._wanted

    def _inside(self, data: bytes, at: int, out: bytearray) -> int:
        stop = _special(data, at)
        if stop == at and data[at : at + 1] == b"\\":
            stop = at + 2 if at + 2 <= len(data) else at
        elif stop == at:
            stop = at + 1
            self._mode = self._outside
        self.skeleton += data[at:stop]
        if len(self._token) < _LONGEST_TOKEN:
            self._token += data[at:stop]
        return stop

    def _wanted(self, data: bytes, at: int, out: bytearray) -> int:
        stop = _special(data, at)
        out += data[at:stop]
        if stop > at:
            return stop
        if data[at : at + 1] == b'"':
            self.skeleton += b'"'
            self._mode = self._outside
            return at + 1
        # Some clients escape the "/" or the "+" of base64.
        length = 6 if data[at + 1 : at + 2] == b"u" else 2
        if at + length > len(data):
            return at
        try:
            out += str(json.loads(b'"' + data[at : at + length] + b'"')).encode()
        except ValueError as error:
            raise RequestError("The body is not valid JSON.", code="invalid_json") from error
        return at + length


def _special(data: bytes, at: int) -> int:
    """The place of the next quote or backslash; the end where there is none."""
    quote, slash = data.find(b'"', at), data.find(b"\\", at)
    return min(place if place >= 0 else len(data) for place in (quote, slash))
