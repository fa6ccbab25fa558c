"""The history over HTTP: lists and search, edits, exports, audio for players, deletion."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi import Query as Param
from pydantic import ValidationError
from starlette.responses import Response, StreamingResponse

from whisper_api import formats
from whisper_api.api import playing, schemas
from whisper_api.api.auth import caller_of
from whisper_api.api.history_schemas import (
    Deleted,
    Patch,
    Peaks,
    Transcription,
    TranscriptionDetail,
    TranscriptionList,
    detailed,
)
from whisper_api.api.ranges import disposition
from whisper_api.errors import InvalidOption, NotFound
from whisper_api.exports import ZipStream, document, ending, stem_of
from whisper_api.formats import Format
from whisper_api.history_query import Query
from whisper_api.languages import parse_language
from whisper_api.records import Entry, Summary
from whisper_api.runtime import Runtime
from whisper_api.types import Caller

PATCH_LIMIT = 64 << 20
"""Most bytes of an edit: a day of speech with the times of its words."""
MOST_EXPORTED = 10_000
"""Transcripts in one archive."""
NO_AUDIO = "No audio is kept with this transcript."

router = APIRouter(prefix="/v1/history", tags=["History"])
_GONE: dict[int | str, dict[str, Any]] = {404: schemas.ERRORS[404]}


def _filters(
    q: Annotated[
        str, Param(max_length=1000, description="Words of the text, the title or the file name")
    ] = "",
    model: Annotated[str | None, Param(description="Id of a model")] = None,
    language: Annotated[str | None, Param(description="A code or an English name")] = None,
    source: Annotated[Literal["sync", "task", "import"] | None, Param()] = None,
    since: Annotated[
        str | None, Param(alias="from", description="Unix seconds or ISO 8601, UTC unless it says")
    ] = None,
    until: Annotated[
        str | None, Param(alias="to", description="As from; a date alone includes that day")
    ] = None,
) -> Query:
    """The filters of a list."""
    return Query(
        q=q,
        model=model,
        language=parse_language(language) if language else None,
        source=source,
        since=_moment("from", since, timedelta()),
        until=_moment("to", until, timedelta(days=1)),
    )


Filters = Annotated[Query, Depends(_filters)]
ResponseFormat = Annotated[
    str, Param(description=f"One of {', '.join(formats.FORMATS)}", alias="response_format")
]


@router.get("", summary="Kept transcripts: list, search")
async def listing(
    request: Request,
    filters: Filters,
    limit: Annotated[int, Param(ge=1, le=100)] = 20,
    after: Annotated[str | None, Param(description="Id of the last one of the page before")] = None,
    order: Annotated[Literal["asc", "desc"], Param(description="By time")] = "desc",
) -> TranscriptionList:
    """The caller's transcripts, newest first; ``q`` finds words in any of their forms."""
    query = replace(filters, limit=limit, after=after, order=order)
    found, more = await _runtime(request).history.page(query, caller_of(request))
    return TranscriptionList(
        data=[Transcription.of(summary) for summary in found],
        has_more=more,
        first_id=found[0].id if found else None,
        last_id=found[-1].id if found else None,
    )


@router.get(
    "/export",
    summary="Many transcripts as a zip archive",
    responses={200: {"content": {"application/zip": {}}}, **_GONE},
    response_class=Response,
)
async def export_many(
    request: Request,
    filters: Filters,
    ids: Annotated[str, Param(description="Ids between commas; left out: all found")] = "",
    response_format: ResponseFormat = "text",
) -> Response:
    """Those named by ``ids``, or all that the filters find, a file for each."""
    shape, caller, history = _shape(response_format), caller_of(request), _runtime(request).history
    if ids:
        wanted = list(dict.fromkeys(part.strip() for part in ids.split(",") if part.strip()))
        if len(wanted) > MOST_EXPORTED:
            raise InvalidOption(f"At most {MOST_EXPORTED} transcripts.", param="ids")
        # All are looked for before the answer begins: afterwards no error can be told.
        known = set(await history.known(wanted, caller))
        if missing := [id for id in wanted if id not in known]:
            raise NotFound(f"There is no transcript {missing[0][:60]!r}.", param="ids")
    else:
        wanted = await history.ids(filters, caller, MOST_EXPORTED)
    headers = {"content-disposition": disposition("attachment", "transcripts.zip")}
    content = _archive(_runtime(request), caller, wanted, shape)
    return StreamingResponse(content, headers=headers, media_type="application/zip")


@router.get("/{id}", summary="One transcript", response_model=TranscriptionDetail, responses=_GONE)
async def show(request: Request, id: str) -> Response:
    """Its text, segments and words, the original where it was edited, and how it was made."""
    entry = await _runtime(request).history.get(id, caller_of(request))
    return await _whole(entry)


