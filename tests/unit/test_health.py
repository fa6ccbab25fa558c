"""``whisper-api-health``: what container engines run to ask how the server is."""

from __future__ import annotations

import http.server
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from whisper_api import health


class Answers(http.server.BaseHTTPRequestHandler):
    """200 for ``/health``, 503 for the rest, and the Host headers it has seen."""

    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.headers["host"])
        self.send_response(200 if self.path == "/health" else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def seen() -> list[str]:
    return []


@pytest.fixture
def server(seen: list[str]) -> Iterator[http.server.ThreadingHTTPServer]:
    """A server on a free port."""
    handler = type("Handler", (Answers,), {"seen": seen})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as upstream:
        thread = threading.Thread(target=upstream.serve_forever)
        thread.start()
        yield upstream
        upstream.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without settings, and a folder without a file of them."""
    for name in ("CONFIG", "HOST", "SERVICE_PORT", "WORKER_PORT", "ALLOWED_HOSTS", "SSL_CERTFILE"):
        monkeypatch.delenv(f"WHISPER_API_{name}", raising=False)
    monkeypatch.chdir(tmp_path)


def outcome(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str | int | None:
    """What the command exits with."""
    monkeypatch.setattr(sys, "argv", ["whisper-api-health", *arguments])
    try:
        health.main()
    except SystemExit as end:
        return end.code
    return 0


def test_the_port_comes_from_the_servers_own_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Any, seen: list[str]
) -> None:
    port = server.server_address[1]
    monkeypatch.setenv("WHISPER_API_SERVICE_PORT", str(port))
    monkeypatch.setenv("WHISPER_API_HOST", "0.0.0.0")
    assert outcome(monkeypatch) == 0
    assert outcome(monkeypatch, "/ready") == "unhealthy: /ready answers 503"
    monkeypatch.setenv("WHISPER_API_SERVICE_PORT", "1")
    monkeypatch.setenv("WHISPER_API_WORKER_PORT", str(port))
    assert outcome(monkeypatch) == 0
    monkeypatch.delenv("WHISPER_API_WORKER_PORT")
    monkeypatch.delenv("WHISPER_API_SERVICE_PORT")
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"service_port": port, "allowed_hosts": ["*.example.com"]}))
    monkeypatch.setenv("WHISPER_API_CONFIG", str(file))
    assert outcome(monkeypatch) == 0
    assert seen == [f"127.0.0.1:{port}"] * 3 + ["health.example.com"]


def test_the_host_header_is_one_that_the_server_answers(
    monkeypatch: pytest.MonkeyPatch, server: Any, seen: list[str]
) -> None:
    monkeypatch.setenv("WHISPER_API_SERVICE_PORT", str(server.server_address[1]))
    for given in ("speech.example.com,other", '["speech.example.com"]'):
        monkeypatch.setenv("WHISPER_API_ALLOWED_HOSTS", given)
        assert outcome(monkeypatch) == 0
    assert seen == ["speech.example.com"] * 2


def test_a_server_with_a_certificate_is_asked_over_https(
    monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("speech.example.com").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("WHISPER_API_SERVICE_PORT", str(server.server_address[1]))
    monkeypatch.setenv("WHISPER_API_SSL_CERTFILE", "site.crt")
    assert outcome(monkeypatch) == 0


def test_nobody_there_and_nonsense_are_one_line(
    monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    monkeypatch.setenv("WHISPER_API_SERVICE_PORT", "1")
    assert str(outcome(monkeypatch)).startswith("unhealthy: ")
    monkeypatch.setenv("WHISPER_API_SERVICE_PORT", "many")
    assert str(outcome(monkeypatch)).startswith("unhealthy: invalid literal")


def test_it_imports_nothing_heavy() -> None:
    code = "import sys, whisper_api.health; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name.startswith("whisper_api")}
    assert loaded == {"whisper_api", "whisper_api.health"}
    assert not {"pydantic", "numpy", "typer", "fastapi"} & set(done.stdout.split())
