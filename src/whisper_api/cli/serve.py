"""``whisper-api serve``: the HTTP server, with a graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from types import FrameType

import typer
import uvicorn
from fastapi import FastAPI

from whisper_api import __version__
from whisper_api.api.app import create_app
from whisper_api.cli.allocator import restart_for_allocator
from whisper_api.cli.flags import with_settings
from whisper_api.cli.tls import certificate_of, renewing
from whisper_api.config import Settings
from whisper_api.errors import SettingsError
from whisper_api.logs import setup_logging
from whisper_api.model_names import BUNDLED
from whisper_api.models import ModelStore

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 75
"""How long a connection may lie idle: longer than clients and proxies (most 60 s) keep it, or a
request could meet a connection that this side is just closing."""
FLUSH_SECONDS = 5
"""How long the last answers may take to leave, after the drain."""
LAST_SECONDS = 3.0
"""How long threads that cannot be stopped may hold up the end of the process."""
SWITCH_SECONDS = 0.001
"""How long a thread may keep the interpreter from the event loop: with Python's own 0.005
``/health`` waited up to 0.13 s while 500 requests came at once."""
ANOTHER = "For real speech take another: --model small (or large-v3-turbo, a hub name, a folder)."


class Server(uvicorn.Server):
    """Says where it listens, and ends with status 0 after a stop signal."""

    def __init__(
        self, config: uvicorn.Config, settings: Settings, drain: Callable[[float], Awaitable[None]]
    ) -> None:
        """``drain`` lets running requests finish for so many seconds, and answers the rest."""
        super().__init__(config)
        self._settings = settings
        self._drain = drain

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then print the address."""
        await super().startup(sockets=sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            typer.echo(banner(self._settings, port))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then close. New requests are told 503 meanwhile, not just refused."""
        draining = asyncio.ensure_future(self._drain(self._settings.drain_seconds))
        while not draining.done() and not self.force_exit:
            await asyncio.wait({draining}, timeout=0.1)
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
        await super().shutdown(sockets=sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Drain on SIGINT and SIGTERM. Uvicorn's own version raises the signal again at the end,
        so that supervisors would see a crash after a clean stop."""
        before = {
            number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.should_exit:
            log.warning("stopping at once")
            self.force_exit = True
        else:
            log.info("stopping; running requests have %g s", self._settings.drain_seconds)
        self.handle_exit(number, frame)


def banner(settings: Settings, port: int) -> str:
    """The line that a person sees when the server is up."""
    host = "localhost" if settings.host in {"127.0.0.1", "0.0.0.0", "::", "::1"} else settings.host
    scheme = "https" if settings.ssl_certfile else "http"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{settings.root_path}"
    return (
        f"Whisper API server {__version__} · {url} · docs {url}/docs · model {settings.model_path}"
    )


def _serve(settings: Settings, config: Path | None) -> None:
    """Start the server. Flags win over WHISPER_API_… variables, and those over the file."""
    prepare(settings, config)
    if settings.local_engine and settings.model_path == BUNDLED:
        log.warning("%s %s", ModelStore(settings).resolve().note, ANOTHER)
    if not asyncio.run(run_server(create_app(settings), settings)):
        raise SettingsError(
            f"{settings.host}:{settings.service_port} cannot be listened on; is another server "
            "there? --port takes another port"
        )


def prepare(settings: Settings, config: Path | None) -> None:
    """Logging, what the settings must be told about, and the folder of temporary files.

    Raises:
        SettingsError: the folder cannot be used.
    """
    setup_logging(settings)
    restart_for_allocator(settings)
    if config is not None:
        log.info("settings from %s", config)
    for notice in settings.notices:
        log.warning("%s", notice)
    try:
        settings.scratch_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"data_dir: {settings.data_dir} cannot be used ({error.strerror})"
        raise SettingsError(message) from error


async def run_server(app: FastAPI, settings: Settings) -> bool:
    """Serve until a stop signal; False when the address could not be had.

    The lifespan runs here and not in uvicorn, so that a wrong setting found in it is one line
    and not a traceback.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    certificate = certificate_of(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.service_port,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the setting trusted_proxies decides, in the guards
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=FLUSH_SECONDS,
        ssl_context_factory=(lambda _, __: certificate.context) if certificate else None,
    )
    async with app.router.lifespan_context(app), renewing(certificate):
        keep_what_is_loaded()
        server = Server(config, settings, app.state.runtime.drain)
        with contextlib.suppress(SystemExit):  # uvicorn's way to say that it cannot listen
            await server.serve()
    if server.started:
        end_soon()
    return server.started


def keep_what_is_loaded() -> None:
    """Let collections pass over what is here for good: modules, classes, routes.

    One that looks through all of it keeps the interpreter from everybody for 0.1 s and more.
    """
    gc.collect()
    gc.freeze()


def end_soon() -> None:
    """Everything is answered and closed: a batch that cannot be stopped must not hold the end."""
    last = threading.Timer(LAST_SECONDS, os._exit, (0,))
    last.daemon = True
    last.start()


serve = with_settings(_serve)
