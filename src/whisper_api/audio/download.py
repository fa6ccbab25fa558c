"""Fetches a caller's URL as if it were an attack.

Every host is resolved once per hop and the connection goes to the very address that was
checked, so a name that changes its answer gains nothing. Redirects are followed by hand and
checked the same way; proxies of the environment are not used; bytes, time and redirects are
capped; compressed bodies are refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import httpx

from whisper_api.errors import UrlFailed, UrlRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # the machine agent of a cloud, though formally public
        "192.88.99.0/24",  # 6to4 relays
        "64:ff9b:1::/48",  # NAT64 inside one network
        "::/96",  # IPv4-compatible addresses
        "fec0::/10",  # site-local
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
    )
)
CHUNK = 1 << 16
CONNECT_S = 5.0
"""Longest wait for one of a host's addresses while there is another one to try."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Hosts and networks that may be reached although they are private."""

    names: frozenset[str]
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]

    @classmethod
    def parse(cls, entries: Sequence[str]) -> Allowed:
        """From settings: ``10.0.0.0/8``, ``192.168.1.5`` or ``files.example.com``."""
        names, networks = set(), []
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                names.add(entry.strip().lower().rstrip("."))
        return cls(frozenset(names), tuple(networks))

    def admits(self, host: str, address: Address) -> bool:
        """Whether ``host`` at ``address`` may be connected to."""
        if host.lower().rstrip(".") in self.names:
            return True
        if any(address in network for network in self.networks):
            return True
        return is_public(address)


@dataclass(frozen=True, slots=True)
class Fetched:
    """An open answer."""

    name: str  #: last part of the final URL's path
    length: int | None  #: bytes announced
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked of the other side."""

    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


async def post(
    url: str, body: bytes, headers: Mapping[str, str], *, allowed: Allowed, seconds: float
) -> int:
    """Send ``body`` to ``url``, following nothing; the status of the answer.

    Raises:
        UrlRefused: a scheme or address that is not allowed.
        UrlFailed: the other side does not answer in time.
    """
    call = Call("POST", headers, body)
    with _failures(seconds):
        async with asyncio.timeout(seconds), _client(seconds) as client:
            response = await _connect(client, _parse(url), allowed, call, seconds)
            await response.aclose()
            return response.status_code


@asynccontextmanager
async def fetch(
    url: str,
    *,
    allowed: Allowed,
    seconds: float,
    max_redirects: int,
) -> AsyncIterator[Fetched]:
    """Open ``url``; the block reads its chunks. Everything must end within ``seconds``.

    Raises:
        UrlRefused: a scheme, address or redirect that is not allowed.
        UrlFailed: the other side does not answer, or not with the file.
    """
    with _failures(seconds):
        async with asyncio.timeout(seconds), _client(seconds) as client:
            response, final = await _follow(client, url, allowed, max_redirects, seconds)
            try:
                _check(response)
                name = unquote(final.path.rsplit("/", 1)[-1])
                yield Fetched(name, _length(response), response.aiter_raw(CHUNK))
            finally:
                await response.aclose()


def _client(seconds: float) -> httpx.AsyncClient:
    limits = httpx.Timeout(min(seconds, 30.0))
    return httpx.AsyncClient(trust_env=False, timeout=limits, follow_redirects=False)


@contextmanager
def _failures(seconds: float) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise UrlFailed(f"The URL was not fetched within {seconds:.0f} seconds.") from error
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise UrlFailed(f"The URL could not be fetched ({type(error).__name__}).") from error


def is_public(address: Address) -> bool:
    """Whether an address lies in the public internet, whatever it is wrapped in."""
    inner = _unwrap(address)
    if inner is not None:
        return is_public(inner)
    if any(address in network for network in _NEVER):
        return False
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified
    )


def _unwrap(address: Address) -> Address | None:
    """The IPv4 address inside a mapped, 6to4, Teredo or NAT64 one."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


