"""Ids, hosts, keys, CORS, limits: what holds for every request."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from tests.api.test_transcriptions import URL, problem

from whisper_api import errors
from whisper_api.api.guards import CatchAll, HostCheck, RequestId

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_every_answer_has_openais_headers(client: httpx.AsyncClient) -> None:
    for path, status in (("/health", 200), ("/nope", 404), (URL, 405)):
        answer = await client.get(path)
        assert answer.status_code == status
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.headers["access-control-expose-headers"] == "X-Request-ID"
        assert answer.headers["openai-version"] == "2020-10-01"
        assert int(answer.headers["openai-processing-ms"]) >= 0


@pytest.mark.parametrize(("sent", "kept"), [("my-id_1", True), ("a b", False), ("x" * 200, False)])
async def test_sane_request_ids_are_echoed(
    client: httpx.AsyncClient, sent: str, kept: bool
) -> None:
    answer = await client.get("/health", headers={"x-request-id": sent})
    assert (answer.headers["x-request-id"] == sent) is kept


async def test_unknown_urls_and_methods(client: httpx.AsyncClient) -> None:
    assert problem(await client.get("/v1/none"))["code"] == "unknown_url"
    answer = await client.get(URL)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert problem(answer)["code"] == "method_not_allowed"
    assert problem(await client.get("/web/none.js"))["code"] == "unknown_url"


async def test_cors_is_open_for_the_api_only(client: httpx.AsyncClient) -> None:
    asking = {
        "origin": "https://other.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-stainless-lang",
    }
    answer = await client.options(URL, headers=asking)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "x-stainless-lang" in answer.headers["access-control-allow-headers"]
    origin = {"origin": "https://other.example"}
    for path, is_open in (("/health", True), ("/v1/models", True), ("/config", False)):
        found = (await client.get(path, headers=origin)).headers
        assert ("access-control-allow-origin" in found) is is_open
    refused = await client.post(URL, headers=origin)
    assert refused.headers["access-control-allow-origin"] == "*"


async def test_keys(open_app: Any) -> None:
    async with open_app(api_keys=("sk-one", "sk-two")) as client:
        for path in ("/", "/health", "/ready", "/config", "/docs", "/v1/capabilities"):
            assert (await client.get(path)).status_code in (200, 503)
        missing = await client.get("/v1/models")
        assert missing.status_code == 401
        assert problem(missing)["code"] is None
        assert missing.headers["www-authenticate"] == "Bearer"
        for wrong in ("Bearer sk-on", "Bearer sk-oneX", "Bearer ключ"):
            answer = await client.get("/v1/queue", headers={"authorization": wrong.encode()})
            assert answer.status_code == 401
            assert problem(answer)["code"] == "invalid_api_key"
        basic = await client.get("/metrics", headers={"authorization": "Basic sk-one"})
        assert problem(basic)["code"] is None
        for right in ("Bearer sk-one", "bearer sk-two"):
            answer = await client.get("/v1/queue", headers={"authorization": right})
            assert answer.status_code == 200


async def through(guard: Any, host: str) -> int:
    client = httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://x")
    async with client:
        return (await client.get("/", headers={"host": host})).status_code


async def fine(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@pytest.mark.parametrize(
    ("allowed", "listening", "host", "status"),
    [
        ((), "127.0.0.1", "localhost:5042", 204),
        ((), "127.0.0.1", "127.0.0.1:5042", 204),
        ((), "::1", "[::1]:5042", 204),
        ((), "127.0.0.1", "app.localhost", 204),
        ((), "127.0.0.1", "evil.example", 400),
        ((), "127.0.0.1", "127.0.0.1.evil.example", 400),
        ((), "0.0.0.0", "evil.example", 204),
        (("*",), "127.0.0.1", "evil.example", 204),
        (("asr.example",), "0.0.0.0", "ASR.example:443", 204),
        (("asr.example",), "0.0.0.0", "other.example", 400),
        (("*.asr.example",), "0.0.0.0", "a.asr.example", 204),
        (("*.asr.example",), "0.0.0.0", "xasr.example", 400),
    ],
)
async def test_hosts(allowed: tuple[str, ...], listening: str, host: str, status: int) -> None:
    assert await through(HostCheck(fine, allowed, listening), host) == status


async def test_unforeseen_errors_are_logged_and_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = type("App", (), {"state": None})
        raise ZeroDivisionError("a secret detail")

    transport = httpx.ASGITransport(RequestId(CatchAll(broken)))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        with caplog.at_level(logging.ERROR):
            answer = await client.get("/boom", headers={"x-request-id": "id-1"})
    assert answer.status_code == 500
    assert "id-1" in problem(answer)["message"]
    assert "secret" not in answer.text
    assert "ZeroDivisionError" in caplog.text


async def test_capacity_errors_say_when_to_come_back() -> None:
    async def full(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = type("App", (), {"state": None})
        raise errors.Overloaded(retry_after=float(scope["path"][1:]))

    transport = httpx.ASGITransport(CatchAll(full))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        for seconds, header in (("0", "1"), ("7.2", "8"), ("9000", "120")):
            answer = await client.get(f"/{seconds}")
            assert answer.status_code == 429
            assert answer.headers["retry-after"] == header
            assert "x-should-retry" not in answer.headers


async def test_error_table_covers_the_whole_tree() -> None:
    from whisper_api.api.errors import answer_for, body_for

    def family(kind: type[errors.WhisperApiError]) -> list[type[errors.WhisperApiError]]:
        return [kind, *(k for sub in kind.__subclasses__() for k in family(sub))]

    kinds = [kind for kind in family(errors.WhisperApiError) if kind.__module__ == errors.__name__]
    assert len(kinds) > 20
    for kind in kinds:
        error = kind()
        assert 400 <= answer_for(error).status < 600
        assert answer_for(error).status != 422
        assert set(body_for(error)["error"]) == {"message", "type", "param", "code"}
        if issubclass(kind, errors.RequestError):
            assert answer_for(error).status < 500
