"""Who may come in: keys and roles, limits of requests and audio, pages of other sites."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send
from tests.api.test_transcriptions import URL, problem
from tests.media import claiming, recorded, tone
from tests.waiting import PATIENCE_S, until

from whisper_api.api.access import ApiKey, RateLimit, SameOrigin
from whisper_api.api.auth import Authenticator, address_group, caller_of, require_admin
from whisper_api.api.errors import duration
from whisper_api.config import Settings
from whisper_api.errors import Overloaded, PermissionRefused
from whisper_api.keys import KeyRing
from whisper_api.rate_limits import RateLimits
from whisper_api.types import Caller

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEYS = [
    {"name": "ann", "secret": "sk-ann", "role": "admin"},
    {"name": "bob", "secret": "sk-bob", "requests_per_minute": 2, "audio_minutes_per_day": 0.1},
    {"name": "cat", "secret": "sk-cat"},
    {"name": "old", "secret": "sk-old", "expires": "2020-01-01"},
]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_capabilities_tell_whether_a_key_is_needed_wherever_keys_are_set(
    open_app: Any,
) -> None:
    for settings in ({}, {"api_keys": ("sk-plain",)}, {"keys": KEYS}):
        async with open_app(**settings) as client:
            # A key that comes along makes no difference: it may be a guest's page that asks.
            for headers in ({}, bearer("sk-ann")):
                answer = await client.get("/v1/capabilities", headers=headers)
                assert answer.json()["api_key_required"] is bool(settings)


async def test_expired_keys_are_refused(open_app: Any) -> None:
    async with open_app(keys=KEYS) as client:
        answer = await client.get("/v1/models", headers=bearer("sk-old"))
        assert answer.status_code == 401
        assert problem(answer)["code"] == "invalid_api_key"
        assert "expired" in problem(answer)["message"]
        assert (await client.get("/v1/models", headers=bearer("sk-ann"))).status_code == 200


@pytest.mark.parametrize("claims", ["nothing", "too little", "the truth"])
async def test_audio_of_tasks_counts_by_its_true_length(
    claims: str, open_app: Any, make_wav: Any
) -> None:
    file = {
        "nothing": recorded(tone(8)),
        "too little": claiming(tone(8), 1),
        "the truth": make_wav({0.5: 7}, 8),
    }[claims]
    async with open_app(keys=KEYS) as client:
        route = f"{URL}/async"
        good = await client.post(route, files={"file": recorded(tone(2))}, headers=bearer("sk-bob"))
        assert good.status_code == 202
        assert good.json()["duration_seconds"] == pytest.approx(2, abs=0.1)
        much = await client.post(route, files={"file": file}, headers=bearer("sk-bob"))
        assert much.status_code == 429
        assert problem(much)["code"] == "rate_limit_exceeded"
        assert much.headers["x-ratelimit-remaining-audio-seconds"] in {"3", "4"}
        # Without a limit of that kind nobody looks twice.
        assert (await client.post(route, files={"file": file}, headers=bearer("sk-cat"))).is_success


async def test_a_keys_requests_are_limited(open_app: Any, make_wav: Any) -> None:
    wav = make_wav({0.5: 7}, 1)
    async with open_app(keys=KEYS) as client:

        async def send(key: str) -> Any:
            return await client.post(URL, files={"file": wav}, headers=bearer(key))

        first, second, third = [await send("sk-bob") for _ in range(3)]
        assert [first.status_code, second.status_code, third.status_code] == [200, 200, 429]
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert second.headers["x-ratelimit-remaining-requests"] == "0"
        assert third.headers["x-ratelimit-remaining-requests"] == "0"
        assert third.headers["x-ratelimit-reset-requests"] in {"1m0s", "59s", "58s"}
        assert 0 < int(third.headers["retry-after"]) <= 60
        error = problem(third)
        assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
        # Others, and what transcribes nothing, are not limited.
        assert (await send("sk-ann")).status_code == 200
        assert "x-ratelimit-limit-requests" not in (await send("sk-ann")).headers
        assert (await client.get("/v1/queue", headers=bearer("sk-bob"))).status_code == 200


async def test_a_keys_audio_is_limited(open_app: Any, make_wav: Any) -> None:
    async with open_app(keys=KEYS) as client:

        async def send(seconds: int) -> Any:
            wav = make_wav({0.5: 7}, seconds)
            return await client.post(URL, files={"file": wav}, headers=bearer("sk-bob"))

        good = await send(4)
        assert good.headers["x-ratelimit-limit-audio-seconds"] == "6"
        much = await send(3)
        assert much.status_code == 429
        assert "2 seconds are left and this audio has 3 seconds" in problem(much)["message"]
        assert much.headers["x-ratelimit-remaining-audio-seconds"] == "2"
        # Longer than OpenAI's clients wait: they give up at once.
        assert int(much.headers["retry-after"]) > 120


async def test_audio_of_a_refused_task_is_not_counted(
    open_app: Any, make_wav: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wav = make_wav({0.5: 7}, 5)
    async with open_app(keys=KEYS) as client:

        async def full(*_: Any, **__: Any) -> None:
            raise Overloaded("The queue is full.")

        async def send() -> httpx.Response:
            headers = bearer("sk-bob")
            answer: httpx.Response = await client.post(
                f"{URL}/async", files={"file": wav}, headers=headers
            )
            return answer

        with monkeypatch.context() as patch:
            patch.setattr(client.app.state.runtime.tasks, "submit", full)
            assert problem(await send())["code"] == "overloaded"
        assert (await send()).status_code == 202


async def test_without_keys_addresses_are_limited(open_app: Any, make_wav: Any) -> None:
    wav = make_wav({0.5: 7}, 1)
    async with open_app(requests_per_minute=1, trusted_proxies=("127.0.0.0/8",)) as client:

        async def send(forwarded: str) -> int:
            headers = {"x-forwarded-for": forwarded}
            answer: httpx.Response = await client.post(URL, files={"file": wav}, headers=headers)
            return answer.status_code

        assert await send("192.0.2.1") == 200
        assert await send("192.0.2.2") == 200
        assert await send("192.0.2.1") == 429
        # What the caller wrote in front of the proxy's entry counts for nothing.
        assert await send("198.51.100.9, 192.0.2.1") == 429
        assert await send("2001:db8::1") == 200
        assert await send("2001:db8::2") == 429


async def test_untrusted_callers_cannot_choose_their_address(open_app: Any, make_wav: Any) -> None:
    wav = make_wav({0.5: 7}, 1)
    async with open_app(requests_per_minute=1, trusted_proxies=("10.0.0.1",)) as client:
        statuses = []
        for forwarded in ("192.0.2.1", "192.0.2.2"):
            headers = {"x-forwarded-for": forwarded}
            answer = await client.post(URL, files={"file": wav}, headers=headers)
            statuses.append(answer.status_code)
        assert statuses == [200, 429]


async def test_addresses_count_by_network_where_one_machine_has_it() -> None:
    assert address_group("192.0.2.7") == "192.0.2.7"
    assert address_group("2001:db8::7") == address_group("2001:db8::8")
    assert address_group("fe80::1%eth0") == "fe80::/64"
    assert address_group("testclient") == "testclient"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://localhost"}, 200),
        ({"origin": "http://localhost:80"}, 200),
        ({"origin": "http://localhost:3000"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[bad"}, 403),
        ({"sec-fetch-site": "same-origin", "origin": "https://asr.example"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
    ],
)
async def test_pages_of_other_sites_are_kept_out(
    client: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    for path in ("/v1/queue", "/metrics"):
        answer = await client.get(path, headers=headers)
        assert answer.status_code == status, path
        if status == 403:
            assert problem(answer)["code"] == "cross_site_refused"
            assert "access-control-allow-origin" not in answer.headers


async def test_pages_of_other_sites_cannot_name_files_of_the_server(open_app: Any) -> None:
    """The door is open to them for audio that they have."""
    headers = {"origin": "https://evil.example"}
    async with open_app() as client:
        answer = await client.post(
            f"{URL}/async", json={"file_path": "/srv/talk.wav"}, headers=headers
        )
        assert answer.status_code == 403
        assert problem(answer)["code"] == "cross_site_refused"
        other = await client.post(f"{URL}/async", json={"audio_id": "none"}, headers=headers)
        assert problem(other)["code"] == "not_found"
    async with open_app(keys=KEYS) as client:
        headers |= bearer("sk-ann")
        answer = await client.post(
            f"{URL}/async", json={"file_path": "/srv/talk.wav"}, headers=headers
        )
        assert problem(answer)["code"] == "path_refused"


@pytest.mark.parametrize("path", ["/", "/health", "/config", "/docs", "/v1/models", "/ready"])
async def test_links_and_public_descriptions_work_from_everywhere(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.get(path, headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code in {200, 503}


async def test_a_key_opens_the_door_to_pages_of_other_sites(open_app: Any) -> None:
    async with open_app(keys=KEYS) as client:
        headers = {"origin": "https://other.example", **bearer("sk-ann")}
        assert (await client.get("/v1/queue", headers=headers)).status_code == 200


async def test_cors_is_open_for_reading_models_not_for_changing_them(
    client: httpx.AsyncClient,
) -> None:
    for method, is_open in (("GET", True), ("POST", False), ("DELETE", False)):
        asking = {"origin": "https://other.example", "access-control-request-method": method}
        answer = await client.options("/v1/models/tiny", headers=asking)
        assert ("access-control-allow-origin" in answer.headers) is is_open


async def test_admins_only() -> None:
    connection: Any = type("Connection", (), {})()
    connection.state = type("State", (), {"caller": Caller("bob", "bob", admin=False)})()
    assert caller_of(connection).name == "bob"
    with pytest.raises(PermissionRefused, match="role admin"):
        require_admin(connection)
    connection.state.caller = Caller()
    assert require_admin(connection).admin


async def shake(settings: Settings, headers: dict[str, str]) -> list[Message]:
    """What a WebSocket's handshake is answered with."""
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept", "by": scope["state"]["caller"].name})

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    keys = Authenticator(KeyRing(settings))
    guarded = SameOrigin(ApiKey(RateLimit(app, RateLimits(settings)), keys), keys)
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await guarded(
        {
            "type": "websocket",
            "path": "/v1/realtime",
            "headers": raw,
            "client": ("192.0.2.1", 1),
            "extensions": {"websocket.http.response": {}},
        },
        receive,
        send,
    )
    return sent


