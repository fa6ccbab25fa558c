"""What supervisors and monitoring ask: alive, ready, and the figures; of servers and workers."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response

from whisper_api import __version__
from whisper_api.api import schemas
from whisper_api.api.errors import SERVER, error_body
from whisper_api.engines.base import EngineInfo, batch_size_of
from whisper_api.errors import DatabaseUnavailable, WhisperApiError
from whisper_api.models import RemoteModels
from whisper_api.runtime import Runtime

router = APIRouter(tags=["System"])
Status = Literal["ready", "loading", "failed", "stopping"]


@router.head("/health", include_in_schema=False)
@router.get("/health", summary="Alive?")
async def health() -> schemas.Health:
    """Answers as long as the process does; never touches the model."""
    return schemas.Health(version=__version__)


@router.get(
    "/ready",
    summary="Ready to transcribe?",
    response_model=schemas.Ready,
    responses={503: {"model": schemas.Ready, "description": "Not yet, or not at all."}},
)
async def ready(request: Request) -> Response:
    """The default model and what it runs on; 503 with reasons until it is loaded."""
    runtime: Runtime = request.app.state.runtime
    state = schemas.Ready(status="ready", version=__version__)
    code: str | None = None
    if (obstacle := _obstacle(runtime, request.app.state.engine_only)) is not None:
        state.status, reason, code = obstacle
        state.reasons = [reason]
    if info := engine_of(runtime):
        state.model, state.engine, state.device = info.model, info.engine, info.device
        state.compute_type, state.replicas = info.compute_type, info.replicas
        state.batch_size = batch_size_of(info, runtime.settings)
        state.chosen_because = info.reason
        state.note = await _note(request, info.model)
    if not await runtime.database.healthy():
        code = code or "database_unavailable"
        state.status = "failed"
        state.reasons.append(DatabaseUnavailable().message)
    if state.status == "ready":
        return JSONResponse(state.model_dump(exclude={"error"}))
    error = error_body(state.reasons[0], SERVER, code=code)
    return JSONResponse(state.model_dump() | error, 503, {"retry-after": "5"})


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    runtime: Runtime = request.app.state.runtime
    text = await asyncio.to_thread(generate_latest, runtime.metrics.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _obstacle(runtime: Runtime, engine_only: bool) -> tuple[Status, str, str | None] | None:
    """Why the default model does not answer: status, reason and code; None where it does."""
    if runtime.stopping:
        return "stopping", "The server is shutting down.", "shutting_down"
    if engine_only and runtime.tasks.node.draining:
        return "stopping", "An administrator has drained this worker.", "model_stopping"
    if runtime.failure is not None:
        return "failed", runtime.failure, "model_failed"
    if not runtime.ready:
        return "loading", "The model is being loaded.", "model_loading"
    store = runtime.store
    absence = store.absence(store.default_name) if isinstance(store, RemoteModels) else None
    return None if absence is None else ("failed", absence.message, absence.code)


def engine_of(runtime: Runtime) -> EngineInfo | None:
    """The default model's engine; where several are loaded, the first is the default."""
    loaded = runtime.pool.loaded()
    return loaded[0].info if loaded else None


async def _note(request: Request, model: str) -> str | None:
    """What the model's manifest tells people; read once, as probes ask every second."""
    known: dict[str, str | None] = request.app.state.notes
    if model not in known:
        runtime: Runtime = request.app.state.runtime
        try:
            files = await asyncio.to_thread(runtime.store.resolve, None)
            known[model] = files.note or None
        except WhisperApiError:
            known[model] = None
    return known[model]
