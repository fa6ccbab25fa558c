"""The HTTP application: guards, routes, and the parts behind them for as long as it runs."""

from __future__ import annotations

import logging
from collections.abc import Callable

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import Scope
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from whisper_api import __version__
from whisper_api.api import (
    errors,
    history,
    model_admin,
    model_catalog,
    models,
    probes,
    schemas,
    session,
    system,
    task_audio,
    tasks,
    transcriptions,
    uploads,
    workers,
)
from whisper_api.api.access import ApiKey, RateLimit, SameOrigin
from whisper_api.api.auth import Authenticator
from whisper_api.api.forms import BODY_OVERHEAD, FIELD_LIMIT
from whisper_api.api.guards import (
    BodyLimit,
    BodyPatience,
    CatchAll,
    Cors,
    HostCheck,
    RequestId,
    Watch,
)
from whisper_api.api.lifespan import lifespan
from whisper_api.api.prefix import Prefix
from whisper_api.api.profiles import check_profiles
from whisper_api.api.route_names import UNKNOWN, RouteNames
from whisper_api.api.traces import Trace
from whisper_api.config import Settings
from whisper_api.keys import KeyRing
from whisper_api.rate_limits import RateLimits
from whisper_api.tracing import OFF, Tracing, open_tracing

ROUTED = (
    transcriptions,
    tasks,
    task_audio,
    uploads,
    model_catalog,
    model_admin,  # before models: its fixed paths are no ids
    history,
    models,
    session,
    probes,
    workers,
    system,
)
"""Modules with routes, in the order in which those are tried."""

access = logging.getLogger("whisper_api.access")

DESCRIPTION = """
Speech to text on your own machine, through OpenAI's audio API: give your client the address of
this server as `base_url`. Every error has the same shape:
`{"error": {"message", "type", "param", "code"}}`.
"""


def create_app(settings: Settings, tracing: Tracing | None = None) -> FastAPI:
    """The application for ``settings``; its lifespan opens the runtime and loads the model.

    ``tracing`` stands in for what ``settings`` say of it.

    Raises:
        SettingsError: a profile holds what no request may send, or tracing is not installed.
    """
    check_profiles(settings)
    tracing = tracing or open_tracing(settings)
    app = FastAPI(
        title="Whisper API server",
        description=DESCRIPTION,
        version=__version__,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan(settings, tracing),
        middleware=guards(settings, tracing),
        # Every route may answer so; with this nothing is said of the framework's own 422.
        responses=schemas.ANY_ERROR,
    )
    app.state.settings = settings
    app.state.notes = {}
    app.state.engine_only = False
    errors.install(app)
    for module in ROUTED:
        app.include_router(module.router)
    app.mount("/web", system.page_files(), name="web")
    app.mount("/docs", system.docs_files(), name="docs")
    app.state.route_name = RouteNames(
        [*(route for module in ROUTED for route in module.router.routes), *app.router.routes]
    )
    return app


def guards(settings: Settings, tracing: Tracing = OFF) -> list[Middleware]:
    """What stands around every request, outermost first."""
    keys = Authenticator(KeyRing(settings))
    outside = [Middleware(Prefix, root_path=settings.root_path)] if settings.root_path else []
    untraced = settings.request_logging.exclude_endpoints
    traced = [Middleware(Trace, tracing=tracing, quiet=untraced)] if tracing.on else []
    return [
        *outside,
        # The address of who is behind a trusted proxy.
        Middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies)),
        Middleware(RequestId),
        *traced,
        Middleware(Watch, on_request=_noter(settings)),
        Middleware(HostCheck, allowed=settings.allowed_hosts, listening_on=settings.host),
        Middleware(Cors),
        Middleware(CatchAll),
        Middleware(SameOrigin, keys=keys),
        Middleware(ApiKey, keys=keys),
        Middleware(RateLimit, limits=RateLimits(settings)),
        Middleware(BodyLimit, limit=_body_limit(settings)),
        Middleware(BodyPatience, seconds=settings.body_timeout_s),
    ]


def _body_limit(settings: Settings) -> Callable[[str], tuple[int, int]]:
    """For a path: the most bytes of a body, and the limit that the error text names."""
    file = settings.max_file_bytes
    whole = ("/v1/audio/transcriptions", "/v1/audio/translations")

    def limit(path: str) -> tuple[int, int]:
        if path in ("/v1/audio/transcriptions/base64", tasks.SUBMIT):
            # Four characters for three bytes, and line ends or escapes between them.
            return file * 4 // 3 + file // 20 + FIELD_LIMIT, file
        if path in whole or path.endswith("/multipart"):
            return file + BODY_OVERHEAD, file
        if path == "/v1/uploads" or path.startswith("/v1/uploads/"):
            return file, file
        if path.startswith("/v1/history/"):
            return history.PATCH_LIMIT, history.PATCH_LIMIT
        return FIELD_LIMIT, FIELD_LIMIT

    return limit


def _noter(settings: Settings) -> Callable[[Scope, int, float], None]:
    quiet = frozenset(settings.request_logging.exclude_endpoints)

    def note(scope: Scope, status: int, seconds: float) -> None:
        runtime = getattr(scope["app"].state, "runtime", None)
        # The route's pattern: strange paths must not become labels of metrics.
        route = scope["app"].state.route_name(scope)
        if runtime is not None:
            runtime.metrics.observe_request(route, status, seconds)
        if scope["path"] not in quiet:
            client = (scope.get("client") or ("-",))[0]
            ms = seconds * 1000
            # A path that is no route may say anything, and ids need no log: the pattern will do.
            path = route if route != UNKNOWN else "(unknown)"
            stages = {name: round(took * 1000) for name, took in scope["state"]["stages"].items()}
            fields = {"client": client, "method": scope["method"], "route": path, "status": status}
            fields |= {"ms": round(ms, 1), "stages_ms": stages}
            told = "".join(f" {name}={took}" for name, took in stages.items())
            access.info(
                "%s %s %s %d %.0f ms%s",
                client,
                scope["method"],
                path,
                status,
                ms,
                told,
                extra={"fields": fields},
            )

    return note
