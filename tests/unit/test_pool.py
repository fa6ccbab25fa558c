"""The model pool: one load for many, references, idle unload, failures that do not stick."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from whisper_api.config import Settings
from whisper_api.engines.base import Engine
from whisper_api.engines.fake import FakeEngine
from whisper_api.errors import EngineError, ModelBroken, SettingsError
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
        assert self.gate.wait(10)
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


async def test_first_requests_at_once_load_once(pool: Pool, loads: Loads) -> None:
    loads.gate.clear()
    users = [asyncio.create_task(use(pool)) for _ in range(5)]
    await asyncio.sleep(0.05)
    loads.gate.set()
    engines = await asyncio.gather(*users)
    assert loads.count == 1
    assert len({id(engine) for engine in engines}) == 1
    assert pool.loaded() == [engines[0]]


async def test_a_leaving_caller_does_not_end_the_load(pool: Pool, loads: Loads) -> None:
    loads.gate.clear()
    first, second = asyncio.create_task(use(pool)), asyncio.create_task(use(pool))
    await asyncio.sleep(0.05)
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


def test_engines_by_name_and_import_string() -> None:
    loader = engine_loader(Settings(engine="whisper_api.engines.fake:FakeEngine"))
    assert loader == FakeEngine.load
    with pytest.raises(SettingsError, match="not known"):
        engine_loader(Settings(engine="nonsense"))
    with pytest.raises(SettingsError, match="cannot be loaded"):
        engine_loader(Settings(engine="whisper_api.nowhere:Engine"))
