"""Loaded models: each loaded once, held by reference, unloaded when idle or at the end."""

from __future__ import annotations

import asyncio
import importlib
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from whisper_api.accelerators import LIBRARIES
from whisper_api.config import Settings
from whisper_api.engines import ENGINES
from whisper_api.engines.base import Engine
from whisper_api.engines.loading import load_aside
from whisper_api.errors import (
    CapacityError,
    Conflict,
    EngineError,
    InvalidOption,
    ModelNotFound,
    SettingsError,
    WhisperApiError,
)
from whisper_api.model_folder import folder_size
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
    name = settings.engine
    path = ENGINES.get(name, name)
    module, _, attribute = path.partition(":")
    if not attribute:
        known = ", ".join(sorted(ENGINES))
        raise SettingsError(f"engine: {name!r} is not known; choose {known}, or module:Class.")
    try:
        loader: Loader = getattr(importlib.import_module(module), attribute).load
    except ModuleNotFoundError as error:
        needed = {name, *LIBRARIES} if name == "transformers" else {name}
        extra = f"; install whisper-api-server[{name}]" if error.name in needed else ""
        raise SettingsError(f"engine: {path} cannot be loaded: {error}{extra}.") from error
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"engine: {path} cannot be loaded: {error}") from error
    return loader


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory, or on its way there."""

    id: str
    loading: bool
    users: int  #: requests that hold it now
    size: int  #: bytes of its files
    idle_seconds: float  #: since the last request let go of it


@dataclass(eq=False, slots=True)
class _Slot:
    """One model: its load in progress or done, and who uses it."""

    size: int
    idle_since: float
    loading: asyncio.Task[Engine] = field(init=False)
    users: int = 0
    admitted: bool = False  #: whether its memory is set aside

    @property
    def engine(self) -> Engine | None:
        """The engine, once it is ready."""
        task = self.loading
        return task.result() if task.done() and not failed(task) else None


def failed(task: asyncio.Task[Engine]) -> bool:
    """Whether a load that is over has brought no engine."""
    return task.cancelled() or task.exception() is not None


class Pool:
    """The models of one process.

    ``closing`` runs before an engine is closed, so that its threads can end first; ``loaded``
    is told the name of each model that was loaded. Models together take at most
    ``model_memory_mb`` (the size of their files): idle ones make room, the longest idle first.
    """

    def __init__(
        self,
        settings: Settings,
        store: ModelStore,
        *,
        closing: Closing | None = None,
        loaded: Loaded | None = None,
        clock: Callable[[], float] = time.monotonic,
        size: Callable[[ModelFiles], int] | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._closing = closing
        self._loaded = loaded
        self._clock = clock
        self._size = size or _size_on_disk
        self._load = engine_loader(settings)
        self._slots: dict[str, _Slot] = {}
        self._room = asyncio.Lock()

    @asynccontextmanager
    async def lease(self, model: str | None = None) -> AsyncIterator[Engine]:
        """The engine of ``model`` (None: the default), kept loaded while the block runs.

        Raises:
            ModelNotFound, ModelBroken: from the store.
            InvalidOption: it is larger than all the memory that models may take.
            CapacityError: models in use leave no room for it.
            EngineError: the model could not be loaded; the next call tries again.
        """
        files = await asyncio.to_thread(self._store.resolve, model)
        slot = self._slots.get(files.id) or await self._new_slot(files)
        slot.users += 1
        try:
            # Shielded: a caller that leaves must not end a load that others wait for.
            yield await asyncio.shield(slot.loading)
        finally:
            slot.users -= 1
            slot.idle_since = self._clock()
            if slot.loading.done() and failed(slot.loading) and self._slots.get(files.id) is slot:
                del self._slots[files.id]

    def loaded(self) -> list[Engine]:
        """Every engine that is ready."""
        return [slot.engine for slot in self._slots.values() if slot.engine is not None]

    def models(self) -> list[LoadedModel]:
        """Every model in memory or on its way there."""
        now = self._clock()
        return [
            LoadedModel(
                id=key,
                loading=not slot.loading.done(),
                users=slot.users,
                size=slot.size,
                idle_seconds=0.0 if slot.users else max(0.0, now - slot.idle_since),
            )
            for key, slot in self._slots.items()
        ]

    async def unload(self, model: str | None) -> str:
        """Take a model out of memory; answers its id.

        Raises:
            ModelNotFound: it is not loaded, or unknown.
            Conflict: it is in use.
        """
        files = await asyncio.to_thread(self._store.resolve, model)
        slot = self._slots.get(files.id)
        if slot is None:
            raise ModelNotFound(f"The model {files.id!r} is not loaded.")
        if not _idle(slot):
            raise Conflict(f"The model {files.id!r} is in use; try again later.")
        await self._close(self._slots.pop(files.id))
        return files.id

    async def unload_idle(self, seconds: float) -> int:
        """Close models that nobody has used for ``seconds``; answers how many."""
        now = self._clock()
        idle = [
            key
            for key, slot in self._slots.items()
            if _idle(slot) and now - slot.idle_since >= seconds
        ]
        for slot in [self._slots.pop(key) for key in idle]:
            await self._close(slot)
        return len(idle)

    async def close(self) -> None:
        """Close everything, also what is still in use."""
        slots, self._slots = list(self._slots.values()), {}
        for slot in slots:
            await self._close(slot)

    async def _new_slot(self, files: ModelFiles) -> _Slot:
        size = await asyncio.to_thread(self._size, files)
        slot = self._slots.get(files.id)  # another request may have been quicker
        if slot is None:
            slot = self._slots[files.id] = _Slot(size, self._clock())
            slot.loading = asyncio.create_task(self._load_engine(files, slot))
        return slot

    async def _make_room(self, name: str, new: _Slot) -> None:
        """Close idle models until ``new`` fits."""
        most = self._settings.model_memory_mb * 1_000_000 or math.inf
        if new.size > most:
            raise InvalidOption(
                f"The model {name!r} has {new.size / 1e6:.0f} MB; all models together may have "
                f"{most / 1e6:.0f} MB here (model_memory_mb).",
                param="model",
                code="model_too_large",
            )
        async with self._room:
            while self._taken() + new.size > most:
                idle = {key: slot for key, slot in self._slots.items() if _idle(slot)}
                if not idle:
                    raise CapacityError(
                        f"Models in use leave no room for {name!r} now; try again later.",
                        retry_after=10,
                        code="model_memory_full",
                    )
                oldest = min(idle, key=lambda key: idle[key].idle_since)
                log.info("model %s makes room for %s", oldest, name)
                await self._close(self._slots.pop(oldest))
            new.admitted = True

    def _taken(self) -> int:
        return sum(slot.size for slot in self._slots.values() if slot.admitted)

    async def _load_engine(self, files: ModelFiles, slot: _Slot) -> Engine:
        await self._make_room(files.id, slot)
        started = self._clock()
        try:
            engine = await load_aside(self._load, files, self._settings)
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
        slot.idle_since = self._clock()
        return engine

    async def _close(self, slot: _Slot) -> None:
        try:
            engine = await slot.loading
        except Exception:
            return
        if self._closing is not None:
            await self._closing(engine)
        await asyncio.to_thread(engine.close)


def _size_on_disk(files: ModelFiles) -> int:
    return 0 if files.kind == "fake" else folder_size(files.path)


def _idle(slot: _Slot) -> bool:
    return slot.users == 0 and slot.loading.done()
