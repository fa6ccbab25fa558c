"""Work between processes: what is heard of it, what it costs, what stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
import sqlalchemy as sa
from tests.conftest import MakeWav
from tests.waiting import PATIENCE_S, until

from whisper_api.audio.scratch import Scratch
from whisper_api.config import Settings
from whisper_api.database import Database
from whisper_api.errors import ModelNotFound, ModelUnavailable, NotFound, Overloaded
from whisper_api.models import RemoteModels
from whisper_api.pipeline import Update
from whisper_api.runtime import Runtime, open_runtime
from whisper_api.tables import tasks
from whisper_api.tasks.cluster import About, Cluster, Snapshot, Worker
from whisper_api.tasks.record import Asked, Status
from whisper_api.tasks.remote import RemoteStream, Watch
from whisper_api.tasks.request_store import Standing
from whisper_api.types import AudioFile, Caller, Options, Plan, VadOptions
from whisper_api.usage import meter_var

OPTIONS = Options(language="en", vad=VadOptions(enabled=False), chunk_length_s=10)


class Answers:
    """A store whose answers come when the test says so."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.errors: list[Exception] = []

    async def standings(self, idents: Sequence[str]) -> dict[str, Standing]:
        found = {ident: Standing(Status.RUNNING, 0, 0.0, None, None) for ident in idents}
        self.asked.set()
        await self.go.wait()
        if self.errors:
            raise self.errors.pop()
        return found


async def test_a_request_that_comes_during_a_look_is_not_taken_for_one_that_is_gone() -> None:
    store = Answers()
    watch = Watch(store)  # type: ignore[arg-type]
    first = watch.join("first")
    await store.asked.wait()
    second = watch.join("second")
    store.go.set()
    for news in (first, second):
        standing = await asyncio.wait_for(news.get(), PATIENCE_S)
        assert standing is not None
        assert standing.status is Status.RUNNING
    for ident in ("first", "second"):
        watch.leave(ident)


