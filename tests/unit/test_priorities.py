"""Who waits for whom in one process: threads of libraries, and collections of garbage."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from fastapi import FastAPI

from whisper_api.cli.serve import run_server
from whisper_api.config import Settings
from whisper_api.engines.loading import NICENESS, load_aside
from whisper_api.logs import request_id_var


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
async def test_what_a_library_starts_while_it_is_loaded_gives_way_and_we_do_not() -> None:
    before, found = niceness(), list[int]()

    def load(name: str) -> str:
        thread = threading.Thread(target=lambda: found.append(niceness()))
        thread.start()
        thread.join()
        return f"{name} for {request_id_var.get()}"

    request_id_var.set("req-1")
    assert await load_aside(load, "model") == "model for req-1"
    assert found == [min(19, before + NICENESS)]
    assert niceness() == before


async def test_a_serving_process_does_not_look_through_its_modules_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield

    frozen: list[int] = []

    async def serve(self: uvicorn.Server) -> None:
        frozen.append(gc.get_freeze_count())

    monkeypatch.setattr(uvicorn.Server, "serve", serve)
    app = FastAPI(lifespan=lifespan)
    app.state.runtime = type("Runtime", (), {"drain": None})
    interval = sys.getswitchinterval()
    try:
        assert not await run_server(app, Settings())
        assert frozen[0] > 10_000
    finally:
        gc.unfreeze()
        sys.setswitchinterval(interval)
