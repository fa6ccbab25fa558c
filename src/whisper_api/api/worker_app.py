"""What a worker answers over HTTP: whether it lives, whether it is ready, and its figures.

The same keys open the figures as on an API server.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware import Middleware

from whisper_api import __version__
from whisper_api.api import errors, probes
from whisper_api.api.access import ApiKey, SameOrigin
from whisper_api.api.auth import Authenticator
from whisper_api.api.guards import CatchAll, HostCheck, RequestId
from whisper_api.api.lifespan import lifespan
from whisper_api.config import Settings
from whisper_api.keys import KeyRing


def create_worker_app(settings: Settings) -> FastAPI:
    """The application; its lifespan does the work, whether anybody listens or not."""
    app = FastAPI(
        title="Whisper API worker",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan(settings, role="worker"),
        middleware=_guards(settings),
    )
    app.state.settings = settings
    app.state.notes = {}
    app.state.engine_only = True
    errors.install(app)
    app.include_router(probes.router)
    return app


def _guards(settings: Settings) -> list[Middleware]:
    """What stands around every request, outermost first."""
    keys = Authenticator(KeyRing(settings))
    return [
        Middleware(RequestId),
        # ``allowed_hosts`` has the names of the API, and probes call workers by address.
        Middleware(HostCheck, allowed=(), listening_on=settings.host),
        Middleware(CatchAll),
        Middleware(SameOrigin, keys=keys),
        Middleware(ApiKey, keys=keys),
    ]
