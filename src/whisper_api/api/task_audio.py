"""A task's audio for players, from the moment it is accepted."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from whisper_api.api import playing, schemas
from whisper_api.api.auth import caller_of
from whisper_api.api.history_schemas import Peaks
from whisper_api.errors import NotFound
from whisper_api.runtime import Runtime

router = APIRouter(tags=["Tasks"], prefix="/v1/tasks")


@router.head("/{task_id}/audio", include_in_schema=False)
@router.get(
    "/{task_id}/audio",
    summary="A task's audio, for players",
    responses={
        **playing.RESPONSES,
        404: {"model": schemas.ErrorBody, "description": "No such task, or no audio any more."},
    },
    response_class=Response,
)
async def audio(request: Request, task_id: str) -> Response:
    """As ``/v1/history/{id}/audio``, while the task waits and runs, too."""
    digest, name = await _stored(request, task_id)
    return await playing.play(request, digest, name.rpartition(".")[0] or name)


@router.get(
    "/{task_id}/peaks",
    summary="A task's waveform, for players",
    responses={
        404: {"model": schemas.ErrorBody, "description": "No such task, or no audio any more."}
    },
)
async def peaks(request: Request, task_id: str) -> Peaks:
    """As ``/v1/history/{id}/peaks``."""
    runtime: Runtime = request.app.state.runtime
    digest, _ = await _stored(request, task_id)
    return Peaks.of(await runtime.playback.envelope(digest))


async def _stored(request: Request, task_id: str) -> tuple[str, str]:
    """The digest of a task's audio, and the file's name."""
    runtime: Runtime = request.app.state.runtime
    record = await runtime.tasks.store.get(task_id, caller_of(request))
    if record.audio is None:
        raise NotFound("The audio of this task is no longer stored.", code="audio_gone")
    return record.audio, record.name
