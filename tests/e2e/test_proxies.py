"""The examples for nginx and Caddy, with the real programs in front of a real server."""

from __future__ import annotations

import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tests.conftest import MakeWav
from tests.e2e.conftest import Server, StartServer
from tests.e2e.proxying import HOST, KINDS, Proxy, proxied

pytestmark = pytest.mark.slow
LARGE = 300 * 1024 * 1024
BLOCK = bytes(1 << 20)


class Local(httpx.HTTPTransport):
    """Connects to this machine whatever the name says."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["sni_hostname"] = HOST
        request.url = request.url.copy_with(host="127.0.0.1")
        return super().handle_request(request)


@contextmanager
def client(proxy: Proxy, **more: Any) -> Iterator[httpx.Client]:
    """A client of what is behind ``proxy`` that trusts its certificate only."""
    trusting = ssl.create_default_context()
    proxy.authority.configure_trust(trusting)
    with httpx.Client(
        base_url=proxy.root, transport=Local(verify=trusting, **more), timeout=60
    ) as made:
        yield made


@pytest.fixture(scope="module")
def gates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the gated engine's gates."""
    return tmp_path_factory.mktemp("gates")


@pytest.fixture(scope="module")
def behind(start_server: StartServer, gates: Path) -> Server:
    """A server that believes proxies of this machine."""
    return start_server(
        environment={"TEST_GATES": str(gates)},
        batch_size=1,
        chunk_length_s=8,
        allowed_hosts=[HOST, "127.0.0.1"],
        trusted_proxies=["127.0.0.1"],
        request_logging={"exclude_endpoints": []},
    )


@pytest.mark.parametrize("kind", KINDS)
def test_events_arrive_one_by_one(
    kind: str, behind: Server, gates: Path, make_wav: MakeWav, tmp_path: Path
) -> None:
    first = {"nginx": 100, "caddy": 200}[kind]
    numbers = (first, first + 1, first + 2)
    wav = make_wav(dict(zip((2.0, 10.0, 18.0), numbers, strict=True)), 24)
    form = {"stream": "true", "language": "en"}
    with proxied(kind, tmp_path, behind.port) as proxy, client(proxy) as http:
        files = {"file": ("a.wav", wav)}
        door = "/v1/audio/transcriptions"
        (gates / str(first)).touch()
        with http.stream("POST", door, files=files, data=form) as answer:
            assert answer.status_code == 200
            lines = (line for line in answer.iter_lines() if line.startswith("data: "))
            # Each gate opens only when the event before it is here: a proxy that kept events
            # back would never see the next one made.
            for number in numbers:
                (gates / str(number)).touch()
                assert f"marker-0{number}" in next(lines)
            rest = list(lines)
    assert rest[-1] == "data: [DONE]"


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_body_reaches_the_server(kind: str, behind: Server, tmp_path: Path) -> None:
    head = {"tus-resumable": "1.0.0"}
    with proxied(kind, tmp_path, behind.port) as proxy, client(proxy) as http:
        begun = http.post("/v1/uploads", headers={**head, "upload-length": str(LARGE)})
        part = {**head, "upload-offset": "0", "content-type": "application/offset+octet-stream"}
        part["content-length"] = str(LARGE)
        body = (BLOCK for _ in range(LARGE // len(BLOCK)))
        sent = http.patch(begun.headers["location"], headers=part, content=body)
        assert (sent.status_code, sent.headers["upload-offset"]) == (204, str(LARGE)), sent.text
        assert http.delete(begun.headers["location"], headers=head).status_code == 204


@pytest.mark.parametrize("kind", KINDS)
def test_redirects_lead_to_the_public_address(kind: str, behind: Server, tmp_path: Path) -> None:
    with proxied(kind, tmp_path, behind.port) as proxy, client(proxy) as http:
        answer = http.get("/v1/tasks/")
        assert answer.headers["location"] == f"{proxy.root}/v1/tasks"
        stranger = http.get("/health", headers={"host": "evil.example"})
        assert stranger.status_code != 200 or not stranger.content  # not this server's answer


class Echo(http.server.BaseHTTPRequestHandler):
    """An upstream that tells what it was sent, and takes up WebSockets."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("upgrade") == "websocket":
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.end_headers()
            self.wfile.write(self.rfile.read(4)[::-1])
            self.close_connection = True
            return
        told = str(self.headers).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of an ``Echo``."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as upstream:
        thread = threading.Thread(target=upstream.serve_forever)
        thread.start()
        yield upstream.server_address[1]
        upstream.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_is_told_who_asks_and_callers_cannot_lie(
    kind: str, echo: int, tmp_path: Path
) -> None:
    lies = {"x-forwarded-for": "6.6.6.6", "x-forwarded-proto": "gopher"}
    with proxied(kind, tmp_path, echo) as proxy, client(proxy) as http:
        lines = http.get("/", headers=lies).text.lower().split("\n")
    told = dict(line.strip().split(": ", 1) for line in lines if ": " in line)
    assert told["x-forwarded-for"] == "127.0.0.1"
    assert told["x-forwarded-proto"] == "https"
    assert told["host"] == urlsplit(proxy.root).netloc


@pytest.mark.parametrize("kind", KINDS)
def test_websockets_pass(kind: str, echo: int, tmp_path: Path) -> None:
    with proxied(kind, tmp_path, echo, below=True) as proxy:
        port = urlsplit(proxy.root).port
        assert port is not None
        with socket.create_connection(("127.0.0.1", port), 30) as line:
            line.settimeout(30)
            line.sendall(
                f"GET /speech/v1/realtime HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            file = line.makefile("rb")
            assert b" 101 " in file.readline()
            while file.readline().strip():
                pass
            line.sendall(b"live")
            assert file.read(4) == b"evil"
