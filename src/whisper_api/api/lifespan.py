"""The parts behind an application, for as long as it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from whisper_api.api import errors, tasks
from whisper_api.config import Settings
from whisper_api.runtime import open_runtime, settle
from whisper_api.tasks.node import Role
from whisper_api.tracing import OFF, Tracing


def lifespan(
    settings: Settings, tracing: Tracing = OFF, role: Role | None = None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Opens the runtime as ``app.state.runtime`` and loads the model beside."""

    @asynccontextmanager
    async def opened(app: FastAPI) -> AsyncIterator[None]:
        async with open_runtime(settings, tracing, role) as runtime:
            await runtime.open_records()
            app.state.runtime = runtime
            await runtime.tasks.start(errors.error_of, tasks.webhook_data)
            background = (runtime.preload(), runtime.unload_idle(), runtime.keep_house())
            running = [asyncio.create_task(work) for work in background]
            try:
                yield
            finally:
                for task in running:
                    await settle(task)

    return opened
