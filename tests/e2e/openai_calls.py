"""Calls of OpenAI's client, of curl and of a bare socket, and what their answers have in common."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from tests.e2e.conftest import Server

SRT = re.compile(r"1\n\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}\n")
VTT = re.compile(r"WEBVTT\n\n\d\d:\d\d:\d\d\.\d{3} --> \d\d:\d\d:\d\d\.\d{3}\n")


def connect(server: Server, **options: Any) -> OpenAI:
    settings = {"max_retries": 0, "api_key": server.key, **options}
    return OpenAI(base_url=server.base_url, _strict_response_validation=True, **settings)


def ask(client: OpenAI, wav: bytes, **fields: Any) -> Any:
    fields = {"model": "whisper-1", "file": ("s.wav", wav), **fields}
    return client.audio.transcriptions.create(**fields)


def curl(server: Server, speech: Path, *fields: str, path: str = "transcriptions") -> Any:
    """Headers and body of a curl upload, as an httpx response."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = ["curl", "-s", "-D", "-", f"{server.base_url}/audio/{path}"]
    command += ["-H", f"Authorization: Bearer {server.key}", "-F", f"file=@{speech}"]
    for field in ("model=whisper-1", *fields):
        command += ["-F", field]
    raw = subprocess.run(command, check=True, capture_output=True, timeout=30).stdout
    return response(raw)


def response(raw: bytes) -> httpx.Response:
    head, _, body = raw.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 100"):
        head, _, body = body.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = [(line.partition(": ")[0], line.partition(": ")[2]) for line in lines]
    assert any(name.lower() == "x-request-id" for name, _ in headers)
    headers = [(name, value) for name, value in headers if name.lower() != "transfer-encoding"]
    return httpx.Response(int(status.split()[1]), headers=headers, content=body)


def error_of(answer: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def refused(client: OpenAI, wav: bytes, status: int = 400, **fields: Any) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, wav, **fields)
    assert caught.value.status_code == status
    assert caught.value.request_id
    assert isinstance(caught.value.body, dict)
    assert set(caught.value.body) == {"message", "type", "param", "code"}
    return caught.value


def raw_request(server: Server, head: list[str], body: bytes) -> httpx.Response:
    lines = [*head, f"Host: 127.0.0.1:{server.port}", f"Content-Length: {len(body)}"]
    with socket.create_connection(("127.0.0.1", server.port), 20) as link:
        link.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
        received = b""
        while data := link.recv(65_536):
            received += data
    return response(received)


def translate(client: OpenAI, wav: bytes, **fields: Any) -> Any:
    fields = {"model": "whisper-1", "file": ("s.wav", wav), **fields}
    return client.audio.translations.create(**fields)
