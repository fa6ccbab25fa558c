"""Who sent a request: from its key, or where no keys are set from its address."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import Scope

from whisper_api.api.session import lent_key
from whisper_api.errors import AuthenticationFailed, PermissionRefused
from whisper_api.keys import Allowance, KeyRing
from whisper_api.types import Caller

PUBLIC_PATHS = frozenset(
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
PUBLIC_PREFIXES = ("/web/", "/docs/")
PROTOCOL_KEY = "openai-insecure-api-key."
"""Browsers cannot set a WebSocket's headers: OpenAI's clients put the key into a subprotocol."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who sent a request, and how much they may ask for."""

    caller: Caller
    identity: str  #: what their requests are counted under
    allowance: Allowance


class Authenticator:
    """Finds out who sends, for HTTP and WebSocket doors alike."""

    def __init__(self, ring: KeyRing) -> None:
        """Without keys everybody may call everything."""
        self._ring = ring

    @property
    def required(self) -> bool:
        """Whether requests need a key at all."""
        return self._ring.required

    async def visitor(self, scope: Scope) -> Visitor:
        """Who sent the request.

        Raises:
            AuthenticationFailed: no key, or a wrong one (code ``invalid_api_key``).
        """
        public = is_public(scope["path"])
        if not public:
            await self._ring.refresh()
        if public or not self.required:
            caller = Caller(admin=not self.required)
            address = (scope.get("client") or ("unknown",))[0]
            return Visitor(caller, f"address {address_group(address)}", self._ring.everybody)
        key = self._ring.find(lent_key(scope) or given_key(Headers(scope=scope)))
        return Visitor(key.caller, f"key {key.caller.key}", key.allowance)


def is_public(path: str) -> bool:
    """Whether ``path`` needs no key."""
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIXES)


def given_key(headers: Headers) -> str:
    """The key that a request carries.

    Raises:
        AuthenticationFailed: it carries none.
    """
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    for protocol in headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(PROTOCOL_KEY):
            return protocol.strip().removeprefix(PROTOCOL_KEY)
    raise AuthenticationFailed("No API key was sent. Send one as 'Authorization: Bearer YOUR_KEY'.")


def caller_of(connection: HTTPConnection) -> Caller:
    """Who sent a request or opened a WebSocket, as the guard ``ApiKey`` found."""
    caller: Caller = connection.state.caller
    return caller


def require_admin(connection: HTTPConnection) -> Caller:
    """The caller, who must be an admin; also a FastAPI dependency.

    Raises:
        PermissionRefused: they are a user only.
    """
    caller = caller_of(connection)
    if not caller.admin:
        raise PermissionRefused(
            "You have insufficient permissions for this operation: it needs an API key with the "
            "role admin."
        )
    return caller


def address_group(address: str) -> str:
    """What counts as one address: of IPv6 a whole /64, since one machine has all of it."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network(f"{parsed}/64", strict=False))
