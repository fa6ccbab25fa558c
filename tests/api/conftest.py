"""One application in this process for all API tests, with the fake engine behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from whisper_api.api.app import create_app
from whisper_api.config import Settings
from whisper_api.runtime import Runtime
from whisper_api.tracing import Tracing

Send = Callable[..., Any]
OpenApp = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@asynccontextmanager
async def running(
    data_dir: Path, tracing: Tracing | None = None, /, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a fresh application; ``client.app`` is the application."""
    chosen = {"engine": "fake", "model_path": "fake", "vad": False, "decode_workers": 1}
    app = create_app(Settings(data_dir=data_dir, **{**chosen, **settings}), tracing)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            client.app = app  # type: ignore[attr-defined]
            yield client


@pytest.fixture
def open_app(tmp_path: Path) -> OpenApp:
    """``async with open_app(max_queued_seconds=30) as client``: an application of one's own."""
    return lambda **settings: running(tmp_path, **settings)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the shared application."""
    folder = tmp_path_factory.mktemp("shared")
    local = folder / "local"
    local.mkdir()
    async with running(folder / "data", allowed_directories=(local,)) as client:
        yield client


@pytest.fixture
def runtime(client: httpx.AsyncClient) -> Runtime:
    """The parts of the shared application."""
    found: Runtime = client.app.state.runtime  # type: ignore[attr-defined]
    return found
