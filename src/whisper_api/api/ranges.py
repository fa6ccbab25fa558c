"""Parts of a stored file over HTTP: Range, If-Range, ETag, HEAD (RFC 9110)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import BinaryIO
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from whisper_api.errors import RangeRefused

PORTION = 1 << 18
"""Bytes read at a time."""
# Digits of 64 bits: `int` refuses thousands of them.
_RANGE = re.compile(r"bytes=(\d{0,20})-(\d{0,20})", re.IGNORECASE)

Open = Callable[[], Awaitable[BinaryIO]]


async def ranged(
    request: Request, open_file: Open, size: int, *, etag: str, media_type: str, name: str
) -> Response:
    """The file, the part of it that the request asks for, or 304.

    Raises:
        RangeRefused: the part begins behind the end.
    """
    headers = {
        "accept-ranges": "bytes",
        "etag": etag,
        # It never changes, but whether the caller may see it can.
        "cache-control": "private, no-cache",
        "content-disposition": disposition("inline", name),
        "x-content-type-options": "nosniff",
    }
    if _matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    span = wanted_range(request.headers, size, etag)
    start, stop = span or (0, size)
    if span is not None:
        headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["content-length"] = str(stop - start)
    status = 206 if span else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    file = await open_file()
    content = _read(file, start, stop)
    return StreamingResponse(content, status, headers, media_type)


def wanted_range(headers: Headers, size: int, etag: str) -> tuple[int, int] | None:
    """First byte and one past the last; None for all, also where several parts are asked for.

    Raises:
        RangeRefused: it begins behind the end.
    """
    found = _RANGE.fullmatch(headers.get("range", "").strip())
    condition = headers.get("if-range")
    if found is None or (condition is not None and condition != etag):
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= size or start >= stop:
        raise RangeRefused(size)
    return start, stop


def disposition(kind: str, name: str) -> str:
    """A Content-Disposition whose name no caller can break out of."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in " ._-()") else "_" for c in name)
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _matches(condition: str | None, etag: str) -> bool:
    if condition is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in condition.split(",")}
    return "*" in tags or etag in tags


async def _read(file: BinaryIO, start: int, stop: int) -> AsyncIterator[bytes]:
    try:
        await asyncio.to_thread(file.seek, start)
        while start < stop:
            chunk = await asyncio.to_thread(file.read, min(PORTION, stop - start))
            if not chunk:
                return
            start += len(chunk)
            yield chunk
    finally:
        file.close()
