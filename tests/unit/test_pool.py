"""The model pool: one load for many, references, idle unload, failures that do not stick."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import PATIENCE_S, until

from whisper_api.config import Settings
from whisper_api.engines.base import Engine
from whisper_api.engines.fake import FakeEngine
from whisper_api.errors import (
    CapacityError,
    Conflict,
    EngineError,
    InvalidOption,
    ModelBroken,
    ModelNotFound,
    SettingsError,
)
from whisper_api.models import ModelFiles, ModelStore
from whisper_api.pool import Pool, engine_loader


class Loads:
    """Counts loads, and holds or fails them on request."""

    def __init__(self) -> None:
        self.count = 0
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None

    def __call__(self, files: ModelFiles, settings: Settings) -> Engine:
        self.count += 1
        assert self.gate.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return FakeEngine(model=files.id)


@pytest.fixture
def loads() -> Loads:
    return Loads()


@pytest.fixture
def pool(tmp_path: Path, loads: Loads, monkeypatch: pytest.MonkeyPatch) -> Pool:
    settings = Settings(engine="fake", model_path="fake", data_dir=tmp_path)
    pool = Pool(settings, ModelStore(settings))
    monkeypatch.setattr(pool, "_load", loads)
    return pool


async def use(pool: Pool) -> Engine:
    async with pool.lease() as engine:
        return engine


async def waiting(pool: Pool, users: int) -> None:
    """Until so many wait for the one model that is being loaded."""
    await until(lambda: [model.users for model in pool.models()] == [users])


async def test_first_requests_at_once_load_once(pool: Pool, loads: Loads) -> None:
    loads.gate.clear()
    users = [asyncio.create_task(use(pool)) for _ in range(5)]
    await waiting(pool, 5)
    loads.gate.set()
    engines = await asyncio.gather(*users)
    assert loads.count == 1
    assert len({id(engine) for engine in engines}) == 1
    assert pool.loaded() == [engines[0]]


async def test_a_leaving_caller_does_not_end_the_load(pool: Pool, loads: Loads) -> None:
    loads.gate.clear()
    first, second = asyncio.create_task(use(pool)), asyncio.create_task(use(pool))
    await waiting(pool, 2)
    first.cancel()
    loads.gate.set()
    assert isinstance(await second, FakeEngine)
    assert loads.count == 1


async def test_a_failed_load_is_tried_again(pool: Pool, loads: Loads) -> None:
    loads.error = ModelBroken("no weights")
    with pytest.raises(ModelBroken, match="no weights"):
        await use(pool)
    loads.error = None
    assert isinstance(await use(pool), FakeEngine)


async def test_an_unexpected_failure_is_an_engine_error(pool: Pool, loads: Loads) -> None:
    loads.error = ZeroDivisionError()
    with pytest.raises(EngineError, match="could not be loaded"):
        await use(pool)


async def test_unload_spares_what_is_in_use(pool: Pool, loads: Loads) -> None:
    async with pool.lease() as engine:
        assert await pool.unload_idle(0) == 0
        assert isinstance(engine, FakeEngine)
        assert not engine.closed
    assert await pool.unload_idle(3600) == 0
    assert await pool.unload_idle(0) == 1
    assert engine.closed
    await use(pool)
    assert loads.count == 2


async def test_close_closes_every_engine(pool: Pool) -> None:
    engine = await use(pool)
    await pool.close()
    assert isinstance(engine, FakeEngine)
    assert engine.closed
    assert pool.loaded() == []


class Shelf:
    """A store of models that are only names."""

    def resolve(self, name: str | None) -> ModelFiles:
        return ModelFiles(id=name or "fake", path=Path(), kind="fake")


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


def shelf_pool(loads: Loads, clock: list[float], megabytes: float) -> Pool:
    """Models of 10 MB each, and one of 50."""
    sizes = {"large": 50_000_000}
    settings = Settings(engine="fake", model_path="fake", model_memory_mb=megabytes)
    store: Any = Shelf()
    pool = Pool(
        settings,
        store,
        clock=lambda: clock[0],
        size=lambda files: sizes.get(files.id, 10_000_000),
    )
    pool._load = loads
    return pool


def names(pool: Pool) -> set[str]:
    return {model.id for model in pool.models()}


async def test_the_longest_idle_model_makes_room(loads: Loads, clock: list[float]) -> None:
    pool = shelf_pool(loads, clock, 20)
    for name in ("a", "b", "a", "c"):
        clock[0] += 1
        async with pool.lease(name):
            pass
    assert names(pool) == {"a", "c"}


async def test_models_in_use_stay_and_the_new_one_waits_outside(
    loads: Loads, clock: list[float]
) -> None:
    pool = shelf_pool(loads, clock, 20)
    async with pool.lease("a") as first, pool.lease("b"):
        with pytest.raises(CapacityError) as caught:
            async with pool.lease("c"):
                pass
        assert caught.value.code == "model_memory_full"
        assert isinstance(first, FakeEngine)
        assert not first.closed
        assert names(pool) == {"a", "b"}
    async with pool.lease("c"):
        assert "c" in names(pool)


async def test_a_model_larger_than_all_the_memory_is_refused(
    loads: Loads, clock: list[float]
) -> None:
    pool = shelf_pool(loads, clock, 20)
    async with pool.lease("a"):
        pass
    with pytest.raises(InvalidOption, match="50 MB"):
        async with pool.lease("large"):
            pass
    assert names(pool) == {"a"}


async def test_many_first_requests_for_two_models_with_room_for_one(
    loads: Loads, clock: list[float]
) -> None:
    pool = shelf_pool(loads, clock, 10)

    async def ask(name: str) -> str:
        for _ in range(1000):
            try:
                async with pool.lease(name) as engine:
                    assert engine.info.model == name
                    assert isinstance(engine, FakeEngine)
                    await asyncio.sleep(0.001)
                    assert not engine.closed
                    return name
            except CapacityError:
                await asyncio.sleep(0.001)
        raise AssertionError("never let in")

    answers = await asyncio.gather(*(ask("ab"[n % 2]) for n in range(10)))
    assert sorted(answers) == ["a"] * 5 + ["b"] * 5
    assert sum(model.size for model in pool.models()) <= 10_000_000


async def test_unload_by_name(pool: Pool) -> None:
    async with pool.lease() as engine:
        with pytest.raises(Conflict):
            await pool.unload(None)
    assert await pool.unload(None) == "fake"
    assert isinstance(engine, FakeEngine)
    assert engine.closed
    with pytest.raises(ModelNotFound):
        await pool.unload(None)


async def test_a_late_waiter_of_a_failed_load_spares_the_next_one(pool: Pool, loads: Loads) -> None:
    loads.error, loads.count = ModelBroken("no weights"), 0
    loads.gate.clear()
    first = asyncio.create_task(use(pool))
    second = asyncio.create_task(use(pool))
    await waiting(pool, 2)
    loads.gate.set()
    with pytest.raises(ModelBroken):
        await first
    loads.error = None
    third = asyncio.create_task(use(pool))
    assert isinstance(await asyncio.gather(second, return_exceptions=True), list)
    engine = await third
    assert pool.loaded() == [engine]
    assert loads.count == 2


def test_engines_by_name_and_import_string() -> None:
    loader = engine_loader(Settings(engine="whisper_api.engines.fake:FakeEngine"))
    assert loader == FakeEngine.load
    with pytest.raises(SettingsError, match="not known"):
        engine_loader(Settings(engine="nonsense"))
    with pytest.raises(SettingsError, match="cannot be loaded"):
        engine_loader(Settings(engine="whisper_api.nowhere:Engine"))
