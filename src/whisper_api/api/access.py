"""Who may come in, from where, and how often: the guards in front of every route.

Order: ``SameOrigin`` (pages of other sites), ``ApiKey`` (who is it), ``RateLimit`` (how much).
A WebSocket is refused with the same body as a request.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whisper_api import errors
from whisper_api.api.auth import Authenticator, Visitor, is_public
from whisper_api.api.errors import count_failure, limit_headers, response_for
from whisper_api.errors import Standing
from whisper_api.rate_limits import RateLimits
from whisper_api.usage import meter_var, owner_var

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def is_cors_open(scope: Scope) -> bool:
    """Whether browsers may let pages of other sites read the answer.

    Of models only reading is open: pulling and removing them is not for other sites.
    """
    path = scope["path"]
    if path == "/health" or path.startswith("/v1/audio/"):
        return True
    if path == "/v1/models" or path.startswith("/v1/models/"):
        asked = Headers(scope=scope).get("access-control-request-method")
        method = asked if scope.get("method") == "OPTIONS" and asked else scope.get("method")
        return method in _READING
    return False


class SameOrigin:
    """Keeps pages of other sites away from what needs no key.

    A browser sends what any page asks for, so a page elsewhere could delete the history of a
    server without keys. Where keys are set, the key proves that the caller is meant.
    """

    def __init__(self, app: ASGIApp, keys: Authenticator) -> None:
        """``keys`` knows whether keys are needed."""
        self.app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] in {"http", "websocket"} and self._guards(scope):
            headers = Headers(scope=scope)
            if is_cross_site(headers):
                await refuse(errors.CrossSiteRefused(), scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _guards(self, scope: Scope) -> bool:
        return not (self._keys.required or is_public(scope["path"]) or is_cors_open(scope))


def is_cross_site(headers: Headers) -> bool:
    """Whether a browser says that a page of another site sent this."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in {"same-origin", "none"}
    origin = headers.get("origin")
    # Neither header: no browser, or one that is asked for a page by its user.
    return origin is not None and not _same_host(origin, headers.get("host", ""))


def _same_host(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
        default = {"http": 80, "https": 443}.get(parts.scheme)
        theirs = (parts.hostname, parts.port or default)
        ours = urlsplit(f"//{host}")
        return default is not None and theirs == (ours.hostname, ours.port or default)
    except ValueError:
        return False


class ApiKey:
    """Lets in who brings a key, where keys are set, and notes who it is."""

    def __init__(self, app: ASGIApp, keys: Authenticator) -> None:
        """``keys`` decides."""
        self.app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] in {"http", "websocket"}:
            try:
                visitor = await self._keys.visitor(scope)
            except errors.AuthenticationFailed as error:
                await refuse(error, scope, receive, send)
                return
            state = scope.setdefault("state", {})
            state["visitor"], state["caller"] = visitor, visitor.caller
            token = owner_var.set(visitor.caller.key)
            try:
                await self.app(scope, receive, send)
            finally:
                owner_var.reset(token)
            return
        await self.app(scope, receive, send)


class RateLimit:
    """Counts what starts work against the caller's limits."""

    def __init__(self, app: ASGIApp, limits: RateLimits) -> None:
        """``limits`` counts."""
        self.app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in {"http", "websocket"} or not starts_work(scope):
            await self.app(scope, receive, send)
            return
        visitor: Visitor = scope["state"]["visitor"]
        meter = _VisitorMeter(self._limits, visitor)
        told: dict[str, str] = {}

        async def stamp(message: Message) -> None:
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                MutableHeaders(scope=message).update(told)
            await send(message)

        try:
            told |= limit_headers(await meter.left())
            told |= limit_headers(
                await self._limits.take_request(visitor.identity, visitor.allowance)
            )
        except errors.RateLimited as error:
            await refuse(error, scope, receive, stamp)
            return
        token = meter_var.set(meter)
        try:
            await self.app(scope, receive, stamp)
        finally:
            meter_var.reset(token)


class _VisitorMeter:
    """Counts one visitor's audio."""

    def __init__(self, limits: RateLimits, visitor: Visitor) -> None:
        self._limits = limits
        self._visitor = visitor

    async def left(self) -> Standing | None:
        """What is left; raises where nothing is."""
        return await self._limits.spend_audio(self._visitor.identity, self._visitor.allowance)

    async def spend(self, seconds: float) -> None:
        """Count audio before it is worked on."""
        await self._limits.spend_audio(self._visitor.identity, self._visitor.allowance, seconds)

    async def give_back(self, seconds: float) -> None:
        """Take back what was counted for refused work."""
        await self._limits.give_audio_back(self._visitor.identity, self._visitor.allowance, seconds)


def starts_work(scope: Scope) -> bool:
    """Whether a request makes the server transcribe something."""
    path: str = scope["path"]
    if scope["type"] == "websocket":
        return True
    posted: bool = scope["method"] == "POST"
    return posted and (path.startswith(("/v1/audio/", "/local/")) or path.endswith("/retry"))


async def refuse(error: errors.WhisperApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request or a WebSocket's handshake with an error."""
    count_failure(scope, error.code)
    await response_for(error)(scope, receive, send)
