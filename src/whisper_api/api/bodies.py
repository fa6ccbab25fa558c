"""The ways in which audio comes with a request: upload, URL, base64, a path of the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request

from whisper_api.api.forms import read_json, read_upload, take_text
from whisper_api.api.json_stream import read_base64
from whisper_api.api.options import Fields
from whisper_api.audio.scratch import Scratch
from whisper_api.runtime import Runtime
from whisper_api.types import AudioFile


@dataclass(frozen=True, slots=True)
class Source:
    """A request's fields, and how to get at its audio once they are known to be good."""

    fields: Fields
    fetch: Callable[[], Awaitable[AudioFile]]


Reader = Callable[[Request, Runtime, Scratch], Awaitable[Source]]


async def from_upload(request: Request, runtime: Runtime, scratch: Scratch) -> Source:
    """A multipart body."""
    upload = await read_upload(request, runtime.intake, scratch)
    return Source(Fields(upload.fields), lambda: runtime.intake.finish(upload.writer))


async def from_url(request: Request, runtime: Runtime, scratch: Scratch) -> Source:
    """A JSON body with ``url``."""
    body = await read_json(request)
    url = take_text(body, "url")
    return Source(Fields.from_json(body), lambda: runtime.intake.from_url(scratch, url))


async def from_path(request: Request, runtime: Runtime, scratch: Scratch) -> Source:
    """A JSON body with ``file_path``."""
    body = await read_json(request)
    path = take_text(body, "file_path")
    return Source(Fields.from_json(body), lambda: runtime.intake.from_path(scratch, path))


async def from_base64(request: Request, runtime: Runtime, scratch: Scratch) -> Source:
    """A JSON body with ``file``; it has to be read whole before its other members are known."""
    body, file = await read_base64(request, runtime.intake, scratch)

    async def fetch() -> AudioFile:
        return file

    return Source(Fields.from_json(body), fetch)
