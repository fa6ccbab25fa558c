"""URLs are fetched as if they were attacks."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import socket
from typing import Any

import httpx
import pytest
from tests.media import make, tone
from tests.waiting import PATIENCE_S
from tests.webserver import Site, redirect

from whisper_api.audio.decode import Decoder
from whisper_api.audio.download import Allowed, fetch, is_public, post
from whisper_api.audio.scratch import Scratch
from whisper_api.audio.sources import Intake
from whisper_api.config import FileValidation, Settings
from whisper_api.errors import FileTooLarge, UndecodableAudio, UrlFailed, UrlRefused

SOUND = make("wav", tone(0.5))
LOOPBACK = ("127.0.0.1",)


def intake(decoder: Decoder, hosts: tuple[str, ...] = LOOPBACK, **settings: Any) -> Intake:
    return Intake(Settings(url_allowed_hosts=hosts, **settings), decoder)


def answer(body: bytes, *headers: str) -> bytes:
    return ("\r\n".join(["HTTP/1.1 200 OK", *headers]) + "\r\n\r\n").encode() + body


async def get(url: str, *hosts: str, seconds: float = PATIENCE_S, hops: int = 3) -> bytes:
    allowed = Allowed.parse(hosts)
    async with fetch(url, allowed=allowed, seconds=seconds, max_redirects=hops) as found:
        return b"".join([chunk async for chunk in found.chunks])


# --- which addresses are public ---------------------------------------------------------------

PRIVATE = """
127.0.0.1 127.8.9.10 0.0.0.0 10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254
169.254.0.1 100.64.0.1 100.100.100.200 168.63.129.16 192.0.0.1 192.0.2.1 198.18.0.1 198.51.100.1
203.0.113.7 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
::1 :: fe80::1 fc00::1 fd00:ec2::254 ff02::1 fec0::1 2001:db8::1 100::1 5f00::1
::ffff:127.0.0.1 ::ffff:169.254.169.254 ::ffff:10.0.0.1 ::127.0.0.1 ::10.0.0.1
64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 2002:7f00:1:: 2002:a9fe:a9fe::1 2002:c0a8:101::
2001:0:7f00:1::
"""
PUBLIC = """
8.8.8.8 1.1.1.1 172.32.0.1 172.15.0.1 100.128.0.1 192.169.0.1 2606:4700::1111 2a00:1450:4001::1
::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1
"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC.split())
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


# --- what is refused before anything is sent ----------------------------------------------------

HOSTS = ["127.0.0.1", "localhost", "[::1]", "0", "127.1", "2130706433", "0x7f.0.0.1", "0.0.0.0"]
HOSTS += ["[::ffff:127.0.0.1]", "[::]", "169.254.169.254", "[fd00:ec2::254]", "10.0.0.1"]
URLS = ["", "x", "file:///etc/passwd", "ftp://example.com/x", "gopher://127.0.0.1/", "HTTP:x"]
URLS += ["http://", "http:///x", "http://user@example.com/", "http://a:b@example.com/x.wav"]
URLS += ["http://example.com:99999/", "//example.com/x", "http://[::1", "jar:http://x!/"]
URLS += ["data:audio/wav,x"]


@pytest.mark.parametrize("host", HOSTS)
async def test_private_hosts_are_refused(host: str) -> None:
    async with Site({"/x": SOUND}) as site:
        with pytest.raises((UrlRefused, UrlFailed)) as caught:
            await get(f"http://{host}:{site.port}/x")
        assert site.seen == []
        assert caught.value.param == "url"
        if host in ("127.0.0.1", "localhost", "169.254.169.254"):
            assert caught.value.code == "url_refused"


@pytest.mark.parametrize("url", URLS)
async def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(UrlRefused):
        await get(url, "0.0.0.0/0")


async def test_a_url_that_cannot_be_encoded_fails() -> None:
    with pytest.raises(UrlFailed):
        await get("http://8.8.8.8/\ud800")


async def test_a_name_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, {"mixed.example": ["8.8.8.8", "127.0.0.1"]})
    with pytest.raises(UrlRefused):
        await get("http://mixed.example/x")


