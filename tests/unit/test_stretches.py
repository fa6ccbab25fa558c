"""Parts of a long recording are decoded from the samples that the plan left in the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from whisper_api.audio.scratch import Scratch
from whisper_api.config import Settings
from whisper_api.engines.fake import MARKER_SAMPLES, make_marker
from whisper_api.errors import StorageFull
from whisper_api.runtime import Runtime, open_runtime
from whisper_api.storage import FolderStore
from whisper_api.tables import tasks
from whisper_api.tasks.live import Attempt, Open, Parts, Pulse
from whisper_api.tasks.part_store import PartStore
from whisper_api.tasks.record import Asked, Part, Planned, Status, TaskRecord
from whisper_api.tasks.rows import row_of
from whisper_api.tasks.spread import Spread
from whisper_api.tasks.stretches import Stretches
from whisper_api.types import SAMPLE_RATE, Lane, Options, Plan, Waveform, Window

STEP = 4 * SAMPLE_RATE
RECORD = TaskRecord("task_1", "", Status.RUNNING, 0.0, "a", Asked(Options(language="en")), None)
HALVES = (Part(0, 3), Part(3, 6))


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    settings = Settings(engine="fake", model_path="fake", data_dir=tmp_path, decode_workers=1)
    async with open_runtime(settings) as runtime:
        yield runtime


@pytest.fixture
def whole(tmp_path: Path) -> Waveform:
    """Six windows with a marker in each, and some silence that lies around the caller's audio."""
    samples = np.zeros(6 * STEP, np.float32)
    for number in range(6):
        at = number * STEP + STEP // 4
        samples[at : at + MARKER_SAMPLES] = make_marker(number)
    path = tmp_path / "whole.s16"
    (samples * 32767).astype("<i2").tofile(path)
    return Waveform(path, samples.size, lead=1000, tail=500)


@pytest.fixture
def planned(whole: Waveform) -> Planned:
    windows = tuple(Window(n, n * STEP, (n + 1) * STEP) for n in range(6))
    plan = Plan("fake", Options(language="en"), whole.duration, "en", 1.0, windows, (), (), 0)
    return Planned(plan, whole.samples, whole.lead, whole.tail, 0)


async def test_a_stretch_holds_the_samples_of_its_part_at_their_places(
    tmp_path: Path, whole: Waveform, planned: Planned
) -> None:
    store = FolderStore(tmp_path / "store")
    stretches, part = Stretches(store), HALVES[1]
    async with Scratch.create(tmp_path / "scratch") as scratch:
        assert await stretches.read(RECORD, planned, part, scratch) is None
        await stretches.keep(RECORD, planned, part, whole, scratch)
        found = await stretches.read(RECORD, planned, part, scratch)
        assert found is not None
        assert planned.fits(found)
        assert found.path.stat().st_size == 2 * 3 * STEP
        for window in planned.plan.windows[3:]:
            samples = found.read(window.start, window.stop)
            assert np.array_equal(samples, whole.read(window.start, window.stop))
        assert found.seconds(4 * STEP) == whole.seconds(4 * STEP)
        # Nothing of another part is there, and nothing of another task.
        assert found.read(0, STEP).size == 0
        other = replace(RECORD, id="task_2")
        assert await stretches.read(other, planned, part, scratch) is None
        await stretches.drop(RECORD, planned, part)
        assert await stretches.read(RECORD, planned, part, scratch) is None
    assert list(store.listing()) == []


class Handed:
    """Takes parts in place of the queue; notes what lies in the store at each time."""

    def __init__(self, store: FolderStore) -> None:
        self.parts: list[tuple[int, int, int]] = []
        self.all = asyncio.Event()
        self._store = store

    async def __call__(self, record: TaskRecord, parts: list[Part], before: int) -> None:
        assert record.id == RECORD.id
        lying = len(list(self._store.listing()))
        self.parts += [(part.first, before, lying) for part in parts]
        if len(self.parts) == len(HALVES):
            self.all.set()


