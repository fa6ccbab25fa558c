"""tus 1.0: uploads that go on after a broken connection; a finished one's id is an ``audio_id``.

Extensions: creation, creation-with-upload, termination, expiration, checksum.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from whisper_api.api.auth import caller_of
from whisper_api.api.errors import count_failure, response_for
from whisper_api.errors import (
    BodyStalled,
    ChecksumMismatch,
    ContentTypeRefused,
    InvalidOption,
    ProtocolMismatch,
    WhisperApiError,
)
from whisper_api.runtime import Runtime
from whisper_api.uploads import CHECKSUMS, Append, Upload, UploadStore

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination,expiration,checksum"
BYTES = "application/offset+octet-stream"
PORTION = 1 << 18
"""Bytes handed to a thread at a time."""
METADATA_LIMIT = 8192
"""Most characters of the header Upload-Metadata."""


class TusRoute(APIRoute):
    """Errors of these routes carry tus's version, too, as every answer must."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's own handler with the header put on."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            except WhisperApiError as error:
                count_failure(request.scope, error.code)
                response = response_for(error)
                response.headers["tus-resumable"] = response.headers["tus-version"] = VERSION
                return response

        return handle


router = APIRouter(tags=["Uploads"], route_class=TusRoute)


@router.options("/v1/uploads", summary="What of tus is spoken", status_code=204)
async def describe(request: Request) -> Response:
    """Versions, extensions and the largest upload, in headers."""
    runtime: Runtime = request.app.state.runtime
    headers = {
        "tus-version": VERSION,
        "tus-extension": EXTENSIONS,
        "tus-max-size": str(runtime.settings.max_file_bytes),
        "tus-checksum-algorithm": ",".join(CHECKSUMS),
    }
    return _answer(204, headers)


@router.post("/v1/uploads", summary="Begin an upload in parts (tus)", status_code=201)
async def create(request: Request) -> Response:
    """Takes ``Upload-Length`` and ``Upload-Metadata`` (``filename``), answers with a Location."""
    _check_version(request)
    length = _number(request, "upload-length")
    metadata = request.headers.get("upload-metadata", "")
    name = _metadata(metadata).get("filename")
    store, caller = _store(request), caller_of(request)
    upload = await asyncio.to_thread(store.create, caller, length, name, metadata)
    if request.headers.get("content-type") == BYTES:
        writer = await asyncio.to_thread(store.append, upload.id, caller, 0, _checksum(request))
        upload = await _receive(request, writer)
    return _answer(201, {"location": f"/v1/uploads/{upload.id}"}, upload)


@router.head("/v1/uploads/{upload_id}", summary="How far an upload is (tus)")
async def state(request: Request, upload_id: str) -> Response:
    """``Upload-Offset`` and ``Upload-Length``; send on from there."""
    _check_version(request)
    upload = await asyncio.to_thread(_store(request).get, upload_id, caller_of(request))
    headers = {"cache-control": "no-store", "upload-length": str(upload.length)}
    if upload.metadata:
        headers["upload-metadata"] = upload.metadata
    return _answer(200, headers, upload)


@router.patch("/v1/uploads/{upload_id}", summary="The next part (tus)", status_code=204)
async def append(request: Request, upload_id: str) -> Response:
    """Bytes from ``Upload-Offset`` on; what has arrived when a connection breaks, counts."""
    _check_version(request)
    if request.headers.get("content-type") != BYTES:
        raise ContentTypeRefused(f"The Content-Type must be {BYTES}.")
    offset = _number(request, "upload-offset")
    writer = await asyncio.to_thread(
        _store(request).append, upload_id, caller_of(request), offset, _checksum(request)
    )
    return _answer(204, {}, await _receive(request, writer))


@router.delete("/v1/uploads/{upload_id}", summary="Drop an upload (tus)", status_code=204)
async def remove(request: Request, upload_id: str) -> Response:
    """Its bytes go; tasks made of it keep theirs."""
    _check_version(request)
    await asyncio.to_thread(_store(request).remove, upload_id, caller_of(request))
    return _answer(204, {})


@router.post("/v1/uploads/{upload_id}", include_in_schema=False)
async def overridden(request: Request, upload_id: str) -> Response:
    """PATCH and DELETE for those who can only POST (``X-HTTP-Method-Override``)."""
    method = request.headers.get("x-http-method-override", "").upper()
    if method == "PATCH":
        return await append(request, upload_id)
    if method == "DELETE":
        return await remove(request, upload_id)
    raise InvalidOption(
        "X-HTTP-Method-Override must be PATCH or DELETE.", param="X-HTTP-Method-Override"
    )


async def _receive(request: Request, writer: Append) -> Upload:
    """Write the body; what came before the caller left or fell silent is kept."""
    with writer:
        portion = bytearray()
        cut: ClientDisconnect | BodyStalled | None = None
        try:
            async for chunk in request.stream():
                portion += chunk
                if len(portion) >= PORTION:
                    await asyncio.to_thread(writer.write, bytes(portion))
                    portion.clear()
        except (ClientDisconnect, BodyStalled) as error:
            cut = error
        await asyncio.to_thread(writer.write, bytes(portion))
        if cut is not None:
            with contextlib.suppress(ChecksumMismatch):
                await asyncio.to_thread(writer.finish)
            raise cut
        return await asyncio.to_thread(writer.finish)


def _answer(status: int, headers: dict[str, str], upload: Upload | None = None) -> Response:
    headers = {"tus-resumable": VERSION, **headers}
    if upload is not None:
        headers["upload-offset"] = str(upload.offset)
        headers["upload-expires"] = formatdate(upload.expires, usegmt=True)
    return Response(status_code=status, headers=headers)


def _store(request: Request) -> UploadStore:
    runtime: Runtime = request.app.state.runtime
    return runtime.uploads


def _check_version(request: Request) -> None:
    if request.headers.get("tus-resumable") != VERSION:
        raise ProtocolMismatch


def _number(request: Request, name: str) -> int:
    text = request.headers.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidOption(f"The header {name} must be a number of bytes.", param=name.title())
    return int(text)


def _metadata(text: str) -> dict[str, str]:
    """tus's pairs: a key, a space and base64 of the value, between commas."""
    if len(text) > METADATA_LIMIT:
        raise _bad_metadata()
    found = {}
    for pair in filter(None, text.split(",")):
        key, _, value = pair.strip().partition(" ")
        try:
            found[key] = base64.b64decode(value, validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError) as error:
            raise _bad_metadata() from error
    return found


def _bad_metadata() -> WhisperApiError:
    return InvalidOption(
        f"Upload-Metadata is 'key base64,key base64' of at most {METADATA_LIMIT} characters.",
        param="Upload-Metadata",
    )


def _checksum(request: Request) -> tuple[str, bytes] | None:
    """The name and digest of the header Upload-Checksum."""
    text = request.headers.get("upload-checksum")
    if text is None:
        return None
    name, _, value = text.partition(" ")
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if name not in CHECKSUMS or not digest:
        raise InvalidOption(
            f"Upload-Checksum is one of {', '.join(CHECKSUMS)}, a space and base64.",
            param="Upload-Checksum",
        )
    return name, digest