def resolver(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]) -> list[str]:
    """Answer look-ups from a table; the names asked for."""
    asked: list[str] = []

    async def getaddrinfo(self: object, host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        if host not in names:
            raise socket.gaierror(-2, "unknown")
        return [(socket.AF_INET, 1, 6, "", (address, port)) for address in names[host]]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return asked


async def test_unknown_names_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, {})
    with pytest.raises(UrlFailed, match="could not be found"):
        await get("http://nowhere.example/x")


async def test_the_checked_address_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked up once; what it answers later has no say."""
    async with Site({"/x": SOUND}) as site:
        asked = resolver(monkeypatch, {"files.example": ["127.0.0.1"]})
        assert await get(f"http://files.example:{site.port}/x", "files.example") == SOUND
        assert asked == ["files.example"]
        ((_, headers),) = site.seen
        assert headers["host"] == f"files.example:{site.port}"


async def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Site({"/x": SOUND}) as site:
        resolver(monkeypatch, {"files.example": ["127.0.0.2", "127.0.0.1"]})
        assert await get(f"http://files.example:{site.port}/x", "127.0.0.0/8") == SOUND


def answering(monkeypatch: pytest.MonkeyPatch, silent: tuple[str, ...] = ()) -> list[httpx.Request]:
    """Answer every request without a network, except to addresses that swallow packets."""
    sent: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        if request.url.host in silent:
            raise httpx.ConnectTimeout("", request=request)
        return httpx.Response(200, stream=httpx.ByteStream(b"x"))

    real = httpx.AsyncClient

    def client(**options: Any) -> httpx.AsyncClient:
        assert options["trust_env"] is False
        return real(transport=httpx.MockTransport(respond), **options)

    monkeypatch.setattr(httpx, "AsyncClient", client)
    return sent


@pytest.mark.parametrize(
    ("seconds", "connecting"), [(300.0, [5, 5, 30]), (15.0, [5, 5, 15]), (6.0, [2, 2, 6])]
)
async def test_an_address_that_swallows_packets_leaves_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch, seconds: float, connecting: list[float]
) -> None:
    sent = answering(monkeypatch, silent=("2606:4700::1", "2606:4700::2"))
    resolver(monkeypatch, {"files.example": ["2606:4700::1", "2606:4700::2", "8.8.8.8"]})
    assert await get("http://files.example/x", seconds=seconds) == b"x"
    nobody = Allowed.parse(())
    assert await post("http://files.example/x", b"", {}, allowed=nobody, seconds=seconds) == 200
    assert [request.extensions["timeout"]["connect"] for request in sent] == connecting * 2
    assert {request.extensions["timeout"]["read"] for request in sent} == {connecting[-1]}


async def test_tls_names_the_host_not_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = answering(monkeypatch)
    resolver(monkeypatch, {"files.example": ["8.8.8.8"]})
    assert await get("https://Files.example/a%20b?q=1") == b"x"
    assert sent[0].url.host == "8.8.8.8"
    assert sent[0].url.raw_path == b"/a%20b?q=1"
    assert sent[0].headers["host"] == "files.example"
    assert sent[0].extensions["sni_hostname"] == "files.example"


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Site({}) as proxy, Site({"/x": SOUND}) as site:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert await get(f"{site.url}/x", *LOOPBACK) == SOUND
        assert proxy.seen == []


# --- settings that allow more -------------------------------------------------------------------


@pytest.mark.parametrize("entry", ["127.0.0.1", "127.0.0.0/8", "localhost", "LOCALHOST."])
async def test_allowed_hosts_and_networks(entry: str) -> None:
    async with Site({"/x": SOUND}) as site:
        host = "localhost" if entry.lower().startswith("local") else "127.0.0.1"
        assert await get(f"http://{host}:{site.port}/x", entry) == SOUND


async def test_an_allowed_host_does_not_allow_others() -> None:
    async with Site({"/x": redirect("http://10.0.0.1/x")}) as site:
        with pytest.raises(UrlRefused):
            await get(f"{site.url}/x", *LOOPBACK)


# --- redirects ------------------------------------------------------------------------------------


async def test_redirects_are_followed_and_counted() -> None:
    pages = {"/0": redirect("1"), "/1": redirect("/2", 301), "/2": redirect("3", 307), "/3": SOUND}
    async with Site(pages) as site:
        assert await get(f"{site.url}/0", *LOOPBACK, hops=3) == SOUND
        with pytest.raises(UrlFailed, match="more than 2 times"):
            await get(f"{site.url}/0", *LOOPBACK, hops=2)


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/",
        "file:///etc/passwd",
        "http://a@b/",
    ],
)
async def test_every_redirect_is_checked(target: str) -> None:
    async with Site({"/x": redirect(target)}) as site:
        with pytest.raises(UrlRefused):
            await get(f"{site.url}/x", *LOOPBACK)


@pytest.mark.parametrize("target", ["http://[", "//]", "http://xn--/"])
async def test_a_redirect_to_what_is_no_url_fails(target: str) -> None:
    async with Site({"/x": redirect(target)}) as site:
        with pytest.raises(UrlFailed):
            await get(f"{site.url}/x", *LOOPBACK)


# --- answers --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [201, 204, 206, 400, 404, 500])
async def test_other_statuses_fail(status: int) -> None:
    page = f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode()
    async with Site({"/x": page}) as site:
        with pytest.raises(UrlFailed, match=str(status)):
            await get(f"{site.url}/x", *LOOPBACK)


async def test_compressed_answers_are_refused() -> None:
    """Bytes are counted as they are stored, so a compressed bomb has no way in."""
    page = answer(gzip.compress(bytes(10_000_000)), "Content-Encoding: gzip", "Connection: close")
    async with Site({"/x": page}) as site:
        with pytest.raises(UrlFailed, match="compressed"):
            await get(f"{site.url}/x", *LOOPBACK)
        assert site.seen[0][1]["accept-encoding"] == "identity"


async def test_time_is_limited_as_a_whole() -> None:
    async with Site({"/x": bytes(100 << 16)}, pause=0.1) as site:
        with pytest.raises(UrlFailed, match="seconds"):
            await get(f"{site.url}/x", *LOOPBACK, seconds=0.5)
        assert site.sent < 100 << 16  # it was not waited for to the end, which takes 10 s


@pytest.mark.parametrize(
    "page", [b"HTTP/1.1 200", b"HTTP/9 x\r\n\r\n", answer(b"x", "Content-Length: 9")]
)
async def test_broken_answers_fail(page: bytes) -> None:
    async with Site({"/x": page}) as site:
        with pytest.raises(UrlFailed):
            await get(f"{site.url}/x", *LOOPBACK)


async def test_nobody_answers() -> None:
    async with Site({}) as site:
        port = site.port
    with pytest.raises(UrlFailed):
        await get(f"http://127.0.0.1:{port}/x", *LOOPBACK)


# --- through the intake -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/talk.wav", "talk.wav"),
        ("/a%20b.wav?x=1", "a b.wav"),
        ("/get.php", "download"),
        ("/", "upload"),
        ("/%2e%2e%2fpasswd", "passwd"),
    ],
)
async def test_names_come_from_the_path(
    path: str, name: str, decoder: Decoder, scratch: Scratch
) -> None:
    async with Site({path: SOUND}) as site:
        file = await intake(decoder).from_url(scratch, site.url + path)
    assert (file.name, file.size) == (name, len(SOUND))


async def test_announced_and_actual_bytes_are_capped(decoder: Decoder, scratch: Scratch) -> None:
    small = intake(decoder, file_validation=FileValidation(max_file_size_mb=1))
    big = bytes(40 << 20)
    async with Site({"/long": big, "/quiet": answer(big, "Connection: close")}) as site:
        for path in ("/long", "/quiet"):
            with pytest.raises(FileTooLarge):
                await small.from_url(scratch, site.url + path)
    assert site.sent < 30 << 20


async def test_pages_are_not_audio(decoder: Decoder, scratch: Scratch) -> None:
    async with Site({"/x.wav": b"<html>please log in</html>"}) as site:
        with pytest.raises(UndecodableAudio):
            await intake(decoder).from_url(scratch, f"{site.url}/x.wav")


async def test_default_settings_reach_nothing_here(decoder: Decoder, scratch: Scratch) -> None:
    async with Site({"/x.wav": SOUND}) as site:
        with pytest.raises(UrlRefused):
            await intake(decoder, hosts=()).from_url(scratch, f"{site.url}/x.wav")
        assert site.seen == []
