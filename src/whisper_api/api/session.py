"""A cookie for players: audio elements cannot send an API key, so one is lent to the browser.

The cookie opens recordings to read and nothing else, scripts cannot see it, and pages of other
sites cannot use it. It holds the key itself: with the key it ends, on every server alike.
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import quote, unquote

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import Scope

COOKIE = "whisper_api_audio"
OPENED = "/v1"
"""The cookie's path; of what lies under it, only recordings are opened by it."""
LASTS_S = 12 * 3600
_RECORDING = re.compile(r"/v1/(?:history|tasks)/[^/]+/audio")

router = APIRouter(tags=["System"])


def lent_key(scope: Scope) -> str | None:
    """The key in the cookie of a request for a recording; None for everything else."""
    reading = scope["type"] == "http" and scope["method"] in {"GET", "HEAD"}
    if not reading or not _RECORDING.fullmatch(scope["path"]):
        return None
    value = cookie_parser(Headers(scope=scope).get("cookie", "")).get(COOKIE)
    return unquote(value) if value else None


def _opened(request: Request) -> str:
    """``OPENED`` as the browser sees it, behind a proxy below a path too."""
    root: str = request.app.state.settings.root_path
    return root + OPENED


def _sent_key(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


@router.post("/v1/session", status_code=204, summary="A cookie for audio players")
async def lend(request: Request, key: Annotated[str, Depends(_sent_key)]) -> Response:
    """Lets this browser play recordings of history and tasks for twelve hours without a header."""
    answer = Response(status_code=204, headers={"cache-control": "no-store"})
    if key:
        answer.set_cookie(
            COOKIE,
            quote(key, safe=""),
            max_age=LASTS_S,
            path=_opened(request),
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
    return answer


@router.delete("/v1/session", status_code=204, summary="Take the cookie back")
async def end(request: Request) -> Response:
    """The browser forgets it."""
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE, path=_opened(request), httponly=True, samesite="strict")
    return answer
