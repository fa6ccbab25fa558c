"""Tasks that are stopped, tried again, interrupted or in trouble."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.api.conftest import running
from tests.conftest import MakeWav
from tests.waiting import PATIENCE_S
from tests.waiting import until as wait_until
from tests.webserver import Site

from whisper_api import webhooks
from whisper_api.engines.fake import FakeEngine
from whisper_api.errors import DatabaseUnavailable, EngineError, ModelNotFound, StorageFull
from whisper_api.runtime import Runtime
from whisper_api.tasks import policy

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUBMIT = "/v1/audio/transcriptions/async"
SLOW: dict[str, Any] = {
    "model_path": "fake:delay=0.03",
    "batch_size": 1,
    "task_checkpoint_s": 0,
    "language": "en",
    "webhook_allowed_hosts": ("127.0.0.1",),
}


WINDOWS = 21
"""Where the cuts at three seconds fall."""


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long here."""
    monkeypatch.setattr(policy, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(webhooks, "LOOK_S", 0.02)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application with a slow engine."""
    async with running(tmp_path_factory.mktemp("control"), **SLOW) as client:
        await parts(client).preload()
        yield client


def parts(client: httpx.AsyncClient) -> Runtime:
    found: Runtime = client.app.state.runtime  # type: ignore[attr-defined]
    return found


def engine(client: httpx.AsyncClient) -> FakeEngine:
    loaded = parts(client).pool.loaded()[0]
    assert isinstance(loaded, FakeEngine)
    return loaded


@pytest.fixture
def wav(make_wav: MakeWav) -> bytes:
    """A minute with twenty markers; cut at three seconds it has ``WINDOWS``."""
    return make_wav({3.0 * n + 1: n for n in range(20)}, 60)


async def submit(client: httpx.AsyncClient, wav: bytes, **fields: str) -> str:
    fields = {"chunk_length_s": "3", "response_format": "text", **fields}
    answer = await client.post(SUBMIT, files={"file": ("a.wav", wav)}, data=fields)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def look(client: httpx.AsyncClient, ident: str) -> dict[str, Any]:
    body: dict[str, Any] = (await client.get(f"/v1/tasks/{ident}")).json()
    return body


async def until(client: httpx.AsyncClient, ident: str, **wanted: Any) -> dict[str, Any]:
    """The task once it has ``status``, or ``progress`` from there on."""

    async def there() -> dict[str, Any] | None:
        body = await look(client, ident)
        far = body["progress"] >= wanted.get("progress", 101)
        return body if far or body["status"] == wanted.get("status") else None

    found: dict[str, Any] = await wait_until(there)
    return found


@contextmanager
def held(client: httpx.AsyncClient, calls: int) -> Iterator[threading.Event]:
    """The engine stops behind so many calls, until the event is set or the block ends."""
    found, gate = engine(client), threading.Event()
    last = len(found.calls) + calls

    def hold(items: object) -> None:
        if len(found.calls) > last:
            gate.wait(PATIENCE_S)

    found.on_decode = hold
    try:
        yield gate
    finally:
        gate.set()
        found.on_decode = None


async def slow_down(client: httpx.AsyncClient, calls: int = 0) -> None:
    """Behind so many calls each takes a second: time to do something before all is done."""
    await parts(client).preload()
    found = engine(client)
    found.on_decode = lambda items: time.sleep(len(found.calls) > calls)


def first_window(engine: FakeEngine, after: int = 0) -> int:
    """Index of the first window that was decoded after so many calls."""
    return int(engine.calls[after].keys[0].rpartition(":")[2])


def whole(task: dict[str, Any]) -> bool:
    """Whether each of the twenty markers was heard once, in order."""
    return str(task["result"]).split() == [f"marker-{n:04d}" for n in range(20)]


async def test_a_cancelled_task_stops_at_once_and_a_retry_goes_on_from_there(
    app: httpx.AsyncClient, wav: bytes
) -> None:
    before = len(engine(app).calls)
    with held(app, WINDOWS // 2):
        ident = await submit(app, wav)
        await until(app, ident, progress=30)
        stopped = (await app.delete(f"/v1/tasks/{ident}")).json()
        assert stopped["status"] == "cancelled"
    await asyncio.sleep(0.2)
    calls = len(engine(app).calls)
    await asyncio.sleep(0.3)
    assert len(engine(app).calls) == calls < before + WINDOWS
    kept = await look(app, ident)
    assert kept["status"] == "cancelled"
    assert kept["processed_seconds"] > 10
    assert parts(app).scheduler.state().requests == 0
    again = await app.post(f"/v1/tasks/{ident}/retry")
    assert again.status_code == 202
    assert again.json()["status"] == "pending"
    assert (await app.post(f"/v1/tasks/{ident}/retry")).status_code == 409
    done = await until(app, ident, status="completed")
    assert whole(done)
    assert done["attempts"] == 2
    # What was saved is not decoded again.
    ends = list(accumulate(call.seconds for call in engine(app).calls[before:calls]))
    saved = sum(end <= kept["processed_seconds"] + 0.001 for end in ends)
    assert saved > 0
    assert first_window(engine(app), calls) == saved
    assert (await app.post(f"/v1/tasks/{ident}/retry")).json()["error"]["code"] == (
        "task_not_retriable"
    )


@pytest.mark.slow
async def test_a_broken_engine_is_tried_a_few_times_and_then_fails_the_task(
    app: httpx.AsyncClient, wav: bytes
) -> None:
    def fail(items: object) -> None:
        raise EngineError("The engine is on fire.")

    engine(app).on_decode = fail
    ident = await submit(app, wav)
    done = await until(app, ident, status="failed")
    assert done["error"]["code"] == "engine_error"
    assert done["error"]["message"] == "The engine is on fire."
    engine(app).on_decode = None
    await app.post(f"/v1/tasks/{ident}/retry")
    assert whole(await until(app, ident, status="completed"))


async def test_a_model_that_vanished_fails_the_task(
    app: httpx.AsyncClient, wav: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(app, 5):
        ident = await submit(app, wav)
        await until(app, ident, progress=10)
        await app.delete(f"/v1/tasks/{ident}")

    def gone(name: str | None = None) -> None:
        raise ModelNotFound(f"The model {name!r} is not here.")

    monkeypatch.setattr(parts(app).store, "resolve", gone)
    await app.post(f"/v1/tasks/{ident}/retry")
    done = await until(app, ident, status="failed")
    assert done["error"]["code"] == "model_not_found"


async def test_stored_audio_that_vanished_fails_the_task(
    app: httpx.AsyncClient, wav: bytes
) -> None:
    with held(app, 5):
        ident = await submit(app, wav)
        await until(app, ident, progress=10)
        await app.delete(f"/v1/tasks/{ident}")
    for path in parts(app).settings.audio_dir.glob("??/*"):
        path.unlink()
    await app.post(f"/v1/tasks/{ident}/retry")
    done = await until(app, ident, status="failed")
    assert done["error"]["code"] == "not_found"


async def test_a_database_that_goes_away_is_waited_for(
    app: httpx.AsyncClient, wav: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = parts(app).database
    plain, refused = database.run, 0

    async def away(work: Any, **more: Any) -> Any:
        nonlocal refused
        refused += 1
        raise DatabaseUnavailable(retry_after=0.01)

    with held(app, 5):
        ident = await submit(app, wav)
        await until(app, ident, progress=10)
        monkeypatch.setattr(database, "run", away)
    await wait_until(lambda: refused > 3)
    answer = await app.get(f"/v1/tasks/{ident}")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "database_unavailable"
    monkeypatch.setattr(database, "run", plain)
    assert whole(await until(app, ident, status="completed"))


async def test_a_full_disk_is_waited_for_and_then_fails_the_task(
    app: httpx.AsyncClient, wav: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, tries = parts(app).decoder, 0
    plain = decoder.decode

    async def full(*given: Any) -> Any:
        nonlocal tries
        tries += 1
        raise StorageFull

    async def full_at_first(*given: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise StorageFull
        return await plain(*given)

    monkeypatch.setattr(policy, "LONGEST_WAIT_S", 0.05)
    monkeypatch.setattr(decoder, "decode", full_at_first)
    first = await submit(app, wav)
    assert whole(await until(app, first, status="completed"))
    monkeypatch.setattr(decoder, "decode", full)
    tries = 0
    second = await submit(app, wav)
    done = await until(app, second, status="failed")
    assert done["error"]["code"] == "storage_full"
    assert tries == policy.TRIES[StorageFull]
    await wait_until(lambda: not list(parts(app).settings.scratch_dir.glob("*/request-*")))


@pytest.mark.slow
async def test_a_webhook_tells_the_end_of_a_task_and_is_replayed(
    app: httpx.AsyncClient, wav: bytes
) -> None:
    async with Site({"/hook": b"ok"}) as site:
        ident = await submit(app, wav, callback_url=f"{site.url}/hook")
        await until(app, ident, status="completed")
        sent: dict[str, Any] = {"status": ""}
        while sent["status"] != "delivered":
            listed = (await app.get(f"/v1/tasks/{ident}/deliveries")).json()
            (sent,) = listed["data"]
        assert sent["event"] == "task.completed"
        again = await app.post(f"/v1/tasks/{ident}/deliveries/{sent['id']}/replay")
        assert again.status_code == 202
        await wait_until(lambda: len(site.bodies) == 2)
    first, second = site.bodies
    assert first == second
    content = json.loads(first)
    assert content["type"] == "task.completed"
    assert content["data"]["id"] == ident
    assert content["data"]["status"] == "completed"
    assert (await app.post(f"/v1/tasks/{ident}/deliveries/msg_x/replay")).status_code == 404
