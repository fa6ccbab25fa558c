"""``/v1/models``: what requests may name."""

from __future__ import annotations

import asyncio
import zlib

from fastapi import APIRouter, Request

from whisper_api.api import schemas
from whisper_api.models import ModelStore
from whisper_api.runtime import Runtime

router = APIRouter(tags=["Models"])

_FIRST_DAY = 1_661_990_400
"""2022-09-01: models have no date of their own, so each gets a fixed one from its name."""


@router.get("/v1/models", summary="All models")
async def list_models(request: Request) -> schemas.ModelList:
    """The models on this machine and every other name that works."""
    store = _store(request)
    entries = await asyncio.to_thread(store.list)
    return schemas.ModelList(data=[_model(entry.id) for entry in entries])


@router.get(
    "/v1/models/{model_id:path}",
    summary="One model",
    responses={404: {"model": schemas.ErrorBody, "description": "No such model."}},
)
async def get_model(request: Request, model_id: str) -> schemas.Model:
    """A model by any name that requests may use; names may hold slashes.

    Raises:
        ModelNotFound: no such model.
    """
    await asyncio.to_thread(_store(request).resolve, model_id)
    return _model(model_id)


def _store(request: Request) -> ModelStore:
    runtime: Runtime = request.app.state.runtime
    return runtime.store


def _model(name: str) -> schemas.Model:
    owner = name.partition("/")[0] if "/" in name else "whisper-api"
    created = _FIRST_DAY + zlib.crc32(name.encode()) % (365 * 86_400)
    return schemas.Model(id=name, created=created, owned_by=owner)
