"""What a worker answers over HTTP: whether it lives, whether it is ready, and its figures."""

from __future__ import annotations

from fastapi import FastAPI

from whisper_api import __version__
from whisper_api.api import errors, probes
from whisper_api.api.lifespan import lifespan
from whisper_api.config import Settings


def create_worker_app(settings: Settings) -> FastAPI:
    """The application; its lifespan does the work, whether anybody listens or not."""
    app = FastAPI(
        title="Whisper API worker",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan(settings, role="worker"),
    )
    app.state.settings = settings
    app.state.notes = {}
    app.state.engine_only = True
    errors.install(app)
    app.include_router(probes.router)
    return app