async def test_looking_goes_on_after_an_error_that_nobody_foresaw(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("whisper_api.tasks.remote.AGAIN_S", 0.01)
    store = Answers()
    store.go.set()
    store.errors.append(ZeroDivisionError())
    watch = Watch(store)  # type: ignore[arg-type]
    assert await asyncio.wait_for(watch.join("one").get(), PATIENCE_S) is not None
    assert "ZeroDivisionError" in caplog.text
    watch.leave("one")


class Meter:
    """Adds up what is spent."""

    def __init__(self) -> None:
        self.spent = 0.0

    async def spend(self, seconds: float) -> None:
        self.spent += seconds

    async def give_back(self, seconds: float) -> None:
        self.spent -= seconds


@asynccontextmanager
async def remote(folder: Path, **more: Any) -> AsyncIterator[tuple[RemoteStream, Runtime]]:
    """A process that hands requests over to itself."""
    chosen = {"engine": "fake", "model_path": "fake", "decode_workers": 1, **more}
    settings = Settings(data_dir=folder, **chosen)
    async with open_runtime(settings) as runtime:
        await runtime.open_records()
        await runtime.tasks.start(lambda error: {"message": error.message}, lambda record: {})
        own = runtime.tasks
        yield RemoteStream(runtime.scheduler, own, own.requests, runtime.audio), runtime


async def file_of(runtime: Runtime, scratch: Scratch, path: Path) -> AudioFile:
    return await runtime.intake.from_own_path(scratch, path)


async def updates_of(stream: RemoteStream, file: AudioFile, scratch: Scratch) -> list[Update]:
    async with aclosing(stream.stream(file, OPTIONS, scratch)) as updates:
        return [update async for update in updates]


async def test_audio_is_paid_for_by_its_true_length_and_leaves_nothing(
    tmp_path: Path, make_wav: MakeWav
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(make_wav({0.5: 1, 11: 2}, 20))
    async with remote(tmp_path / "data") as (stream, runtime):
        async with Scratch.create(runtime.settings.scratch_dir) as scratch:
            file = await file_of(runtime, scratch, path)
            for claimed in (None, 3.0):
                meter = Meter()
                meter_var.set(meter)
                given = AudioFile(**{**fields_of(file), "duration": claimed})
                updates = await updates_of(stream, given, scratch)
                assert updates[-1].transcript is not None
                assert updates[-1].transcript.text == "marker-0001 marker-0002"
                assert meter.spent == pytest.approx(20)
        assert await runtime.tasks.store.unfinished() == []
        assert list(runtime.audio.store.listing()) == []


def fields_of(file: AudioFile) -> dict[str, Any]:
    return {name: getattr(file, name) for name in AudioFile.__slots__}


async def test_the_task_of_a_request_is_for_nobodys_eyes(tmp_path: Path, make_wav: MakeWav) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(make_wav({0.5: 1}, 2))
    async with (
        remote(tmp_path / "data") as (stream, runtime),
        Scratch.create(runtime.settings.scratch_dir) as scratch,
    ):
        file = await file_of(runtime, scratch, path)
        async with aclosing(stream.stream(file, OPTIONS, scratch)) as updates:
            await anext(updates)
            query = sa.select(tasks.c.id)
            found = await runtime.database.run(lambda c: c.execute(query).scalar_one())
            with pytest.raises(NotFound):
                await runtime.tasks.store.get(found, Caller(admin=True))


async def test_a_caller_who_leaves_while_the_task_is_handed_over_takes_it_along(
    tmp_path: Path, make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(make_wav({0.5: 1}, 2))
    async with remote(tmp_path / "data") as (stream, runtime):
        store, added, go = runtime.tasks.store, asyncio.Event(), asyncio.Event()
        add = store.add

        async def slow(*given: Any) -> int:
            found = await add(*given)
            added.set()
            await go.wait()
            return found

        monkeypatch.setattr(store, "add", slow)
        async with Scratch.create(runtime.settings.scratch_dir) as scratch:
            file = await file_of(runtime, scratch, path)
            caller = asyncio.create_task(updates_of(stream, file, scratch))
            await added.wait()
            caller.cancel()
            await asyncio.sleep(0)
            caller.cancel()  # the server stops as well: it is told twice
            go.set()
            with pytest.raises(asyncio.CancelledError):
                await caller

        async def taken_back() -> bool:
            return await store.unfinished() == []

        await until(taken_back)  # behind the caller's back
        assert list(runtime.audio.store.listing()) == []


async def test_tasks_that_wait_do_not_shut_the_door_for_requests(
    tmp_path: Path, make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(make_wav({0.5: 1}, 2))
    async with (
        remote(tmp_path / "data", max_pending_tasks=1) as (stream, runtime),
        Scratch.create(runtime.settings.scratch_dir) as scratch,
    ):
        file = await file_of(runtime, scratch, path)
        with monkeypatch.context() as nobody:
            nobody.setattr(runtime.tasks.node, "enqueue", AsyncMock())
            await runtime.tasks.submit(file, Asked(OPTIONS), "")
        with pytest.raises(Overloaded):
            await runtime.tasks.submit(file, Asked(OPTIONS), "")
        updates = await updates_of(stream, file, scratch)
        assert updates[-1].transcript is not None


async def test_a_part_that_ends_unexpectedly_is_left_to_whoever_merges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with remote(tmp_path) as (_, runtime):
        runner = runtime.tasks.node.runner
        left = AsyncMock()
        monkeypatch.setattr(runner._spread, "decode", AsyncMock(side_effect=ZeroDivisionError))
        monkeypatch.setattr(runner._spread.store, "fail", left)
        assert await runner.part("task_1", 0, 7) == 0
    left.assert_awaited_once_with("task_1", 7)


async def test_a_model_that_no_worker_has_is_not_waited_for(tmp_path: Path) -> None:
    def here(*models: tuple[str, ...]) -> None:
        workers = [
            Worker(
                f"w-{number}", "worker", About("host", 1, "1", 0.0, stored=stored), "2", 0.0, False
            )
            for number, stored in enumerate(models)
        ]
        cluster.latest = Snapshot(tuple(workers))

    settings = Settings(data_dir=tmp_path, model_path="small", local_engine=False)
    database, store = Database(settings), RemoteModels(settings)
    cluster = Cluster(database)
    store.offered = lambda: cluster.latest.offered
    # None is there at all: one is to come.
    assert store.resolve().id == "small"
    here(("medium",), ("bundled",))
    with pytest.raises(ModelUnavailable, match=r"'small'.*bundled, medium") as refused:
        store.resolve("whisper-1")
    assert refused.value.retry_after > 1
    assert store.resolve("medium").id == "medium"
    with pytest.raises(ModelNotFound):
        store.resolve("large-v3")
    here(("medium",), ("small",))
    assert store.resolve().id == "small"
    # One that was there a moment ago, too.
    here(("small",))
    with pytest.raises(ModelUnavailable, match="'medium'"):
        store.resolve("medium")
    database.close()


async def test_audio_that_claims_no_length_counts_as_queued_once_it_is_decoded(
    tmp_path: Path, make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(make_wav({0.5: 1}, 20))
    queued = []
    async with (
        remote(tmp_path / "data") as (_, runtime),
        Scratch.create(runtime.settings.scratch_dir) as scratch,
    ):
        plain = runtime.pipeline.plan

        async def plan(*about: Any) -> Plan:
            unread = sum(one.unread for one in runtime.tasks._runner.attempts.values())
            queued.append((runtime.scheduler.queued_seconds, unread))
            return await plain(*about)

        monkeypatch.setattr(runtime.pipeline, "plan", plan)
        file = replace(await file_of(runtime, scratch, path), duration=None)
        await runtime.pipeline.transcribe(file, OPTIONS, scratch)
        await runtime.tasks.submit(file, Asked(options=OPTIONS), "")
        async with asyncio.timeout(20):
            while len(queued) < 2 or runtime.tasks.node.runner.busy:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    # Once each: what a place in the queue counts is not unread any more.
    assert queued == [(20, 0), (20, 0)]
