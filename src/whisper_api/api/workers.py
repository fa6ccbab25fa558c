"""The processes that share the tasks: who they are, and taking one out of service."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from whisper_api.api import schemas
from whisper_api.api.auth import require_admin
from whisper_api.errors import Conflict
from whisper_api.runtime import Runtime
from whisper_api.tasks.cluster import Snapshot, Worker

router = APIRouter(tags=["Workers"], dependencies=[Depends(require_admin)])


class WorkerBody(BaseModel):
    """One process."""

    model_config = ConfigDict(protected_namespaces=())

    id: str
    object: Literal["worker"] = "worker"
    role: Literal["all", "api", "worker"] = Field(description="all: API and engine")
    state: Literal["ready", "draining", "away"]
    host: str
    pid: int
    version: str
    started_at: int = Field(description="Unix seconds")
    seen_seconds_ago: float
    models: list[str] = Field(description="Loaded")
    stored_models: list[str] = Field(description="It can load")
    running: int = Field(description="Tasks and parts of tasks")
    speed: float = Field(description="Seconds of audio in a second, measured")


class WorkerList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[WorkerBody]


@router.get("/v1/workers", summary="Processes that share the tasks (admins)")
async def listing(request: Request) -> WorkerList:
    """Servers and workers on the same database, as they last told of themselves."""
    runtime: Runtime = request.app.state.runtime
    snapshot = await runtime.tasks.cluster.look()
    return WorkerList(data=[worker_body(worker) for worker in snapshot.workers])


@router.post(
    "/v1/workers/{worker_id}/drain",
    status_code=202,
    summary="Take a process out of service (admins)",
    responses={
        403: {"model": schemas.ErrorBody, "description": "The key is no admin's."},
        404: {"model": schemas.ErrorBody, "description": "No such process with an engine."},
        409: {"model": schemas.ErrorBody, "description": "The database is not shared."},
    },
)
async def drain(request: Request, worker_id: str) -> WorkerBody:
    """Within seconds it hands its tasks back and takes no more, until it is started anew.

    Direct requests to that very process go on.
    """
    runtime: Runtime = request.app.state.runtime
    tasks = runtime.tasks
    if not tasks.node.shared:
        raise Conflict("This server has its tasks to itself; stop it instead.", code="not_shared")
    return worker_body(await tasks.cluster.drain(worker_id))


def worker_body(worker: Worker) -> WorkerBody:
    """A process as the API shows it."""
    about = worker.about
    return WorkerBody.model_validate(
        {
            "id": worker.id,
            "role": worker.role,
            "state": worker.state,
            "host": about.host,
            "pid": about.pid,
            "version": about.version,
            "started_at": int(about.started_at),
            "seen_seconds_ago": round(worker.age, 1),
            "models": list(about.models),
            "stored_models": list(about.stored),
            "running": about.running,
            "speed": about.speed,
        }
    )


def cluster_body(snapshot: Snapshot) -> schemas.ClusterQueue:
    """The shared queue, without names: everybody may see it."""
    states = [worker.state for worker in snapshot.workers if worker.role != "api"]
    return schemas.ClusterQueue(
        queued_seconds=dict(snapshot.queued),
        speed=snapshot.speed,
        backlog_seconds=snapshot.backlog,
        workers={state: states.count(state) for state in ("ready", "draining", "away")},
    )