async def test_websockets_pass_the_same_guards(tmp_path: Any) -> None:
    locked = Settings.model_validate({"data_dir": tmp_path, "keys": KEYS})
    for headers in ({}, bearer("sk-no"), bearer("sk-old")):
        refused = await shake(locked, headers)
        assert refused[0]["type"] == "websocket.http.response.start"
        assert refused[0]["status"] == 401
        assert b"invalid_request_error" in refused[1]["body"]
    assert (await shake(locked, bearer("sk-ann")))[0]["by"] == "ann"
    protocols = {"sec-websocket-protocol": "realtime, openai-insecure-api-key.sk-bob"}
    assert (await shake(locked, protocols))[0]["by"] == "bob"
    unlocked = Settings(data_dir=tmp_path)
    assert (await shake(unlocked, {}))[0]["type"] == "websocket.accept"
    foreign = {"origin": "https://evil.example", "host": "localhost"}
    assert (await shake(unlocked, foreign))[0]["status"] == 403


async def test_durations_are_written_as_openai_writes_them() -> None:
    assert [duration(s) for s in (0.0055, 1, 59.5, 61, 3600, 3665.2)] == [
        "6ms",
        "1s",
        "1m0s",
        "1m1s",
        "1h0m0s",
        "1h1m6s",
    ]