async def spread_of(
    runtime: Runtime, store: FolderStore, planned: Planned
) -> tuple[Spread, Handed]:
    """Parts of a running task whose audio nobody has stored."""
    parts = Parts(
        runtime.settings,
        runtime.pipeline,
        runtime.scheduler,
        runtime.pool,
        runtime.decoder,
        runtime.audio,
    )
    handed = Handed(store)
    await runtime.open_records()
    kept = runtime.tasks.store
    row = tasks.insert().values(row_of(replace(RECORD, status=Status.PENDING)))
    await runtime.database.run(lambda connection: connection.execute(row))
    record = await kept.begin(RECORD.id, 0)
    assert record is not None
    assert await kept.save_plan(record, planned, [(part.first, part.stop) for part in HALVES])
    spread = Spread(
        parts,
        kept,
        PartStore(runtime.database),
        workers=lambda: asyncio.sleep(0, 2),
        hand_out=handed,
        name=lambda: "worker-1",
        stretches=Stretches(store),
    )
    return spread, handed


async def test_parts_are_handed_out_with_their_audio_and_decoded_from_it_alone(
    runtime: Runtime, tmp_path: Path, whole: Waveform, planned: Planned
) -> None:
    store = FolderStore(tmp_path / "store")
    spread, handed = await spread_of(runtime, store, planned)
    record = await runtime.tasks.store.find(RECORD.id)
    assert record is not None
    async with Scratch.create(tmp_path / "scratch") as scratch:
        opened = opened_with(whole, scratch)
        spread.distribute(record, planned, HALVES, opened)
        await handed.all.wait()
    assert handed.parts == [(0, 0, 1), (3, 1, 2)]
    for part in HALVES:
        await spread.decode(record.id, 0, part.first, None)
        found = await spread.store.get(record, part.first)
        assert found is not None
        assert found.batch is not None
        texts = [segment.text for segment in found.batch.segments]
        assert texts == [f" marker-{n:04d}" for n in range(part.first, part.stop)]
        assert found.batch.segments[0].start == pytest.approx(4 * part.first + 1 - 1 / 16, abs=0.02)
    await asyncio.gather(*spread._tidying)
    assert spread.unread(Lane.TASK) == 0
    await spread.close()
    assert list(store.listing()) == []  # done parts need it no more


async def test_where_the_store_is_full_parts_are_handed_out_all_the_same(
    runtime: Runtime,
    tmp_path: Path,
    whole: Waveform,
    planned: Planned,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = FolderStore(tmp_path / "store")
    spread, handed = await spread_of(runtime, store, planned)

    def full(key: str, source: Path) -> None:
        raise StorageFull

    monkeypatch.setattr(store, "put", full)
    async with Scratch.create(tmp_path / "scratch") as scratch:
        spread.distribute(RECORD, planned, HALVES, opened_with(whole, scratch))
        await handed.all.wait()
    assert handed.parts == [(0, 0, 0), (3, 1, 0)]
    # Here the file is gone as well, so whoever merges is to say so.
    await spread.decode(RECORD.id, 0, 3, None)
    assert (await spread.store.all(RECORD.id))[3].failed
    await spread.close()


async def test_what_an_attempt_leaves_goes_with_it(
    runtime: Runtime, tmp_path: Path, whole: Waveform, planned: Planned
) -> None:
    store = FolderStore(tmp_path / "store")
    spread, handed = await spread_of(runtime, store, planned)
    async with Scratch.create(tmp_path / "scratch") as scratch:
        spread.distribute(RECORD, planned, HALVES, opened_with(whole, scratch))
        await handed.all.wait()
        attempt = Attempt(RECORD, spread.parts, Pulse(), planned=planned)
        attempt.shares = {part.first: part for part in HALVES}
        await spread.settle(attempt, keep=True)
        assert len(list(store.listing())) == 2
        await spread.settle(attempt, keep=False)
        await asyncio.gather(*spread._tidying)
        assert list(store.listing()) == []
    await spread.close()


def opened_with(whole: Waveform, scratch: Scratch) -> Open:
    """What an attempt has open, as far as its parts are concerned."""
    return Open(scratch, None, whole, None, None)  # type: ignore[arg-type]
