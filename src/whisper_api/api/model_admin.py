"""Models for admins: pull from the hub, load, unload, remove."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from whisper_api.api import model_schemas, schemas, sse
from whisper_api.api.auth import require_admin
from whisper_api.api.errors import body_for
from whisper_api.api.forms import read_json, take_text
from whisper_api.errors import Conflict, InvalidOption, ModelNotFound
from whisper_api.pool import LoadedModel
from whisper_api.pulls import Pull
from whisper_api.runtime import Runtime

router = APIRouter(tags=["Models"], dependencies=[Depends(require_admin)])

POLL_S = 0.25
"""Seconds between two looks at a pull that is streamed."""
REFUSED: dict[int | str, dict[str, object]] = {
    403: {"model": schemas.ErrorBody, "description": "The key is no admin's."},
    404: {"model": schemas.ErrorBody, "description": "No such model."},
    409: {"model": schemas.ErrorBody, "description": "It is in use, or lies on workers."},
}


def engine_here(request: Request) -> None:
    """A dependency of routes that fetch, load or remove what an engine of this process needs.

    Raises:
        Conflict: there is none.
    """
    if not _runtime(request).settings.local_engine:
        raise Conflict(
            "This server has no engine: models are fetched and loaded where its workers run.",
            code="no_engine",
        )


LOCAL = [Depends(engine_here)]


@router.post(
    "/v1/models/pull",
    summary="Fetch a model (admins)",
    status_code=202,
    response_model=model_schemas.Pull,
    responses={
        200: {
            "description": "With stream: events until it has ended.",
            "content": {"text/event-stream": {"schema": schemas.EVENT}},
        },
        **REFUSED,
    },
    openapi_extra=model_schemas.json_object(model_schemas.PullRequest),
    dependencies=LOCAL,
)
async def pull_model(request: Request) -> Response:
    """Fetch a model from the hub in the background; poll its `Location`, or ask for `stream`."""
    runtime = _runtime(request)
    body = await read_json(request)
    revision = body.get("revision")
    if revision is not None and not (isinstance(revision, str) and revision.strip()):
        raise InvalidOption("'revision' must be a text.", param="revision")
    pull = runtime.pulls.start(take_text(body, "model"), revision)
    if body.get("stream") is True:
        return sse.event_stream(_events(pull))
    headers = {"location": f"/v1/models/pulls/{pull.id}"}
    return JSONResponse(_pull(pull).model_dump(), 202, headers)


@router.get("/v1/models/pulls", summary="Downloads of models (admins)")
async def list_pulls(request: Request) -> model_schemas.PullList:
    """The downloads since the start of the server, the latest first."""
    return model_schemas.PullList(data=[_pull(pull) for pull in _runtime(request).pulls.all()])


@router.get("/v1/models/pulls/{pull_id}", summary="One download (admins)")
async def get_pull(request: Request, pull_id: str) -> model_schemas.Pull:
    """How far it is.

    Raises:
        NotFound: there is none of that id.
    """
    return _pull(_runtime(request).pulls.get(pull_id))


@router.delete("/v1/models/pulls/{pull_id}", summary="Stop a download (admins)")
async def cancel_pull(request: Request, pull_id: str) -> model_schemas.Pull:
    """Stop it; what arrived is kept, so that the next attempt goes on from there.

    Raises:
        NotFound, Conflict: there is none of that id, or it has ended.
    """
    return _pull(_runtime(request).pulls.cancel(pull_id))


@router.get("/v1/models/loaded", summary="Models in memory (admins)")
async def list_loaded(request: Request) -> model_schemas.LoadedModelList:
    """The models in memory, who uses them, and how long nobody has."""
    models = _runtime(request).pool.models()
    return model_schemas.LoadedModelList(data=[_loaded(model) for model in models])


@router.post(
    "/v1/models/load",
    summary="Load a model into memory (admins)",
    responses=REFUSED,
    openapi_extra=model_schemas.json_object(model_schemas.ModelRequest),
    dependencies=LOCAL,
)
async def load_model(request: Request) -> model_schemas.LoadedModel:
    """Load a model that lies here, so that its first request need not wait.

    Raises:
        ModelNotFound, ModelBroken, InvalidOption, CapacityError: as the first request would.
    """
    runtime = _runtime(request)
    name = take_text(await read_json(request), "model")
    files = await asyncio.to_thread(runtime.store.resolve, name)
    async with runtime.pool.lease(files.id):
        pass
    return next(_loaded(model) for model in runtime.pool.models() if model.id == files.id)


@router.post(
    "/v1/models/unload",
    summary="Take a model out of memory (admins)",
    responses=REFUSED,
    openapi_extra=model_schemas.json_object(model_schemas.ModelRequest),
    dependencies=LOCAL,
)
async def unload_model(request: Request) -> model_schemas.UnloadedModel:
    """Take a model that nobody uses out of memory; the next request loads it again.

    Raises:
        ModelNotFound, Conflict: it is not loaded, or in use.
    """
    name = take_text(await read_json(request), "model")
    return model_schemas.UnloadedModel(id=await _runtime(request).pool.unload(name))


@router.delete(
    "/v1/models/{model_id:path}",
    summary="Remove a model from this machine (admins)",
    responses=REFUSED,
    dependencies=LOCAL,
)
async def remove_model(request: Request, model_id: str) -> model_schemas.DeletedModel:
    """Unload a model and delete its files; the default and the bundled one stay.

    Raises:
        ModelNotFound, Conflict: it is not in the store; it is the default, or in use.
    """
    runtime = _runtime(request)
    files = await asyncio.to_thread(runtime.store.resolve, model_id)
    if files.id == runtime.store.default_name:
        raise Conflict(f"{files.id!r} is the default model (model_path) and stays.")
    with suppress(ModelNotFound):  # it is not in memory
        await runtime.pool.unload(files.id)
    await asyncio.to_thread(runtime.store.remove, files.id)
    return model_schemas.DeletedModel(id=files.id)


async def _events(pull: Pull) -> AsyncIterator[bytes]:
    """The pull's state whenever it changes; the download goes on when nobody listens."""
    last = None
    while True:
        now = _pull(pull).model_dump()
        if now != last:
            last = now
            yield sse.frame(now)
        if pull.ended:
            yield sse.DONE
            return
        await asyncio.sleep(POLL_S)


def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


def _pull(pull: Pull) -> model_schemas.Pull:
    return model_schemas.Pull(
        id=pull.id,
        model=pull.model,
        revision=pull.revision,
        status=pull.status,
        created_at=int(pull.created_at),
        completed_bytes=pull.done,
        total_bytes=pull.total or None,
        progress=round(100 * pull.done / pull.total, 1) if pull.total else 0.0,
        error=schemas.ErrorDetail(**body_for(pull.error)["error"]) if pull.error else None,
    )


def _loaded(model: LoadedModel) -> model_schemas.LoadedModel:
    return model_schemas.LoadedModel(
        id=model.id,
        status="loading" if model.loading else "loaded",
        users=model.users,
        size_bytes=model.size,
        idle_seconds=round(model.idle_seconds, 1),
    )