async def test_the_queue_tells_places_to_their_owners_only(open_app: Any, make_wav: Any) -> None:
    async with open_app(keys=KEYS, batch_size=1) as client:
        gate = threading.Event()
        async with client.app.state.runtime.pool.lease() as engine:
            engine.on_decode = lambda items: gate.wait(PATIENCE_S)
        wav = {"file": make_wav({0.5: 7}, 1)}
        named = {"x-request-id": "mine-1", **bearer("sk-bob")}
        running = asyncio.ensure_future(client.post(URL, files=wav, headers=named))
        scheduler = client.app.state.runtime.scheduler
        await until(lambda: scheduler.state().requests)

        async def queue(key: str) -> Any:
            return (await client.get("/v1/queue", headers=bearer(key))).json()

        for key, seen in (("sk-bob", ["mine-1"]), ("sk-ann", ["mine-1"]), ("sk-cat", [])):
            found = await queue(key)
            assert found["requests"] == 1
            assert [place["request_id"] for place in found["own"]] == seen
        coming = asyncio.ensure_future(client.post(URL, files=wav, headers=bearer("sk-ann")))
        await until(lambda: scheduler.state().requests == 2)
        gate.set()
        second = await coming
        assert second.headers["x-queue-position"] == "1"
        assert float(second.headers["x-queue-eta"]) > 0
        assert (await running).headers["x-queue-position"] == "0"