async def _follow(
    client: httpx.AsyncClient, url: str, allowed: Allowed, max_redirects: int, seconds: float
) -> tuple[httpx.Response, SplitResult]:
    for _ in range(max_redirects + 1):
        parts = _parse(url)
        response = await _connect(client, parts, allowed, Call(), seconds)
        target = response.headers.get("location")
        if response.status_code not in _REDIRECTS or not target:
            return response, parts
        await response.aclose()
        try:
            url = urljoin(url, target)
        except ValueError as error:
            raise UrlFailed("The URL redirects to what is no URL.") from error
    raise UrlFailed(f"The URL redirects more than {max_redirects} times.")


async def _connect(
    client: httpx.AsyncClient, parts: SplitResult, allowed: Allowed, call: Call, seconds: float
) -> httpx.Response:
    """Open ``parts`` at one of its host's addresses, in the order the resolver gave them.

    A route may swallow packets, so no address but the last takes more than its share of
    ``seconds``.
    """
    host = parts.hostname or ""
    port = parts.port or _PORTS[parts.scheme]
    addresses = await _resolve(host, port, allowed)
    requests = [_request(client, parts, host, port, address, call) for address in addresses]
    share = min(CONNECT_S, seconds / len(requests))
    for request in requests[:-1]:
        limits = request.extensions["timeout"]
        request.extensions["timeout"] = {**limits, "connect": min(share, limits["connect"])}
        try:
            return await client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            continue
    return await client.send(requests[-1], stream=True)


def _request(
    client: httpx.AsyncClient,
    parts: SplitResult,
    host: str,
    port: int,
    address: Address,
    call: Call,
) -> httpx.Request:
    """A request to ``address`` that names ``host`` in its header and in the TLS handshake."""
    literal = f"[{address}]" if address.version == 6 else str(address)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    shown = f"[{host}]" if ":" in host else host.encode("idna").decode()
    return client.build_request(
        call.method,
        f"{parts.scheme}://{literal}:{port}{path}",
        content=call.body,
        headers={
            **call.headers,
            "Host": shown if port == _PORTS[parts.scheme] else f"{shown}:{port}",
            "Accept-Encoding": "identity",
            "User-Agent": "whisper-api-server",
        },
        extensions={"sni_hostname": shown.strip("[]")},
    )


def check_url(url: str) -> None:
    """Refuse a URL that could never be called, before it is kept.

    Raises:
        UrlRefused: another scheme, no host, or a password in it.
    """
    _parse(url)


async def _resolve(host: str, port: int, allowed: Allowed) -> list[Address]:
    """The addresses that may be connected to.

    Raises:
        UrlRefused: any of the name's addresses is not allowed; a mixed answer is an attack.
        UrlFailed: the name has no address.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )
    except (OSError, UnicodeError) as error:
        raise UrlFailed(f"The host {host!r} could not be found.") from error
    addresses = [ipaddress.ip_address(str(entry[4][0]).split("%")[0]) for entry in found]
    if not addresses:
        raise UrlFailed(f"The host {host!r} could not be found.")
    if not all(allowed.admits(host, address) for address in addresses):
        raise UrlRefused(f"The host {host!r} is not in the public internet.")
    return list(dict.fromkeys(addresses))


def _parse(url: str) -> SplitResult:
    try:
        parts = urlsplit(url.strip())
        _ = parts.port
    except ValueError as error:
        raise UrlRefused("The URL is not valid.") from error
    if parts.scheme not in _PORTS:
        raise UrlRefused("Only http and https URLs are fetched.")
    if not parts.hostname:
        raise UrlRefused("The URL names no host.")
    if parts.username is not None or parts.password is not None:
        raise UrlRefused("A URL with a user name or password is not fetched.")
    return parts


def _check(response: httpx.Response) -> None:
    if response.status_code != 200:
        raise UrlFailed(f"The URL answered with status {response.status_code}.")
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UrlFailed(f"The URL answered compressed ({encoding[:20]}), which is not accepted.")


def _length(response: httpx.Response) -> int | None:
    text = response.headers.get("content-length", "")
    return int(text) if text.isdecimal() else None
