"""Everything beside transcripts: the page, probes, descriptions of this server, its docs."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.staticfiles import PathLike, StaticFiles
from starlette.types import Scope

from whisper_api import __version__
from whisper_api.api import schemas
from whisper_api.api.auth import caller_of
from whisper_api.api.probes import engine_of
from whisper_api.api.workers import cluster_body
from whisper_api.config import Settings
from whisper_api.formats import FORMATS
from whisper_api.languages import LANGUAGES, english_name
from whisper_api.runtime import Runtime

router = APIRouter(tags=["System"])

PUBLIC_SETTINGS = (
    "audio_rate",
    "batch_size",
    "beam_size",
    "chunk_length_s",
    "compand_params",
    "compute_type",
    "device",
    "enable_history",
    "engine",
    "file_validation",
    "language",
    "max_duration_s",
    "max_history_days",
    "max_new_tokens",
    "norm_level",
    "return_timestamps",
    "service_port",
    "temperature",
    "vad",
)
"""What ``/config`` shows: nothing secret, no path of the server."""


PROBED = ["GET", "HEAD"]


def package_folder(name: str) -> Path:
    """A folder of this package, as a path."""
    return Path(str(resources.files("whisper_api") / name))


SAMPLE = package_folder("assets") / "sample.wav"
"""A short recording that the bundled model understands."""


class PageFiles(StaticFiles):
    """Files that browsers ask about each time: parts of two versions do not fit together."""

    def file_response(
        self,
        full_path: PathLike,
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """The file, or 304 where the browser has it."""
        answer = super().file_response(full_path, stat_result, scope, status_code)
        answer.headers["cache-control"] = "no-cache"
        return answer


def page_files() -> StaticFiles:
    """The page's parts."""
    return PageFiles(directory=package_folder("web"))


def docs_files() -> StaticFiles:
    """Swagger UI's parts, as the package fastapi-swagger carries them."""
    spec = find_spec("fastapi_swagger")
    assert spec is not None
    assert spec.origin is not None
    return StaticFiles(directory=Path(spec.origin).parent / "resources")


@router.api_route("/", methods=PROBED, include_in_schema=False)
async def page() -> Response:
    """The page."""
    return FileResponse(package_folder("web") / "index.html", headers={"cache-control": "no-cache"})


@router.api_route("/docs", methods=PROBED, include_in_schema=False)
async def docs() -> Response:
    """The API's description, to read and to try."""
    return FileResponse(package_folder("web") / "docs.html")


@router.api_route("/favicon.ico", methods=PROBED, include_in_schema=False)
async def favicon() -> Response:
    """The page's icon."""
    return FileResponse(package_folder("web") / "icon.svg")


@router.api_route("/sample.wav", methods=PROBED, include_in_schema=False)
async def sample() -> Response:
    """A short recording that the bundled model understands."""
    if not await asyncio.to_thread(SAMPLE.is_file):
        raise HTTPException(404)
    return FileResponse(SAMPLE, media_type="audio/wav")


@router.get("/config", summary="Public settings")
async def config(request: Request) -> dict[str, Any]:
    """The settings that callers may know, with the model by name only."""
    settings: Settings = request.app.state.settings
    content = settings.model_dump(mode="json", include=set(PUBLIC_SETTINGS))
    model = Path(settings.model_path).name if _is_path(settings.model_path) else settings.model_path
    return content | {"model_path": model, "version": settings.version or __version__}


@router.get("/v1/capabilities", summary="Limits, formats, models")
async def capabilities(request: Request) -> schemas.Capabilities:
    """What this server takes and can do."""
    runtime: Runtime = request.app.state.runtime
    settings = runtime.settings
    models = await asyncio.to_thread(runtime.store.list)
    info = engine_of(runtime)
    codes = info.languages if info else tuple(LANGUAGES)
    return schemas.Capabilities(
        version=__version__,
        default_model=info.model if info else Path(settings.model_path).name,
        models=[entry.id for entry in models],
        limits=schemas.Limits(
            max_file_bytes=settings.max_file_bytes,
            max_duration_seconds=settings.max_duration_s,
            max_queued_seconds=settings.max_queued_seconds,
            max_concurrent_requests=settings.max_concurrent_requests,
        ),
        response_formats=list(FORMATS),
        streaming_formats=list(FORMATS),
        extensions=list(runtime.intake.extensions),
        languages=[schemas.Language(code=code, name=english_name(code)) for code in codes],
        features={
            "streaming": True,
            "word_timestamps": True,
            "translations": info.multilingual if info else True,
            "logprobs": True,
            "history": settings.enable_history,
            "speakers": False,
            "url": True,
            "local_files": bool(settings.allowed_directories),
            "sample": await asyncio.to_thread(SAMPLE.is_file),
        },
        # On a public path everybody is an admin where no keys are set, and nobody where they are.
        api_key_required=not caller_of(request).admin,
    )


@router.get("/v1/queue", summary="What waits and runs")
async def queue(request: Request) -> schemas.Queue:
    """The scheduler's present; requests of others are counted, the caller's own are listed.

    An admin sees all of them. `request_id` is the `x-request-id` that was sent along.
    """
    runtime: Runtime = request.app.state.runtime
    caller = caller_of(request)
    own = [asdict(place) for owner, place in runtime.scheduler.places() if caller.may_see(owner)]
    return schemas.Queue.model_validate(
        asdict(runtime.scheduler.state())
        | {"own": own, "cluster": cluster_body(runtime.tasks.cluster.latest)}
    )


def _is_path(name: str) -> bool:
    return Path(name).is_absolute() or name.startswith((".", "~")) or "\\" in name
