"""What is refused, and how: statuses and bodies, each with its row of the contract."""

from __future__ import annotations

from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI
from tests.conftest import MakeWav
from tests.e2e.conftest import Server, StartServer
from tests.e2e.openai_calls import (
    ask,
    connect,
    curl,
    error_of,
    refused,
)


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return connect(server)


@pytest.mark.row(27)
def test_not_audio(server: Server, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Not audio")
    answer = curl(server, readme)
    assert answer.status_code == 400
    assert "flac" in error_of(answer)["message"]


@pytest.mark.row(28)
def test_empty_and_short(client: OpenAI, wav: bytes, make_wav: MakeWav) -> None:
    assert refused(client, wav, file=("s.wav", b"")).param == "file"
    error = refused(client, wav, file=("s.wav", make_wav({}, 0.05)))
    assert (error.param, error.code) == ("file", "audio_too_short")


@pytest.mark.row(29)
def test_too_large(start_server: StartServer) -> None:
    server = start_server(file_validation={"max_file_size_mb": 1})
    sent: list[httpx.Request] = []
    http = httpx.Client(event_hooks={"request": [sent.append]}, timeout=30)
    client = connect(server, http_client=http, max_retries=2)
    error = refused(client, b"", 413, file=("s.wav", b"\0" * (30 << 20)))
    assert type(error) is openai.APIStatusError
    assert error.type == "server_error"
    assert len(sent) == 1
    # A body of which nothing was announced is counted.
    content = (b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\n", *[b"\0" * 65_536] * 400)
    headers = {"content-type": "multipart/form-data; boundary=x"}
    url = f"{server.base_url}/audio/transcriptions"
    answer = httpx.post(url, content=iter(content), headers=headers, timeout=30)
    assert answer.status_code == 413
    server.wait_until_idle(2)


@pytest.mark.row(30)
def test_missing_file_and_model(server: Server, client: OpenAI, wav: bytes) -> None:
    url = f"{server.base_url}/audio/transcriptions"
    answer = httpx.post(url, data={"model": "whisper-1"}, files={"other": b""}, timeout=10)
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "file"
    assert ask(client, wav, model="").text == "marker-0042 marker-0043"
    answer = httpx.post(url, files={"file": ("s.wav", wav)}, timeout=30)
    assert answer.json()["text"] == "marker-0042 marker-0043"


@pytest.mark.row(31)
def test_json_body(server: Server) -> None:
    url = f"{server.base_url}/audio/transcriptions"
    answer = httpx.post(url, json={"file": "x", "model": "whisper-1"}, timeout=10)
    assert answer.status_code == 400
    assert "multipart/form-data" in error_of(answer)["message"]


@pytest.mark.row(32)
def test_unknown_model(guarded: Server, wav: bytes) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(connect(guarded), wav, model="nope")
    assert caught.value.code == "model_not_found"


@pytest.mark.row(33)
def test_keys(guarded: Server, wav: bytes) -> None:
    answer = httpx.post(f"{guarded.base_url}/audio/transcriptions", timeout=10)
    assert answer.status_code == 401
    assert error_of(answer)["code"] is None
    with pytest.raises(openai.AuthenticationError) as caught:
        ask(connect(guarded, api_key="sk-wrong"), wav)
    assert caught.value.code == "invalid_api_key"


@pytest.mark.row(34)
def test_wrong_method_and_path(server: Server) -> None:
    for path, status in (("/v1/audio/transcriptions", 405), ("/v1/none", 404)):
        answer = server.get(path)
        assert answer.status_code == status
        error_of(answer)
