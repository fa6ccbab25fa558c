"""API keys: who may call what; for HTTP and WebSocket doors alike."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from pydantic import SecretStr
from starlette.requests import Request

from whisper_api.errors import AuthenticationFailed
from whisper_api.types import Caller

OPEN_PATHS = frozenset(
    {
        "/",
        "/config",
        "/docs",
        "/favicon.ico",
        "/health",
        "/openapi.json",
        "/ready",
        "/sample.wav",
        "/v1/capabilities",
    }
)
"""Paths that need no key: the page, its parts, probes and public descriptions."""
OPEN_PREFIXES = ("/web/", "/docs/")


class KeyCheck:
    """The keys of one process, kept as digests and compared in constant time."""

    def __init__(self, keys: Iterable[SecretStr]) -> None:
        """No keys: everybody may call everything."""
        self._digests = [_digest(key.get_secret_value()) for key in keys]

    @property
    def required(self) -> bool:
        """Whether requests need a key at all."""
        return bool(self._digests)

    def check(self, path: str, authorization: str | None) -> Caller:
        """Who the request comes from.

        Raises:
            AuthenticationFailed: no key, or a wrong one (code ``invalid_api_key``).
        """
        if not self.required or path in OPEN_PATHS or path.startswith(OPEN_PREFIXES):
            return Caller(admin=not self.required)
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise AuthenticationFailed(
                "No API key was sent. Send one as 'Authorization: Bearer YOUR_KEY'."
            )
        given = _digest(key.strip())
        # Every key is looked at, so that time says nothing about which one came near.
        if not sum(hmac.compare_digest(given, known) for known in self._digests):
            raise AuthenticationFailed("The API key is wrong.", code="invalid_api_key")
        return Caller(key=given.hex()[:16], name="key")


def caller_of(request: Request) -> Caller:
    """Who sent ``request``, as the guard ``ApiKey`` found."""
    caller: Caller = request.state.caller
    return caller


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
