"""Repeated, retried, late and slow requests, as their headers and answers show them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import pytest
from tests.api.test_stream import events
from tests.api.test_transcriptions import URL, leftovers, problem
from tests.conftest import MakeWav
from tests.waiting import PATIENCE_S, until, wait_until

from whisper_api.engines.fake import FakeEngine

pytestmark = pytest.mark.asyncio(loop_scope="session")
TEXT = "marker-0011 marker-0012"
ONE_BY_ONE = {"batch_size": 1, "replicas": 1, "chunk_length_s": 10}
SLOW = {"model_path": "fake:delay=0.3", **ONE_BY_ONE}


@pytest.fixture(scope="module")
def wav(make_wav: MakeWav) -> bytes:
    return make_wav({1.0: 11, 40.0: 12}, 60)


@pytest.fixture(scope="module")
def five(make_wav: MakeWav) -> bytes:
    """Five windows of ten seconds."""
    return make_wav({1 + 10 * n: n for n in range(5)}, 45)


async def post(
    client: httpx.AsyncClient, wav: bytes, headers: Any = None, **data: Any
) -> httpx.Response:
    files = {"file": ("a.wav", wav)}
    return await client.post(URL, files=files, data=data, headers=headers or {})


async def engine_of(client: Any) -> FakeEngine:
    async with client.app.state.runtime.pool.lease() as engine:
        assert isinstance(engine, FakeEngine)
        return engine


async def hold_until_joined(client: Any, requests: int) -> None:
    """No work is done before so many have joined it."""
    value = client.app.state.runtime.metrics.registry.get_sample_value

    def joined() -> bool:
        return bool(value("whisper_reuse_total", {"outcome": "joined"}) == requests)

    (await engine_of(client)).on_decode = lambda items: wait_until(joined)


async def test_the_same_audio_is_answered_at_once_in_any_format(open_app: Any, wav: bytes) -> None:
    async with open_app() as client:
        assert (await post(client, wav)).headers["x-cache"] == "miss"
        for shape in ("json", "text", "srt", "vtt", "verbose_json"):
            answer = await post(client, wav, response_format=shape)
            assert answer.headers["x-cache"] == "hit", shape
            assert "marker-0012" in answer.text
        stream = await post(client, wav, stream="true", response_format="srt")
        assert stream.headers["x-cache"] == "hit"
        *deltas, done = events(stream.content)
        assert len(deltas) == 3
        assert "".join(event["delta"] for event in deltas) == done["text"]
        answer = await post(client, wav, **{"include[]": "logprobs"})
        assert answer.headers["x-cache"] == "miss"


@pytest.mark.parametrize(
    ("said", "second", "third"),
    [
        ("no-store", "miss", "hit"),
        ("private, No-Cache", "miss", "hit"),
        ("max-age=0", "miss", "hit"),
        ("max-age=9", "hit", "hit"),
    ],
)
async def test_cache_control_is_obeyed(
    open_app: Any, wav: bytes, said: str, second: str, third: str
) -> None:
    async with open_app() as client:
        await post(client, wav)
        answer = await post(client, wav, {"cache-control": said})
        assert answer.headers["x-cache"] == second
        assert (await post(client, wav)).headers["x-cache"] == third


async def test_no_store_is_not_stored(open_app: Any, wav: bytes) -> None:
    async with open_app() as client:
        await post(client, wav, {"cache-control": "no-store"})
        assert (await post(client, wav)).headers["x-cache"] == "miss"


async def test_no_store_leaves_no_history(open_app: Any, wav: bytes) -> None:
    async with open_app(enable_history=True) as client:
        private = await post(client, wav, {"cache-control": "no-store"})
        assert "x-history-id" not in private.headers
        assert (await client.get("/v1/history")).json()["data"] == []
        kept = await post(client, wav)
        (record,) = (await client.get("/v1/history")).json()["data"]
        assert record["id"] == kept.headers["x-history-id"]
        again = await post(client, wav)
        assert again.headers["x-cache"] == "hit"
        assert len((await client.get("/v1/history")).json()["data"]) == 2


async def test_keys_do_not_share_results(open_app: Any, wav: bytes) -> None:
    async with open_app(api_keys=("one", "two")) as client:
        seen = [
            (await post(client, wav, {"authorization": f"Bearer {key}"})).headers["x-cache"]
            for key in ("one", "two", "one", "two")
        ]
    assert seen == ["miss", "miss", "hit", "hit"]


async def test_equal_requests_at_the_same_time_are_one_job(open_app: Any, five: bytes) -> None:
    async with open_app(**ONE_BY_ONE) as client:
        await hold_until_joined(client, 3)
        answers = await asyncio.gather(*(post(client, five, language="en") for _ in range(4)))
        metrics = (await client.get("/metrics")).text
    assert sorted(answer.headers["x-cache"] for answer in answers) == ["joined"] * 3 + ["miss"]
    assert len({answer.json()["text"] for answer in answers}) == 1
    assert "whisper_audio_seconds_total 45.0" in metrics


async def test_a_retry_joins_its_first_attempt_in_a_full_queue(open_app: Any, five: bytes) -> None:
    async with open_app(max_concurrent_requests=1, **ONE_BY_ONE) as client:
        await hold_until_joined(client, 1)
        scheduler = client.app.state.runtime.scheduler
        first = asyncio.create_task(post(client, five, language="en"))
        await until(lambda: scheduler.state().requests)
        stranger = await post(client, five, language="en")
        assert stranger.status_code == 429
        retry = await post(client, five, {"x-stainless-retry-count": "1"}, language="en")
        assert retry.headers["x-cache"] == "joined"
        assert retry.json()["text"] == (await first).json()["text"]


async def test_a_reused_idempotency_key_is_refused(open_app: Any, wav: bytes) -> None:
    key = {"idempotency-key": "abc"}
    async with open_app() as client:
        assert (await post(client, wav, key)).headers["x-cache"] == "miss"
        again = await post(client, wav, key, response_format="srt")
        assert again.headers["x-cache"] == "hit"
        other = await post(client, wav, key, prompt="something else")
        assert other.status_code == 400
        error = problem(other)
        assert (error["param"], error["code"]) == ("Idempotency-Key", "idempotency_key_reused")
        assert leftovers(client.app.state.runtime.settings.scratch_dir) == []


@pytest.mark.parametrize("key", ["", " ", "x" * 256])
async def test_bad_idempotency_keys(client: httpx.AsyncClient, wav: bytes, key: str) -> None:
    answer = await post(client, wav, {"idempotency-key": key})
    assert answer.status_code == 400
    assert problem(answer)["param"] == "Idempotency-Key"


async def test_the_clients_patience_is_a_deadline_and_its_retry_goes_on(
    open_app: Any, wav: bytes, five: bytes
) -> None:
    name = "x-stainless-read-timeout"
    async with open_app(**ONE_BY_ONE) as client:
        engine, gate = await engine_of(client), threading.Event()
        await post(client, wav, language="en")  # the decoder has started then
        last = len(engine.calls) + 2

        def hold(items: object) -> None:
            if len(engine.calls) > last:
                gate.wait(PATIENCE_S)

        engine.on_decode = hold
        late = await post(client, five, {name: "2"}, language="en")
        gate.set()
        assert late.status_code == 408
        error = problem(late)
        assert error["code"] == "deadline_exceeded"
        assert "x-should-retry" not in late.headers
        assert client.app.state.runtime.scheduler.state().requests == 0
        retry = {name: "60", "x-stainless-retry-count": "1"}
        answer = await post(client, five, retry, language="en")
        assert answer.headers["x-cache"] == "resumed"
        assert answer.json()["text"].split() == [f"marker-{n:04d}" for n in range(5)]
        assert leftovers(client.app.state.runtime.settings.scratch_dir) == []


async def test_a_deadline_that_leaves_nothing_is_no_case_for_a_retry(
    open_app: Any, five: bytes
) -> None:
    headers = {"x-stainless-timeout": "1", "cache-control": "no-store"}
    async with open_app(**SLOW) as client:
        late = await post(client, five, headers, language="en")
        assert late.status_code == 504
        assert problem(late)["code"] == "deadline_exceeded"
        assert late.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("said", ["0", "soon", "nan", "inf", "-3"])
async def test_a_senseless_patience_is_none(
    client: httpx.AsyncClient, wav: bytes, said: str
) -> None:
    assert (await post(client, wav, {"x-stainless-read-timeout": said})).status_code == 200


async def test_streams_have_no_such_deadline(open_app: Any, five: bytes) -> None:
    async with open_app(**SLOW) as client:
        patience = {"x-stainless-read-timeout": "1"}
        answer = await post(client, five, patience, language="en", stream="true")
        assert events(answer.content)[-1]["type"] == "transcript.text.done"


async def test_slow_json_begins_early_with_white_space(open_app: Any, five: bytes) -> None:
    shape = "verbose_json"
    async with open_app(json_keep_alive_s=0.3, **SLOW) as client:
        # White space comes in time, so the client's patience is no deadline.
        patience = {"x-stainless-read-timeout": "1"}
        answer = await post(client, five, patience, language="en", response_format=shape)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert "content-length" not in answer.headers
        assert answer.content.startswith(b"\n\n")
        assert answer.json()["text"].startswith("marker-0000")
        quick = await post(client, five, language="en", response_format=shape)
        assert quick.headers["x-cache"] == "hit"
        assert quick.content.startswith(b"{")
        assert quick.json()["text"] == answer.json()["text"]
        assert leftovers(client.app.state.runtime.settings.scratch_dir) == []


async def test_slow_text_gets_no_white_space(open_app: Any, five: bytes) -> None:
    async with open_app(json_keep_alive_s=0.3, **SLOW) as client:
        answer = await post(client, five, language="en", response_format="text")
    assert answer.text.startswith("marker-0000")


async def test_an_error_after_white_space_is_an_object_with_status_200(
    open_app: Any, five: bytes
) -> None:
    settings = {**SLOW, "model_path": "fake:delay=0.3,fail_on=4"}
    async with open_app(json_keep_alive_s=0.2, **settings) as client:
        answer = await post(client, five, language="en")
        assert answer.status_code == 200
        assert answer.content.startswith(b"\n")
        assert answer.json()["error"]["code"] == "engine_error"
        early = await post(client, b"no audio")
        assert early.status_code == 400
