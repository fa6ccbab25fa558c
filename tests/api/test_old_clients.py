"""Requests as clients of the older server send them, and the keys that they read."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
from tests.api.test_transcriptions import URL
from tests.conftest import MakeWav

from whisper_api.runtime import Runtime

pytestmark = pytest.mark.asyncio(loop_scope="session")
KEYS = {"text", "processing_time", "response_size_bytes", "duration_seconds", "model"}


@pytest.fixture(scope="module")
def wav(make_wav: MakeWav) -> bytes:
    return make_wav({1.0: 5}, 3)


def check(answer: httpx.Response, *, segments: bool = False) -> None:
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert body.keys() >= KEYS
    assert body["text"] == "marker-0005"
    assert ("segments" in body) is segments
    if segments:
        assert body["segments"] == [
            {"start_time_ms": 1000, "end_time_ms": 1250, "text": "marker-0005"}
        ]


@pytest.mark.parametrize("path", [URL, f"{URL}/multipart"])
async def test_upload_with_the_file_only(client: httpx.AsyncClient, wav: bytes, path: str) -> None:
    check(await client.post(path, files={"file": ("speech.wav", wav, "audio/x-wav")}))
    with_times = {"return_timestamps": "true", "language": "russian", "temperature": "0.01"}
    answer = await client.post(path, files={"file": ("speech.wav", wav)}, data=with_times)
    check(answer, segments=True)


async def test_base64(client: httpx.AsyncClient, wav: bytes) -> None:
    body = {"file": base64.b64encode(wav).decode()}
    check(await client.post(f"{URL}/base64", json=body))
    check(
        await client.post(f"{URL}/base64", json=body | {"return_timestamps": True}), segments=True
    )


async def test_local_file(client: httpx.AsyncClient, wav: bytes, runtime: Runtime) -> None:
    path = runtime.settings.allowed_directories[0] / "old.wav"
    path.write_bytes(wav)
    body = {"file_path": str(path), "return_timestamps": True}
    check(await client.post("/local/transcriptions", json=body), segments=True)


async def test_return_timestamps_as_a_setting(open_app: Any, wav: bytes) -> None:
    async with open_app(return_timestamps=True) as client:
        check(await client.post(URL, files={"file": ("a.wav", wav)}), segments=True)
        asked = {"return_timestamps": "false"}
        check(await client.post(URL, files={"file": ("a.wav", wav)}, data=asked))


async def test_health_models_and_config(client: httpx.AsyncClient) -> None:
    health = (await client.get("/health")).json()
    assert health["status"] == "ok"
    assert health["version"]
    models = (await client.get("/v1/models")).json()
    assert models["object"] == "list"
    assert all(entry["permissions"] == [] for entry in models["data"])
    config = (await client.get("/config")).json()
    assert {"version", "model_path", "language", "temperature", "batch_size"} <= config.keys()
