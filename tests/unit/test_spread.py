"""How long recordings are cut into parts, and what the cluster says of itself."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_api import errors
from whisper_api.api.errors import response_for
from whisper_api.config import Settings
from whisper_api.database import Database
from whisper_api.errors import (
    CapacityError,
    EngineError,
    InvalidOption,
    NotFound,
    ServerError,
    SettingsError,
    StorageFull,
    WhisperApiError,
    named_error,
)
from whisper_api.tables import executors
from whisper_api.tasks.cluster import About, Cluster, Snapshot, Worker, row_of
from whisper_api.tasks.node import Means, Node
from whisper_api.tasks.roles import check_role
from whisper_api.tasks.room import Room
from whisper_api.tasks.session_lock import key_of
from whisper_api.tasks.spread import Spread, cut
from whisper_api.types import SAMPLE_RATE, Lane, Options, Plan, Window


def plan_of(seconds: list[float]) -> Plan:
    """A plan with windows of these lengths."""
    windows, at = [], 0
    for index, length in enumerate(seconds):
        stop = at + round(length * SAMPLE_RATE)
        windows.append(Window(index, at, stop))
        at = stop
    return Plan("fake", Options(), at / SAMPLE_RATE, "en", 1.0, tuple(windows), (), (), 0)


@given(
    st.lists(st.floats(0.2, 30), max_size=300),
    st.floats(1, 600),
    st.integers(0, 5),
)
def test_parts_hold_every_window_once_and_in_order(
    seconds: list[float], length: float, workers: int
) -> None:
    plan = plan_of(seconds)
    parts = cut(plan, length, workers)
    if workers < 2:
        assert parts == []
    if parts:
        covered = [index for first, stop in parts for index in range(first, stop)]
        assert covered == list(range(len(seconds)))
        assert all(first < stop for first, stop in parts)


def test_parts_shrink_towards_the_end_and_short_recordings_stay_whole() -> None:
    plan = plan_of([30.0] * 120)
    sizes = [stop - first for first, stop in cut(plan, 300, 3)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[:6] == [10] * 6  # 300 s
    assert sizes[-3:] == [2] * 3  # a fifth of it, so that nobody waits long for the last one
    # With more machines than parts of that length there is no reason to cut it finer.
    assert cut(plan, 300, 12) == cut(plan, 300, 1000)
    assert cut(plan, 0, 3) == []
    assert cut(plan, 300, 1) == []
    assert cut(plan_of([30.0] * 14), 300, 3) == []
    assert cut(plan_of([30.0] * 15), 300, 3)[0] == (0, 4)


def room_of(queued: dict[str, float], *, takers: int = 3, unread: float = 0, busy: int = 1) -> Room:
    """The room of a process with this much audio before its engine, which takes batches of 4."""
    by_lane = {lane.value: queued.get(lane, 0.0) for lane in Lane}
    parts: Any = SimpleNamespace(
        scheduler=SimpleNamespace(state=lambda: SimpleNamespace(by_lane=by_lane)),
        pool=SimpleNamespace(
            loaded=lambda: [SimpleNamespace(info=SimpleNamespace(replicas=2, batch_size=0))]
        ),
        settings=SimpleNamespace(batch_size=4),
    )
    runner: Any = SimpleNamespace(leaving=False, busy=busy, unread=lambda *lanes: unread)
    return Room(parts, runner, lambda: takers)


def test_what_a_process_holds_follows_the_batches_that_its_engine_has_planned() -> None:
    room = room_of({"task": 2 * 64 * 2 * 30 - 1})
    assert not room("tasks", 1)
    pool: Any = room.parts.pool
    pool.loaded = lambda: [SimpleNamespace(info=SimpleNamespace(replicas=2, batch_size=64))]
    assert room("tasks", 1)


def test_a_process_takes_no_more_than_its_next_batches_hold() -> None:
    enough = 2 * 4 * 2 * 30  # two batches of four windows on both replicas
    assert room_of({"task": enough - 1})("tasks", 1)
    assert not room_of({"task": enough})("tasks", 1)
    assert not room_of({"task": enough - 60}, unread=60)("tasks", 1)
    # What has been taken and not begun is of unknown length.
    assert not room_of({})("tasks", 2)
    # Tasks do not wait for requests that never end; requests do not wait for tasks.
    assert room_of({"interactive": 2 * enough})("tasks", 1)
    assert room_of({"task": 2 * enough})("requests", 1)
    assert not room_of({"interactive": enough})("requests", 1)
    assert not room_of({"interactive": enough - 60})("requests", 3)
    assert not room_of({"interactive": enough - 60, "task": 60})("parts", 1)
    # Nobody else would take it.
    assert room_of({"task": 2 * enough}, takers=1)("tasks", 1)


def test_a_process_that_leaves_takes_nothing() -> None:
    room = room_of({}, takers=1)
    room.runner.leaving = True
    assert not room("tasks", 0)
    assert not room("requests", 0)


def worker(
    role: str = "worker", *, age: float = 0.0, drain: bool = False, speed: float = 0.0
) -> Worker:
    """A process with the model small."""
    about = About("host", 1, "1", 0.0, models=("small",), stored=("tiny",), speed=speed)
    return Worker(role + str(speed), role, about, "2", age, drain)


def test_the_backlog_is_queued_audio_by_the_speed_of_those_that_take_work() -> None:
    queued = {"task": 300.0, "interactive": 60.0}
    four = (worker(speed=20), worker(speed=10, age=60), worker(speed=10, drain=True), worker("api"))
    snapshot = Snapshot(four, queued)
    assert [found.state for found in four] == ["ready", "away", "draining", "ready"]
    assert snapshot.speed == 20
    assert snapshot.backlog == 18
    assert snapshot.offered == {"small", "tiny"}
    assert snapshot.loaded == {"small"}
    # From none at all one is to be started, so the signal must not be zero or infinite.
    assert Snapshot((), queued).backlog == 72


async def test_work_goes_where_its_model_is_loaded_or_to_whoever_can_load_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two machines, ``small`` and ``large`` loaded in one each, each takes its own."""
    settings = Settings(data_dir=tmp_path)
    database, taken = Database(settings), set[str]()
    about = {"small": ("small",), "large": ("large",)}
    others = {name: worker_with(models) for name, models in about.items()}
    on_disk = ("small", "large", "tiny")
    for mine, wanted in (("small", {"small", "tiny"}), ("large", {"large", "tiny"})):
        means = Means("worker", list, partial(about.__getitem__, mine), list, float)
        node = Node(settings, database, None, None, means)  # type: ignore[arg-type]
        node._stored = on_disk
        node.cluster.latest = Snapshot(
            tuple(others.values()), waiting_models=frozenset({*on_disk, "nowhere"})
        )
        taken.clear()
        monkeypatch.setattr(node.durable, "listen", taken.add)
        await node._listen()
        assert taken == wanted
    database.close()


