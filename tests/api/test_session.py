"""The cookie for players: it opens recordings to read, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY = {"authorization": "Bearer sk=a;b c"}


async def test_a_cookie_opens_recordings_and_nothing_else(open_app: Any, make_wav: Any) -> None:
    async with open_app(api_keys=["sk=a;b c"], enable_history=True) as client:
        assert (await client.post("/v1/session")).status_code == 401
        wav = {"file": ("a.wav", make_wav({0.5: 7}, 1))}
        said = await client.post("/v1/audio/transcriptions", files=wav, headers=KEY)
        record = f"/v1/history/{said.headers['x-history-id']}"

        lent = await client.post("/v1/session", headers=KEY)
        assert lent.status_code == 204
        cookie = lent.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "Path=/v1" in cookie

        played = await client.get(f"{record}/audio", headers={"range": "bytes=0-3"})
        assert (played.status_code, played.content) == (206, b"RIFF")
        for method, path in (
            ("GET", record),
            ("GET", f"{record}/peaks"),
            ("DELETE", f"{record}/audio"),
            ("GET", "/v1/history"),
        ):
            assert (await client.request(method, path)).status_code == 401, path

        await client.delete("/v1/session", headers=KEY)
        assert (await client.get(f"{record}/audio")).status_code == 401


async def test_a_wrong_key_in_the_cookie_opens_nothing(open_app: Any) -> None:
    async with open_app(api_keys=["sk-right"]) as client:
        client.cookies.set("whisper_api_audio", "sk-wrong")
        answer = await client.get("/v1/history/tr_x/audio")
        assert answer.status_code == 401


async def test_without_keys_nothing_is_lent(client: Any) -> None:
    answer = await client.post("/v1/session")
    assert answer.status_code == 204
    assert "set-cookie" not in answer.headers
