"""``whisper-api worker``: an engine without an API, for the tasks of a shared database."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path

from fastapi import FastAPI

from whisper_api.api.worker_app import create_worker_app
from whisper_api.cli.flags import with_settings
from whisper_api.cli.serve import end_soon, keep_what_is_loaded, prepare, run_server
from whisper_api.config import Settings
from whisper_api.errors import SettingsError
from whisper_api.tasks.roles import check_role

log = logging.getLogger(__name__)


def _worker(settings: Settings, config: Path | None) -> None:
    """Transcribe for API servers; needs ``database_url`` (PostgreSQL) and ``storage_url``."""
    check_role(settings, "worker")
    prepare(settings, config)
    app = create_worker_app(settings)
    port = settings.worker_port
    if port is None:
        asyncio.run(_idle(app))
        return
    changed = settings.model_copy(update={"service_port": port})
    if not asyncio.run(run_server(app, changed)):
        raise SettingsError(f"{settings.host}:{port} cannot be listened on (worker_port)")


async def _idle(app: FastAPI) -> None:
    """Work until a stop signal."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with app.router.lifespan_context(app):
        keep_what_is_loaded()
        log.info("this worker takes tasks")
        await stop.wait()
        log.info("stopping; others go on with what is not finished")
    end_soon()


worker = with_settings(_worker)
