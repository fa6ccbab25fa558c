"""Models for people who choose one: what is here, how large, and what may be fetched."""

from __future__ import annotations

import asyncio
import re

from fastapi import APIRouter, Request

from whisper_api.api.auth import caller_of
from whisper_api.api.model_schemas import Catalog, CatalogModel
from whisper_api.errors import WhisperApiError
from whisper_api.model_names import BUNDLED, SHORT_NAMES
from whisper_api.models import ModelEntry, ModelStore
from whisper_api.runtime import Runtime

router = APIRouter(tags=["Models"])

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+|this package")


@router.get("/v1/models/catalog", summary="Models to choose from")
async def catalog(request: Request) -> Catalog:
    """The models on this machine with their sizes, and the known ones that may be fetched."""
    runtime: Runtime = request.app.state.runtime
    entries, default_is_here = await asyncio.to_thread(_look, runtime.store)
    here = [entry for entry in entries if entry.alias_of is None]
    loaded = {model.id for model in runtime.pool.models() if not model.loading}
    names = {entry.id for entry in here}
    known = [
        CatalogModel(id=name, source=model.repository)
        for name, model in SHORT_NAMES.items()
        if name not in names
    ]
    return Catalog(
        data=[_here(entry, entry.id in loaded, default_is_here) for entry in here] + known,
        can_manage=caller_of(request).admin,
        offline=runtime.settings.offline,
    )


def _look(store: ModelStore) -> tuple[list[ModelEntry], bool]:
    """All models, and whether the default one has arrived already."""
    try:
        store.resolve()
    except WhisperApiError:
        return store.list(), False
    return store.list(), True


def _here(entry: ModelEntry, loaded: bool, default_is_here: bool) -> CatalogModel:
    return CatalogModel(
        id=entry.id,
        installed=default_is_here or not entry.default,
        default=entry.default,
        size_bytes=entry.size,
        source=_public(entry.source),
        loaded=loaded,
        removable=not entry.default and entry.id != BUNDLED,
    )


def _public(source: str) -> str:
    """Where a model came from, unless that is a folder of this machine."""
    return source if _REPOSITORY.fullmatch(source) else ""