@router.get(
    "/{id}/export",
    summary="One transcript as a file",
    responses={200: {"content": {"text/plain": {}, "application/json": {}}}, **_GONE},
    response_class=Response,
)
async def export_one(
    request: Request, id: str, response_format: ResponseFormat = "text"
) -> Response:
    """The transcript in a format, as an attachment."""
    shape = _shape(response_format)
    entry = await _runtime(request).history.get(id, caller_of(request))
    text = await asyncio.to_thread(document, entry.transcript, shape)
    name = f"{_stem(entry.summary)}.{ending(shape)}"
    headers = {"content-disposition": disposition("attachment", name)}
    return Response(text, headers=headers, media_type=formats.MEDIA_TYPES[shape])


@router.patch(
    "/{id}",
    summary="Rename or edit",
    response_model=TranscriptionDetail,
    responses=_GONE,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": Patch.model_json_schema()}},
        }
    },
)
async def change(request: Request, id: str) -> Response:
    """Change the title, the segments, or the whole text; the original is kept."""
    body = await request.body()
    patch = await asyncio.to_thread(_patch, body)
    entry = await _runtime(request).history.change(id, caller_of(request), patch.change())
    return await _whole(entry)


@router.post(
    "/{id}/revert",
    summary="Undo all edits",
    response_model=TranscriptionDetail,
    responses=_GONE,
)
async def revert(request: Request, id: str) -> Response:
    """Put back what the model wrote; the title stays."""
    entry = await _runtime(request).history.revert(id, caller_of(request))
    return await _whole(entry)


@router.delete("/{id}", summary="Forget a transcript", responses=_GONE)
async def delete(request: Request, id: str) -> Deleted:
    """With its audio (unless another record has the same), its task and cached results."""
    await _runtime(request).history.delete(id, caller_of(request))
    return Deleted(id=id)


@router.head("/{id}/audio", include_in_schema=False)
@router.get(
    "/{id}/audio",
    summary="Its audio, for players",
    responses={**playing.RESPONSES, **_GONE},
    response_class=Response,
)
async def audio(request: Request, id: str) -> Response:
    """The file as it came where browsers play that, otherwise as Opus; Range is served."""
    summary = await _runtime(request).history.summary(id, caller_of(request))
    return await playing.play(request, _stored(summary), _stem(summary))


@router.get("/{id}/peaks", summary="Its waveform, for players", responses=_GONE)
async def peaks(request: Request, id: str) -> Peaks:
    """How loud the audio is where, in at most 4,000 points, and where speech is."""
    runtime = _runtime(request)
    summary = await runtime.history.summary(id, caller_of(request))
    return Peaks.of(await runtime.playback.envelope(_stored(summary)))


async def _archive(
    runtime: Runtime, caller: Caller, ids: list[str], shape: Format
) -> AsyncIterator[bytes]:
    archive = ZipStream()
    for id in ids:
        try:
            entry = await runtime.history.get(id, caller)
        except NotFound:
            continue  # deleted meanwhile
        yield await asyncio.to_thread(_add, archive, entry, shape)
    yield await asyncio.to_thread(archive.close)


def _add(archive: ZipStream, entry: Entry, shape: Format) -> bytes:
    text = document(entry.transcript, shape)
    return archive.add(_stem(entry.summary), ending(shape), text, entry.summary.created_at)


def _patch(body: bytes) -> Patch:
    try:
        patch = Patch.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        unreadable = first["type"] == "json_invalid"
        raise InvalidOption(
            f"{where or 'The body'}: {first['msg']}.",
            param=where or None,
            code="invalid_json" if unreadable else None,
        ) from None
    if patch.segments is not None and patch.text is not None:
        raise InvalidOption("Send either segments or text.", param="text")
    if patch == Patch():
        raise InvalidOption("Nothing to change: send title, segments or text.")
    return patch


async def _whole(entry: Entry) -> Response:
    """The record as JSON, written in a thread: it may have a day of words."""
    text = await asyncio.to_thread(lambda: json.dumps(detailed(entry), ensure_ascii=False))
    return Response(text, media_type="application/json")


def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


def _stored(summary: Summary) -> str:
    if summary.audio is None:
        raise NotFound(NO_AUDIO, param="id", code="no_audio")
    return summary.audio


def _stem(summary: Summary) -> str:
    return stem_of(summary.title, summary.name)


def _shape(name: str) -> Format:
    for shape in formats.FORMATS:
        if shape == name:
            return shape
    raise InvalidOption(
        f"response_format is one of {', '.join(formats.FORMATS)}.", param="response_format"
    )


def _moment(param: str, text: str | None, day: timedelta) -> float | None:
    """Unix seconds of a parameter; ``day`` is added to a date without a time.

    Raises:
        InvalidOption: neither a number nor a date.
    """
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        if math.isfinite(seconds := float(text)):
            return min(max(seconds, 0.0), 1e12)
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=moment.tzinfo or UTC)
        return (moment + (day if len(text) <= len("2026-01-31") else timedelta())).timestamp()
    except (ValueError, OverflowError):
        raise InvalidOption(
            f"{param} must be Unix seconds or a date such as 2026-01-31.", param=param
        ) from None
