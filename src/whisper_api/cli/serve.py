"""``whisper-api serve``: the HTTP server, with a graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from types import FrameType

import typer
import uvicorn

from whisper_api import __version__
from whisper_api.api.app import create_app
from whisper_api.cli.flags import with_settings
from whisper_api.config import Settings
from whisper_api.errors import SettingsError
from whisper_api.logs import setup_logging
from whisper_api.model_names import BUNDLED
from whisper_api.models import ModelStore

log = logging.getLogger(__name__)

ANOTHER = "For real speech take another: --model small (or large-v3-turbo, a hub name, a folder)."


class Server(uvicorn.Server):
    """Says where it listens, and ends with status 0 after a stop signal."""

    def __init__(
        self, config: uvicorn.Config, settings: Settings, leave: Callable[[], Awaitable[None]]
    ) -> None:
        """``leave`` is awaited before running requests are waited for."""
        super().__init__(config)
        self._settings = settings
        self._leave = leave

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then print the address."""
        await super().startup(sockets=sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            typer.echo(banner(self._settings, port))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Interrupt tasks (and so end the streams of those who follow them), then drain."""
        await self._leave()
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
        else:
            log.info("stopping; running requests have %g s", self._settings.drain_seconds)
        self.handle_exit(number, frame)


def banner(settings: Settings, port: int) -> str:
    """The line that a person sees when the server is up."""
    host = "localhost" if settings.host in {"127.0.0.1", "0.0.0.0", "::", "::1"} else settings.host
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    return (
        f"Whisper API server {__version__} · {url} · docs {url}/docs · model {settings.model_path}"
    )


def _serve(settings: Settings, config: Path | None) -> None:
    """Start the server. Flags win over WHISPER_API_… variables, and those over the file."""
    setup_logging(settings)
    if config is not None:
        log.info("settings from %s", config)
    for notice in settings.notices:
        log.warning("%s", notice)
    if settings.model_path == BUNDLED:
        log.warning("%s %s", ModelStore(settings).resolve().note, ANOTHER)
    try:
        settings.scratch_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"data_dir: {settings.data_dir} cannot be used ({error.strerror})"
        raise SettingsError(message) from error
    if not asyncio.run(_run(settings)):
        raise SettingsError(
            f"{settings.host}:{settings.service_port} cannot be listened on; is another server "
            "there? --port takes another port"
        )


async def _run(settings: Settings) -> bool:
    """Serve until a stop signal; False when the address could not be had.

    The lifespan runs here and not in uvicorn, so that a wrong setting found in it is one line
    and not a traceback.
    """
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.service_port,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the setting trusted_proxies decides, in the guards
        timeout_graceful_shutdown=round(settings.drain_seconds),
    )
    async with app.router.lifespan_context(app):
        server = Server(config, settings, app.state.runtime.tasks.leave)
        with contextlib.suppress(SystemExit):  # uvicorn's way to say that it cannot listen
            await server.serve()
    return server.started


serve = with_settings(_serve)
