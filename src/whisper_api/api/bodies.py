"""The ways in which audio comes with a request: upload, URL, base64, a path of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from fastapi import Request

from whisper_api.api.access import is_cross_site
from whisper_api.api.auth import caller_of
from whisper_api.api.forms import read_json, read_upload, take_text
from whisper_api.api.json_stream import read_any, read_base64
from whisper_api.api.options import Fields
from whisper_api.audio.scratch import Scratch
from whisper_api.errors import Conflict, CrossSiteRefused, InvalidOption
from whisper_api.runtime import Runtime
from whisper_api.types import AudioFile, Caller

_SOURCES = {"url": "url", "file_path": "path", "audio_id": "audio"}


@dataclass(frozen=True, slots=True)
class Source:
    """A request's fields, and how to get at its audio once they are known to be good."""

    fields: Fields
    fetch: Callable[[], Awaitable[AudioFile]]
    kind: str = "upload"  #: upload, url, base64, path or audio


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


async def from_any(request: Request, runtime: Runtime, scratch: Scratch) -> Source:
    """A multipart body, or JSON with one of ``url``, ``file``, ``file_path`` and ``audio_id``."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return await from_upload(request, runtime, scratch)
    body, file = await read_any(request, runtime.intake, scratch)
    named = [name for name in ("url", "file_path", "audio_id") if body.get(name) is not None]
    if len(named) + (file is not None) != 1:
        raise InvalidOption(
            "The body must have one of 'file', 'url', 'file_path' and 'audio_id'.",
            param="file",
            code="missing_field",
        )
    if file is not None:
        return Source(Fields.from_json(body), partial(_given, file), "base64")
    if named == ["file_path"] and not caller_of(request).key and is_cross_site(request.headers):
        # This door is open to other sites' pages, as ``/local`` is not: a key would be a consent.
        raise CrossSiteRefused
    text = take_text(body, named[0])
    intake = runtime.intake
    fetch = {
        "url": lambda: intake.from_url(scratch, text),
        "file_path": lambda: intake.from_path(scratch, text),
        "audio_id": lambda: stored_audio(runtime, caller_of(request), scratch, text),
    }[named[0]]
    return Source(Fields.from_json(body), fetch, _SOURCES[named[0]])


async def stored_audio(
    runtime: Runtime, caller: Caller, scratch: Scratch, audio_id: str
) -> AudioFile:
    """The audio of a finished upload, or what else is kept under an id of the caller's.

    Raises:
        NotFound: nothing, or another's.
        Conflict: the upload is not finished.
        AudioRejected: what was uploaded is no audio that is let in.
    """
    if not audio_id.startswith("upload_"):
        hold = await runtime.audio.held(audio_id, caller)
        return await runtime.audio.file(hold.digest, scratch, hold.name)
    upload = await asyncio.to_thread(runtime.uploads.get, audio_id, caller)
    if not upload.complete:
        raise Conflict(
            f"The upload has {upload.offset} of {upload.length} bytes.",
            param="audio_id",
            code="upload_incomplete",
        )
    path = runtime.uploads.path(upload.id)
    return await runtime.intake.from_upload(scratch, path, upload.name)


async def _given(file: AudioFile) -> AudioFile:
    return file
