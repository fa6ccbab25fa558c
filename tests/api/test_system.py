"""The page's parts, probes, and what the server says about itself."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from tests.api.test_transcriptions import URL, problem
from tests.conftest import MakeWav
from tests.waiting import until

from whisper_api.api.system import PUBLIC_SETTINGS
from whisper_api.config import Settings

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def readiness(client: httpx.AsyncClient) -> httpx.Response:
    """The answer of ``/ready`` once the model has loaded or failed."""

    async def look() -> httpx.Response | None:
        answer = await client.get("/ready")
        return answer if answer.json()["status"] != "loading" else None

    found: httpx.Response = await until(look)
    return found


async def test_ready_tells_the_engine(client: httpx.AsyncClient) -> None:
    body = (await readiness(client)).json()
    assert (body["status"], body["engine"], body["device"]) == ("ready", "fake", "cpu")
    assert body["reasons"] == []


async def test_not_ready_is_503_with_reasons(open_app: Any) -> None:
    async with open_app(model_path="fake:nonsense=1") as client:
        answer = await readiness(client)
        assert answer.status_code == 503
        assert problem(answer)["code"] == "model_failed"
        assert "nonsense" in answer.json()["reasons"][0]
        assert (await client.get("/health")).status_code == 200


async def test_config_keeps_secrets_and_paths(open_app: Any, tmp_path: Any) -> None:
    async with open_app(
        api_keys=("sk-very-secret",), allowed_directories=(tmp_path,), log_file=tmp_path / "x.log"
    ) as client:
        text = (await client.get("/config")).text
    assert "secret" not in text
    assert str(tmp_path) not in text


async def test_public_settings_exist() -> None:
    assert set(PUBLIC_SETTINGS) <= set(Settings.model_fields)


async def test_capabilities(client: httpx.AsyncClient) -> None:
    body = (await client.get("/v1/capabilities")).json()
    assert body["limits"]["max_file_bytes"] == 2 << 30
    assert body["response_formats"] == ["json", "text", "srt", "verbose_json", "vtt"]
    assert {"wav", "mp3", "webm"} <= set(body["extensions"])
    assert {"code": "en", "name": "english"} in body["languages"]
    assert body["features"]["streaming"] is True
    assert body["api_key_required"] is False


async def test_queue_and_metrics(client: httpx.AsyncClient, make_wav: MakeWav) -> None:
    assert (await client.get("/v1/queue")).json()["requests"] == 0
    await client.post(URL, files={"file": ("a.wav", make_wav({0.5: 1}, 2))})
    await client.post(URL, files={"file": ("a.wav", b"")})
    await client.get("/some/strange/path")
    text = (await client.get("/metrics")).text
    assert f'whisper_requests_total{{route="{URL}",status="200"}}' in text
    assert 'whisper_failures_total{code="audio_missing"}' in text
    assert "strange" not in text


async def test_docs_need_nobody_else(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    parts = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(parts) >= 3
    for part in parts:
        assert urlsplit(part).netloc == ""
        assert (await client.get(urljoin("/docs", part))).status_code == 200


async def test_openapi_describes_the_upload(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    body = paths[URL]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert body["required"] == ["file"]
    assert body["properties"]["file"]["format"] == "binary"
    assert {"timestamp_granularities[]", "stream", "language"} <= body["properties"].keys()
    assert "422" not in paths[URL]["post"]["responses"]
    url = paths[f"{URL}/url"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert url["required"] == ["url"]


async def test_page_is_whole_and_strict(client: httpx.AsyncClient) -> None:
    answer = await client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    page = answer.text
    assert not re.search(r"<(script|style)>|\son\w+=|\sstyle=", page)
    for part in re.findall(r'(?:src|href)="(/[^"]+)"', page):
        assert (await client.get(part)).status_code == 200, part
    assert (await client.head("/")).status_code == 200
    assert (await client.head("/health")).status_code == 200


async def test_access_log_honours_the_excluded_paths(
    open_app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "whisper_api.access")
    async with open_app(request_logging={"exclude_endpoints": ["/health"]}) as client:
        await client.get("/health")
        await client.get("/v1/queue")
    lines = [r.getMessage() for r in caplog.records if r.name == "whisper_api.access"]
    assert any("GET /v1/queue 200" in line for line in lines)
    assert not any("/health" in line for line in lines)


async def test_logs_keep_what_callers_send_to_themselves(
    open_app: Any, make_wav: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    secret = {"authorization": "Bearer sk-hidden"}
    async with open_app(api_keys=("sk-hidden",)) as client:
        files = {"file": ("hidden-name.wav", make_wav({0.5: 1234}, 1))}
        data = {"prompt": "hidden prompt"}
        url = "/v1/audio/transcriptions"
        answer = await client.post(url, files=files, data=data, headers=secret)
        assert "1234" in answer.text
        broken = {"file": ("hidden-name.mp3", b"hidden bytes")}
        await client.post(url, files=broken, headers=secret)
        body = {"url": "http://127.0.0.1/hidden-url.wav"}
        await client.post(f"{url}/url", json=body, headers=secret)
        await client.get("/hidden-path?hidden=query", headers=secret)
        await client.get("/v1/tasks/hidden-id", headers=secret)
    lines = [record for record in caplog.records if record.name.startswith("whisper_api")]
    told = " ".join(record.getMessage() + str(vars(record)) for record in lines)
    assert "hidden" not in told
    assert "1234" not in told
    first = next(vars(record)["fields"] for record in lines if hasattr(record, "fields"))
    assert first["route"] == url
    assert {"decode", "infer"} <= first["stages_ms"].keys()