def worker_with(models: tuple[str, ...]) -> Worker:
    """A process that has loaded these."""
    return Worker(models[0], "worker", About("host", 1, "1", 0.0, models=models), "2", 0.0, False)


async def test_only_processes_that_show_themselves_are_drained(tmp_path: Path) -> None:
    database = Database(Settings(data_dir=tmp_path))
    database.migrate()
    about = About("host", 1, "1", 0.0)
    rows = [
        {"id": "w-0", "seen_at": 1.0, **row_of("worker", "2", about)},
        {"id": "api-0", "seen_at": 1.0, **row_of("api", "2", about)},
        {"id": "old-0", "seen_at": 1.0, "role": "all", "steps": "1", "about": None},
    ]
    await database.run(lambda connection: connection.execute(executors.insert(), rows))
    cluster = Cluster(database)
    assert (await cluster.drain("w-0")).state == "draining"
    for ident in ("api-0", "old-0", "nobody"):
        with pytest.raises(NotFound, match=ident):
            await cluster.drain(ident)
    database.close()


def test_an_error_of_another_process_is_the_same_here() -> None:
    same = named_error("InvalidOption", "No.", "language", "unsupported_language")
    assert isinstance(same, InvalidOption)
    assert (same.message, same.param, same.code) == ("No.", "language", "unsupported_language")
    full = named_error("StorageFull", "Full.", None, "storage_full")
    assert isinstance(full, StorageFull)
    assert full.retry_after > 0
    assert isinstance(named_error("EngineError", "Broken."), EngineError)
    assert type(named_error("Exception", "What?")) is ServerError


def test_every_error_may_come_from_another_process() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    for kind in kinds:
        if issubclass(kind, WhisperApiError):
            found = named_error(kind.__name__, "Text.", None, "code")
            assert type(found) is kind
            assert (found.message, found.code, str(found)) == ("Text.", "code", "Text.")
            assert not isinstance(found, CapacityError) or found.retry_after == 1
            assert response_for(found).status_code >= 400


def test_keys_of_locks_fit_the_database_and_differ() -> None:
    keys = {key_of(f"{number:016x}-0") for number in range(2000)}
    assert len(keys) == 2000
    assert all(-(2**31) <= key < 2**31 for key in keys)


@pytest.mark.parametrize(
    ("role", "settings", "named"),
    [
        ("api", {}, "database_url"),
        ("worker", {"database_url": "sqlite:////tmp/x.sqlite"}, "database_url"),
        ("worker", {"database_url": "postgresql://u@h/n"}, "storage_url"),
        (
            "worker",
            {"database_url": "postgresql://u@h/n", "storage_url": "s3://b", "local_engine": False},
            "local_engine",
        ),
    ],
)
def test_a_role_says_which_setting_it_lacks(
    role: str, settings: dict[str, str], named: str
) -> None:
    with pytest.raises(SettingsError, match=f"^{named}:"):
        check_role(Settings(**settings), role)  # type: ignore[arg-type]


def test_a_server_of_its_own_needs_nothing() -> None:
    check_role(Settings(), "all")


async def test_who_comes_while_lingering_ends_gets_audio_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("whisper_api.tasks.spread.LINGER_S", 0)
    closed: list[int] = []
    fetched = 0

    async def fetch(self: Spread, record: object, stack: AsyncExitStack) -> int:
        nonlocal fetched
        fetched += 1
        stack.callback(closed.append, fetched)
        return fetched

    monkeypatch.setattr(Spread, "_fetch", fetch)
    spread = Spread(*(Mock() for _ in range(7)))
    record = Mock(id="task_1")
    async with spread._whole(record):
        pass
    for _ in range(2):  # the time is over, and nothing is closed yet
        await asyncio.sleep(0)
    async with spread._whole(record) as number:
        for _ in range(5):
            await asyncio.sleep(0)
        assert int(str(number)) not in closed
    await spread.close()
