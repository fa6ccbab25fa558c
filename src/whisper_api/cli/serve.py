"""``whisper-api serve``: the HTTP server, with a graceful end."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
from collections.abc import Generator
from pathlib import Path
from types import FrameType

import typer
import uvicorn

from whisper_api import __version__
from whisper_api.api.app import create_app
from whisper_api.cli.flags import with_settings
from whisper_api.config import Settings
from whisper_api.logs import setup_logging

log = logging.getLogger(__name__)

BUNDLED = (
    "The bundled model knows numbers and a few phrases only. For real speech take another one: "
    "--model small (or large-v3-turbo, a hub name, a folder)."
)


class Server(uvicorn.Server):
    """Says where it listens, and ends with status 0 after a stop signal."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then print the address."""
        await super().startup(sockets=sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            typer.echo(banner(self._settings, port))

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
    if settings.model_path == "bundled":
        log.warning(BUNDLED)
    server = Server(
        uvicorn.Config(
            create_app(settings),
            host=settings.host,
            port=settings.service_port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=round(settings.drain_seconds),
        ),
        settings,
    )
    server.run()
    if not server.started:
        raise typer.Exit(3)


serve = with_settings(_serve)
