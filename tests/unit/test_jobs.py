"""Jobs on the real pipeline: joined, resumed, repeated, kept apart by owner, and gone in time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import MakeWav
from tests.waiting import PATIENCE_S, until

from whisper_api.audio.scratch import Scratch
from whisper_api.config import Settings
from whisper_api.engines.base import WindowItem
from whisper_api.engines.fake import FakeEngine
from whisper_api.errors import (
    EngineError,
    InvalidOption,
    ModelNotFound,
    RequestTimedOut,
    ShuttingDown,
)
from whisper_api.jobs import Listener, Terms, Work
from whisper_api.runtime import Runtime, open_runtime
from whisper_api.types import Options, VadOptions

WINDOWS = 5
OPTIONS = Options(language="en", vad=VadOptions(enabled=False), chunk_length_s=10)
TEXT = " ".join(f"marker-{n:04d}" for n in range(WINDOWS))
RETRY = Terms(retry=True)


class Gate:
    """Lets the engine decode one window for each ``open``."""

    def __init__(self) -> None:
        self.calls = 0
        self.fail_at = 0
        self._room = threading.Semaphore(0)

    def open(self, times: int = 1) -> None:
        self._room.release(times)

    def __call__(self, items: Sequence[WindowItem]) -> None:
        self.calls += 1
        assert self._room.acquire(timeout=PATIENCE_S)
        if self.calls == self.fail_at:
            raise EngineError("told to fail")


class Desk:
    """A runtime, the gate of its engine, and one recording to ask for."""

    def __init__(self, runtime: Runtime, gate: Gate, path: Path) -> None:
        self.runtime = runtime
        self.gate = gate
        self._path = path

    async def ask(
        self,
        terms: Terms | None = None,
        owner: str = "",
        options: Options = OPTIONS,
        seconds: float = PATIENCE_S,
        model: str = "fake",
        revision: str = "",
    ) -> Listener:
        scratch = Scratch.create(self.runtime.settings.scratch_dir)
        file = await self.runtime.intake.from_own_path(scratch, self._path)
        work = Work(owner, file.digest, model, options, revision)
        deadline = asyncio.get_running_loop().time() + seconds
        return self.runtime.jobs.listen(work, terms or Terms(), file, scratch, deadline=deadline)

    async def text(self, *args: Any, **kwargs: Any) -> tuple[str, str]:
        """Outcome and text of a request that is heard to its end."""
        listener = await self.ask(*args, **kwargs)
        try:
            return listener.outcome, (await listener.transcript()).text
        finally:
            await listener.close()

    def folders(self) -> list[Path]:
        return list(self.runtime.settings.scratch_dir.glob("*/request-*"))

    def is_idle(self) -> bool:
        return self.runtime.scheduler.state().requests == 0 and not self.folders()


OpenDesk = Callable[..., AbstractAsyncContextManager[Desk]]


@pytest.fixture
def open_desk(tmp_path: Path, make_wav: MakeWav) -> OpenDesk:
    path = tmp_path / "a.wav"
    path.write_bytes(make_wav({1 + 10 * n: n for n in range(WINDOWS)}, 10 * WINDOWS - 5))

    @asynccontextmanager
    async def opened(**more: Any) -> AsyncIterator[Desk]:
        fixed = {"engine": "fake", "model_path": "fake", "batch_size": 1, "replicas": 1}
        settings = Settings(data_dir=tmp_path, decode_workers=1, **{**fixed, **more})
        async with open_runtime(settings) as runtime:
            gate = Gate()
            async with runtime.pool.lease() as engine:
                assert isinstance(engine, FakeEngine)
                engine.on_decode = gate
            yield Desk(runtime, gate, path)
            gate.open(1000)  # nothing may wait for ever

    return opened


async def heard(listener: Listener, windows: int) -> list[str]:
    """The texts of the next windows."""
    found: list[str] = []
    while len(found) < windows:
        update = await listener.next(PATIENCE_S)
        assert update is not None
        found += [segment.text.strip() for segment in update.segments]
    return found


async def test_equal_work_is_done_once_and_who_comes_later_hears_it_from_the_start(
    open_desk: OpenDesk,
) -> None:
    async with open_desk() as desk:
        first = await desk.ask()
        desk.gate.open(2)
        assert await heard(first, 2) == TEXT.split()[:2]
        second = await desk.ask()
        assert (first.outcome, second.outcome) == ("miss", "joined")
        assert await heard(second, 2) == TEXT.split()[:2]
        desk.gate.open(3)
        transcripts = await asyncio.gather(first.transcript(), second.transcript())
        assert [found.text for found in transcripts] == [TEXT, TEXT]
        assert desk.gate.calls == WINDOWS
        await first.close()
        await second.close()
        assert desk.is_idle()


async def test_the_job_goes_on_while_somebody_listens(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        first, second = await desk.ask(), await desk.ask()
        desk.gate.open(1)
        await heard(first, 1)
        await first.close()
        desk.gate.open(WINDOWS)
        assert (await second.transcript()).text == TEXT
        assert second.file.path.exists()
        await second.close()
        assert desk.is_idle()


async def test_the_last_who_leaves_stops_the_work_and_a_retry_goes_on_from_there(
    open_desk: OpenDesk,
) -> None:
    async with open_desk() as desk:
        first = await desk.ask()
        desk.gate.open(2)
        await heard(first, 2)
        await first.close()
        assert desk.is_idle()
        desk.gate.open(1)  # the window that ran when its caller left
        retry = await desk.ask(RETRY)
        assert retry.outcome == "resumed"
        desk.gate.open(WINDOWS)
        assert (await retry.transcript()).text == TEXT
        assert desk.gate.calls <= WINDOWS + 1
        await retry.close()


async def test_without_cache_only_repeated_requests_go_on(open_desk: OpenDesk) -> None:
    async with open_desk(result_cache_ttl_s=0) as desk:
        desk.gate.open(1000)
        assert await desk.text() == ("miss", TEXT)
        assert await desk.text() == ("miss", TEXT)
        assert await desk.text(RETRY) == ("hit", TEXT)
        assert await desk.text(Terms(idempotency_key="a")) == ("hit", TEXT)


async def test_no_grace_keeps_no_windows(open_desk: OpenDesk) -> None:
    async with open_desk(retry_grace_seconds=0) as desk:
        first = await desk.ask()
        desk.gate.open(2)
        await heard(first, 2)
        await first.close()
        desk.gate.open(1000)
        assert await desk.text(RETRY) == ("miss", TEXT)
        assert not desk.runtime.jobs.keeps_windows(RETRY)


async def test_results_answer_only_the_same_owner_options_and_weights(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        desk.gate.open(1000)
        assert await desk.text(owner="a") == ("miss", TEXT)
        assert await desk.text(owner="a") == ("hit", TEXT)
        assert await desk.text(owner="b") == ("miss", TEXT)
        other = replace(OPTIONS, prompt="hello")
        assert (await desk.text(owner="a", options=other))[0] == "miss"
        assert (await desk.text(owner="a", revision="2"))[0] == "miss"


async def test_no_store_leaves_nothing_and_takes_nothing(open_desk: OpenDesk) -> None:
    private = Terms(reuse=False, keep=False, retry=True)
    async with open_desk() as desk:
        desk.gate.open(1000)
        assert (await desk.text(private))[0] == "miss"
        assert (await desk.text())[0] == "miss"
        assert (await desk.text(private))[0] == "miss"
        assert not desk.runtime.jobs.keeps_windows(private)


async def test_no_cache_works_anew_and_keeps_the_new_result(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        desk.gate.open(1000)
        await desk.text()
        assert (await desk.text(Terms(reuse=False)))[0] == "miss"
        assert desk.gate.calls == 2 * WINDOWS
        assert (await desk.text(Terms(reuse=False, retry=True)))[0] == "miss"
        assert (await desk.text())[0] == "hit"


async def test_an_idempotency_key_stands_for_one_work_of_one_owner(open_desk: OpenDesk) -> None:
    named = Terms(idempotency_key="k-1")
    async with open_desk() as desk:
        desk.gate.open(1000)
        assert await desk.text(named) == ("miss", TEXT)
        assert await desk.text(named) == ("hit", TEXT)
        with pytest.raises(InvalidOption) as caught:
            await desk.ask(named, options=replace(OPTIONS, prompt="other"))
        assert (caught.value.param, caught.value.code) == (
            "Idempotency-Key",
            "idempotency_key_reused",
        )
        other = await desk.text(named, owner="b", options=replace(OPTIONS, prompt="other"))
        assert other[0] == "miss"


async def test_an_error_reaches_every_listener_and_a_retry_goes_on(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        desk.gate.fail_at = 3
        first, second = await desk.ask(), await desk.ask()
        desk.gate.open(1000)
        for listener in (first, second):
            with pytest.raises(EngineError):
                await listener.transcript()
            await listener.close()
        assert await desk.text(RETRY) == ("resumed", TEXT)
        assert desk.gate.calls == 3 + WINDOWS - 2


async def test_a_refused_request_leaves_nothing(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        for _ in range(2):
            listener = await desk.ask(model="nope")
            with pytest.raises(ModelNotFound):
                await listener.transcript()
            assert listener.outcome == "miss"
            await listener.close()
        assert desk.is_idle()


async def test_leaving_before_the_first_step_leaves_nothing(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        listener = await desk.ask()
        await listener.close()
        await listener.close()
        assert desk.is_idle()
        assert desk.gate.calls == 0


async def test_a_listener_has_a_deadline_and_waits_no_longer_than_told(
    open_desk: OpenDesk,
) -> None:
    async with open_desk() as desk:
        patient, hasty = await desk.ask(), await desk.ask(seconds=0.1)
        assert await patient.next(0.01) is None
        with pytest.raises(RequestTimedOut):
            await hasty.transcript()
        for listener in (patient, hasty):
            await listener.close()


async def test_who_listens_at_the_end_of_the_server_is_told(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        listener = await desk.ask()
        await desk.runtime.jobs.close()
        with pytest.raises(ShuttingDown):
            await listener.transcript()
        await listener.close()
        assert desk.is_idle()


def test_keys_of_work_are_short_and_differ_where_the_work_does() -> None:
    work = Work("o", "d", "m", replace(OPTIONS, prompt="x" * 10_000))
    others = [
        replace(work, owner="p"),
        replace(work, digest="e"),
        replace(work, model="n"),
        replace(work, revision="2"),
        replace(work, options=OPTIONS),
        replace(work, options=replace(work.options, vad=VadOptions(threshold=0.4))),
    ]
    assert len({item.key for item in (work, *others)}) == 7
    assert replace(work).key == work.key
    assert sum(map(len, work.key)) < 100


async def test_what_is_too_old_goes_without_being_asked_for(open_desk: OpenDesk) -> None:
    async with open_desk(result_cache_ttl_s=0, retry_grace_seconds=0.2) as desk:
        desk.gate.open(1000)
        registry = desk.runtime.metrics.registry
        listener = await desk.ask()
        await listener.transcript()
        with pytest.raises(ShuttingDown):  # nothing more comes: it is kept from this turn on
            await listener.next()
        assert registry.get_sample_value("whisper_result_cache_bytes")
        await listener.close()
        await until(lambda: registry.get_sample_value("whisper_result_cache_bytes") == 0)


async def test_outcomes_and_memory_are_measured(open_desk: OpenDesk) -> None:
    async with open_desk() as desk:
        desk.gate.open(1000)
        await desk.text()
        await desk.text()
        registry = desk.runtime.metrics.registry
        for outcome in ("miss", "hit"):
            assert registry.get_sample_value("whisper_reuse_total", {"outcome": outcome}) == 1
        assert (registry.get_sample_value("whisper_result_cache_bytes") or 0) > 1000
