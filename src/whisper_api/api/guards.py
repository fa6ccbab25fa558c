"""The guards around every request: plain ASGI, listed outermost first in ``app.guards``.

Each takes ``app`` first and passes on what is not its business, WebSockets included.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import secrets
import time
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whisper_api import errors
from whisper_api.api.access import is_cors_open, refuse
from whisper_api.api.errors import count_failure, response_for, unexpected
from whisper_api.audio.sources import too_large
from whisper_api.logs import request_id_var
from whisper_api.usage import stages_var

log = logging.getLogger(__name__)

_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_SMALL_BODY = 1 << 20
"""Bytes of an unread body that are let in and dropped, to keep the connection."""
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

OnRequest = Callable[[Scope, int, float], None]
"""Called at the end of a request with its scope, status and seconds."""


class RequestId:
    """Gives each request its id and each answer the headers that OpenAI's answers have.

    An answer sent before a large body was read also closes the connection: the caller then
    stops sending at once.
    """

    def __init__(self, app: ASGIApp) -> None:
        """``app`` is everything inside."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        ident = given if _SANE_ID.fullmatch(given) else f"req_{secrets.token_hex(16)}"
        started = time.perf_counter()
        unread = _expects_much(headers)

        async def watch() -> Message:
            nonlocal unread
            message = await receive()
            if not message.get("more_body", False):
                unread = False
            return message

        async def stamp(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                _stamp(answer, ident, time.perf_counter() - started)
                if not scope["path"].startswith("/v1/"):
                    answer.setdefault("content-security-policy", _CSP)
                if unread:
                    answer["connection"] = "close"
            await send(message)

        token = request_id_var.set(ident)
        try:
            await self.app(scope, watch, stamp)
        finally:
            request_id_var.reset(token)


class HostCheck:
    """Answers only the host names it should, against DNS rebinding."""

    def __init__(self, app: ASGIApp, allowed: tuple[str, ...], listening_on: str) -> None:
        """``allowed`` holds names, ``*.suffix`` or ``*`` (all).

        When it is empty, a server on a loopback address answers this machine's own names only,
        any other server answers all.
        """
        self.app = app
        self._names = {name.lower() for name in allowed}
        self._own_only = not allowed and is_loopback(listening_on)
        self._any = "*" in self._names or not (allowed or self._own_only)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] in {"http", "websocket"} and not self._any:
            host = _bare_host(Headers(scope=scope).get("host", ""))
            if not self._matches(host):
                error = errors.InvalidOption(
                    f"This server does not answer for the host {host[:80]!r}. "
                    "Its setting allowed_hosts names those it does.",
                    param="Host",
                    code="host_not_allowed",
                )
                await refuse(error, scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _matches(self, host: str) -> bool:
        if self._own_only and (is_loopback(host) or host.endswith(".localhost")):
            return True
        return host in self._names or any(
            name.startswith("*.") and host.endswith(name[1:]) for name in self._names
        )


class Watch:
    """Tells ``on_request`` about each finished request: access log and metrics."""

    def __init__(self, app: ASGIApp, on_request: OnRequest) -> None:
        """``on_request`` must be quick."""
        self.app = app
        self._on_request = on_request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, started = 499, time.perf_counter()  # 499: the caller left before an answer

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        scope.setdefault("state", {})["stages"] = stages = dict[str, float]()
        token = stages_var.set(stages)
        try:
            await self.app(scope, receive, note)
        finally:
            stages_var.reset(token)
            self._on_request(scope, status, time.perf_counter() - started)


class Cors:
    """Open CORS, but only where browsers of other sites have business."""

    def __init__(self, app: ASGIApp) -> None:
        """Wraps ``app`` once more for the open paths."""
        self.app = app
        self._open = CORSMiddleware(
            app,
            allow_origins=["*"],
            allow_methods=["GET", "POST", "OPTIONS"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        is_open = scope["type"] == "http" and is_cors_open(scope)
        await (self._open if is_open else self.app)(scope, receive, send)


class CatchAll:
    """Turns every error that comes this far into an answer, and the unforeseen into the log."""

    def __init__(self, app: ASGIApp) -> None:
        """``app`` is everything inside."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def note(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        answer: Response | None = None
        try:
            await self.app(scope, receive, note)
        except ClientDisconnect:
            log.info("the client left: %s %s", scope["method"], scope["path"])
        except errors.WhisperApiError as error:
            count_failure(scope, error.code)
            answer = response_for(error)
        except Exception:
            log.exception("unexpected error in %s %s", scope["method"], scope["path"])
            count_failure(scope, "internal_error")
            answer = unexpected(request_id_var.get())
        if answer is not None and not begun:
            await answer(scope, receive, send)


class BodyLimit:
    """Refuses bodies over the limit of their path: announced ones unread, others as they arrive."""

    def __init__(self, app: ASGIApp, limit: Callable[[str], tuple[int, int]]) -> None:
        """``limit`` gives a path's most bytes, and the number that the error text names."""
        self.app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            FileTooLarge: the body is over the limit.
        """
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit, named = self._limit(scope["path"])
        if _content_length(Headers(scope=scope)) > limit:
            raise too_large(named)
        count = 0

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > limit:
                raise too_large(named)
            return message

        await self.app(scope, counted, send)


class BodyPatience:
    """Gives up bodies that stop coming, as those of connections that died unseen."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        """``seconds`` is the longest silence; 0 waits for ever."""
        self.app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            BodyStalled: the rest of the body does not come.
        """
        if scope["type"] != "http" or not self._seconds:
            await self.app(scope, receive, send)
            return
        coming = True

        async def awaited() -> Message:
            nonlocal coming
            if not coming:  # whoever asks now waits for the caller to leave
                return await receive()
            try:
                async with asyncio.timeout(self._seconds):
                    message = await receive()
            except TimeoutError:
                raise errors.BodyStalled from None
            coming = message.get("more_body", False)
            return message

        await self.app(scope, awaited, send)


def is_loopback(host: str) -> bool:
    """Whether ``host`` is a name or address of this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _stamp(headers: MutableHeaders, ident: str, seconds: float) -> None:
    headers["x-request-id"] = ident
    headers["access-control-expose-headers"] = "X-Request-ID"
    headers["openai-processing-ms"] = str(round(seconds * 1000))
    headers["openai-version"] = "2020-10-01"
    headers["x-content-type-options"] = "nosniff"
    headers["referrer-policy"] = "no-referrer"


def _content_length(headers: Headers) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() else 0


def _expects_much(headers: Headers) -> bool:
    return "transfer-encoding" in headers or _content_length(headers) > _SMALL_BODY


def _bare_host(host: str) -> str:
    """The name in a Host header: lower case, without port, brackets and final dot."""
    found = re.fullmatch(r"\[([^\]]*)\](?::\d*)?|([^:]*)(?::\d*)?", host.strip().lower())
    if found is None:
        return host
    name = found[1] if found[1] is not None else found[2]
    return str(name).rstrip(".")
