"""Loaded models: each loaded once, held by reference, unloaded when idle or at the end."""

from __future__ import annotations

import asyncio
import importlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from whisper_api.config import Settings
from whisper_api.engines import ENGINES
from whisper_api.engines.base import Engine
from whisper_api.errors import EngineError, SettingsError, WhisperApiError
from whisper_api.models import ModelFiles, ModelStore

log = logging.getLogger(__name__)

Loader = Callable[[ModelFiles, Settings], Engine]
Closing = Callable[[Engine], Awaitable[None]]
Loaded = Callable[[str], None]


def engine_loader(settings: Settings) -> Loader:
    """The ``load`` of the engine that the settings name.

    Raises:
        SettingsError: there is no such engine, or its library is not installed.
    """
    name = "ctranslate2" if settings.engine == "auto" else settings.engine
    path = ENGINES.get(name, name)
    module, _, attribute = path.partition(":")
    if not attribute:
        known = ", ".join(["auto", *sorted(ENGINES)])
        raise SettingsError(f"engine: {name!r} is not known; choose {known}, or module:Class.")
    try:
        loader: Loader = getattr(importlib.import_module(module), attribute).load
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"engine: {path} cannot be loaded: {error}") from error
    return loader


@dataclass(eq=False, slots=True)
class _Slot:
    """One model: its load in progress or done, and who uses it."""

    loading: asyncio.Task[Engine]
    users: int = 0
    idle_since: float = 0.0


class Pool:
    """The models of one process.

    ``closing`` runs before an engine is closed, so that its threads can end first; ``loaded``
    is told the name of each model that was loaded.
    """

    def __init__(
        self,
        settings: Settings,
        store: ModelStore,
        *,
        closing: Closing | None = None,
        loaded: Loaded | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._store = store
        self._closing = closing
        self._loaded = loaded
        self._clock = clock
        self._load = engine_loader(settings)
        self._slots: dict[str, _Slot] = {}

    @asynccontextmanager
    async def lease(self, model: str | None = None) -> AsyncIterator[Engine]:
        """The engine of ``model`` (None: the default), kept loaded while the block runs.

        Raises:
            ModelNotFound, ModelBroken: from the store.
            EngineError: the model could not be loaded; the next call tries again.
        """
        files = await asyncio.to_thread(self._store.resolve, model)
        slot = self._slot(files)
        slot.users += 1
        try:
            # Shielded: a caller that leaves must not end a load that others wait for.
            yield await asyncio.shield(slot.loading)
        except BaseException:
            if slot.loading.done() and not slot.loading.cancelled() and slot.loading.exception():
                self._slots.pop(files.id, None)
            raise
        finally:
            slot.users -= 1
            slot.idle_since = self._clock()

    def loaded(self) -> list[Engine]:
        """Every engine that is ready."""
        return [
            slot.loading.result()
            for slot in self._slots.values()
            if slot.loading.done() and not slot.loading.cancelled() and not slot.loading.exception()
        ]

    async def unload_idle(self, seconds: float) -> int:
        """Close models that nobody has used for ``seconds``; answers how many."""
        now = self._clock()
        idle = [
            key
            for key, slot in self._slots.items()
            if slot.users == 0 and slot.loading.done() and now - slot.idle_since >= seconds
        ]
        for key in idle:
            await self._close(self._slots.pop(key))
        return len(idle)

    async def close(self) -> None:
        """Close everything, also what is still in use."""
        slots, self._slots = list(self._slots.values()), {}
        for slot in slots:
            await self._close(slot)

    def _slot(self, files: ModelFiles) -> _Slot:
        slot = self._slots.get(files.id)
        if slot is None:
            slot = self._slots[files.id] = _Slot(asyncio.create_task(self._load_engine(files)))
        return slot

    async def _load_engine(self, files: ModelFiles) -> Engine:
        started = self._clock()
        try:
            engine = await asyncio.to_thread(self._load, files, self._settings)
        except WhisperApiError:
            raise
        except Exception as error:
            log.exception("model %s could not be loaded", files.id)
            raise EngineError(f"The model {files.id!r} could not be loaded.") from error
        info = engine.info
        if self._loaded is not None:
            self._loaded(info.model)
        log.info(
            "model %s loaded in %.1f s: %s on %s, %s (%s)",
            info.model,
            self._clock() - started,
            info.engine,
            info.device,
            info.compute_type,
            info.reason,
        )
        return engine

    async def _close(self, slot: _Slot) -> None:
        try:
            engine = await slot.loading
        except Exception:
            return
        if self._closing is not None:
            await self._closing(engine)
        await asyncio.to_thread(engine.close)
