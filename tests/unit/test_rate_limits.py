"""Limits of requests and audio, counted in memory and in Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from inspect import getmembers

import fakeredis
import pytest
import redis
from limits.aio.storage.redis.bridge import RedisBridge

from whisper_api.config import Settings
from whisper_api.errors import RateLimited
from whisper_api.keys import Allowance
from whisper_api.rate_limits import RateLimits

TWO = Allowance(requests_per_minute=2, audio_minutes_per_day=1)


@pytest.fixture(scope="module")
def redis_address() -> Iterator[str]:
    """A stand-in for Redis on a TCP port of this machine."""
    server = fakeredis.TcpFakeServer(("127.0.0.1", 0), server_type="redis")
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    with redis.Redis(port=port) as client:
        # It drops connections that run an unknown script, where Redis answers an error.
        for name, script in getmembers(RedisBridge):
            if name.startswith("SCRIPT_"):
                client.script_load(script)
    yield f"redis://127.0.0.1:{port}/0"
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["memory", "redis"])
def storage(request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        return "memory"
    address: str = request.getfixturevalue("redis_address")
    with redis.Redis.from_url(address) as client:
        client.flushdb()
    return address


def limits(storage: str) -> RateLimits:
    return RateLimits(Settings.model_validate({"rate_limit_storage": storage}))


async def test_requests_are_counted_for_each_caller(
    storage: str, caplog: pytest.LogCaptureFixture
) -> None:
    counts = limits(storage)
    first = await counts.take_request("ann", TWO)
    assert first is not None
    assert (first.limit, first.remaining) == (2, 1)
    second = await counts.take_request("ann", TWO)
    assert second is not None
    assert second.remaining == 0
    with pytest.raises(RateLimited, match="2 requests per minute") as caught:
        await counts.take_request("ann", TWO)
    assert 30 < caught.value.retry_after <= 60
    assert await counts.take_request("bob", TWO)
    assert await counts.take_request("ann", Allowance()) is None
    assert not caplog.records


async def test_audio_is_counted_by_its_seconds(storage: str) -> None:
    counts = limits(storage)
    await counts.spend_audio("ann", TWO, 49.2)
    with pytest.raises(RateLimited, match="10 seconds are left and this audio has 11 seconds"):
        await counts.spend_audio("ann", TWO, 10.5)
    left = await counts.spend_audio("ann", TWO, 10)  # what was refused did not count
    assert left is not None
    assert left.remaining == 0
    with pytest.raises(RateLimited) as caught:
        await counts.spend_audio("ann", TWO)
    assert caught.value.retry_after > 86_000
    assert await counts.spend_audio("bob", TWO)
    assert await counts.spend_audio("ann", Allowance(), 1e6) is None


async def test_audio_of_refused_work_is_given_back(storage: str) -> None:
    counts = limits(storage)
    await counts.spend_audio("ann", TWO, 60)
    await counts.give_audio_back("ann", TWO, 20.5)
    left = await counts.spend_audio("ann", TWO, 10)
    assert left is not None
    assert left.remaining == 11
    await counts.give_audio_back("ann", Allowance(), 20)


async def test_servers_on_one_redis_count_together(redis_address: str) -> None:
    one, two = limits(redis_address), limits(redis_address)
    await one.take_request("shared", TWO)
    await two.take_request("shared", TWO)
    with pytest.raises(RateLimited):
        await one.take_request("shared", TWO)


async def test_without_its_redis_a_server_counts_alone(caplog: pytest.LogCaptureFixture) -> None:
    counts = limits("redis://127.0.0.1:1/0")
    await counts.take_request("ann", TWO)
    await counts.take_request("ann", TWO)
    with pytest.raises(RateLimited):
        await counts.take_request("ann", TWO)
    await counts.spend_audio("ann", TWO, 60)
    with pytest.raises(RateLimited):
        await counts.spend_audio("ann", TWO, 1)
    assert caplog.text.count("rate_limit_storage failed") == 1
