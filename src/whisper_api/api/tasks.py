"""Durable tasks over HTTP: submit, list, look, cancel, retry, follow, webhooks."""

from __future__ import annotations

import asyncio
import json
from time import perf_counter
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from whisper_api.api import bodies, schemas, sse
from whisper_api.api.auth import Visitor, caller_of
from whisper_api.api.options import AudioRequest, Fields, parse_request, read_format
from whisper_api.api.task_events import Cursor, Follower
from whisper_api.api.task_schemas import (
    DeliveryBody,
    DeliveryList,
    State,
    TaskBody,
    TaskDetail,
    TaskList,
    delivery_body,
    task_body,
)
from whisper_api.api.transcriptions import render
from whisper_api.audio.download import check_url
from whisper_api.audio.scratch import Scratch
from whisper_api.errors import Conflict, InvalidOption, UrlRefused
from whisper_api.runtime import Runtime
from whisper_api.tasks.record import Asked, Status, TaskRecord
from whisper_api.tasks.service import Tasks
from whisper_api.types import Task
from whisper_api.usage import audio_spent

router = APIRouter(tags=["Tasks"], responses=schemas.ERRORS)

SUBMIT = "/v1/audio/transcriptions/async"
Shape = Annotated[str | None, Query(description="json, text, srt, vtt or verbose_json")]


@router.post(
    SUBMIT, status_code=202, summary="Audio -> task", response_model=TaskBody, **schemas.task()
)
async def submit(request: Request) -> Response:
    """Accept a transcription to be done in the background; 202 once audio and task are durable."""
    runtime: Runtime = request.app.state.runtime
    caller = caller_of(request)
    visitor: Visitor = request.state.visitor
    async with await asyncio.to_thread(Scratch.create, runtime.settings.scratch_dir) as scratch:
        source = await bodies.from_any(request, runtime, scratch)
        asked = _asked(source.fields, runtime)
        callback = _callback(source.fields) or caller.callback_url
        model = await asyncio.to_thread(runtime.store.resolve, asked.model)
        file = await source.fetch()
        if visitor.allowance.audio_minutes_per_day is not None:
            file = await runtime.intake.measured(file)  # it may claim less than it holds
        async with audio_spent(file.duration or 0.0):
            record = await runtime.tasks.submit(
                file, asked, caller.key, callback_url=callback, source=source.kind, model=model.id
            )
    headers = {"location": f"/v1/tasks/{record.id}"}
    return JSONResponse(task_body(record).dump(), 202, headers)


@router.get("/v1/tasks", summary="Tasks, newest first")
async def listing(
    request: Request,
    status: Annotated[list[State] | None, Query(description="Only these")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="last_id of the page before")] = None,
    order: Literal["asc", "desc"] = "desc",
) -> TaskList:
    """One page; with ``has_more`` ask again with ``after=<last_id>``."""
    tasks = _tasks(request)
    page = await tasks.store.page(
        caller_of(request),
        statuses=[Status(item) for item in status or ()],
        limit=limit,
        after=after,
        order=order,
    )
    data = [task_body(record, tasks.attempt(record.id)) for record in page.records]
    ids = [body.id for body in data]
    return TaskList(
        data=data,
        has_more=page.more,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
    )


@router.get("/v1/tasks/{task_id}", summary="One task", response_model=TaskDetail)
async def detail(request: Request, task_id: str, response_format: Shape = None) -> Response:
    """Status, progress and error; a completed one has its ``result``, in any format."""
    tasks, record = await _find(request, task_id)
    body: dict[str, Any] = task_body(record, tasks.attempt(record.id)).dump()
    if record.status is not Status.COMPLETED:
        return JSONResponse(body)
    answer = await _result(request, record, response_format)
    return await asyncio.to_thread(with_result, body, answer)


@router.get("/v1/tasks/{task_id}/result", summary="A task's transcript", response_model=None)
async def result(request: Request, task_id: str, response_format: Shape = None) -> Response:
    """The very body that the direct request would have answered; 409 until it is there."""
    _, record = await _find(request, task_id)
    if record.status is not Status.COMPLETED:
        raise Conflict(f"The task is {record.status.value}.", code="task_not_completed")
    return await _result(request, record, response_format)


@router.delete("/v1/tasks/{task_id}", summary="Cancel a task, or remove a finished one")
async def cancel(request: Request, task_id: str) -> TaskBody:
    """Stops one that waits or runs; a finished one disappears (its transcript stays in history)."""
    tasks, record = await _find(request, task_id)
    if record.status.finished:
        await tasks.remove(record)
        return task_body(record)
    return task_body(await tasks.cancel(record))


@router.post("/v1/tasks/{task_id}/retry", status_code=202, summary="Try a task again")
async def retry(request: Request, task_id: str) -> TaskBody:
    """A failed or cancelled task goes on with the same options; work done is kept."""
    tasks, record = await _find(request, task_id)
    return task_body(await tasks.retry(record))


@router.get("/v1/tasks/{task_id}/events", summary="Follow a task", response_model=None)
async def events(request: Request, task_id: str) -> Response:
    """Server-sent events ``status``, ``progress`` and ``segment``; ``Last-Event-ID`` goes on."""
    tasks, record = await _find(request, task_id)
    cursor = Cursor(request.headers.get("last-event-id"))
    follower = Follower(tasks, record, caller_of(request), cursor)
    return sse.event_stream(follower.frames())


@router.get("/v1/tasks/{task_id}/deliveries", summary="A task's webhooks")
async def deliveries(request: Request, task_id: str) -> DeliveryList:
    """Every message about this task and how far it came."""
    tasks, record = await _find(request, task_id)
    found = await tasks.webhooks.of_task(record.id)
    return DeliveryList(data=[delivery_body(delivery) for delivery in found])


@router.post(
    "/v1/tasks/{task_id}/deliveries/{delivery_id}/replay",
    status_code=202,
    summary="Send a webhook again",
)
async def replay(request: Request, task_id: str, delivery_id: str) -> DeliveryBody:
    """The same message under the same id, with all its tries."""
    tasks, record = await _find(request, task_id)
    return delivery_body(await tasks.webhooks.replay(record.id, delivery_id))


def webhook_data(record: TaskRecord) -> dict[str, Any]:
    """What a webhook says of a task: its body as ``GET /v1/tasks/{id}`` has it, less the result."""
    return task_body(record).dump()


def _asked(fields: Fields, runtime: Runtime) -> Asked:
    task = fields.text("task") or "transcribe"
    if task not in ("transcribe", "translate"):
        raise InvalidOption("task is 'transcribe' or 'translate'.", param="task")
    kind: Task = "translate" if task == "translate" else "transcribe"
    asked = parse_request(fields, runtime.settings, kind)
    if asked.stream:
        raise InvalidOption("Follow a task at /v1/tasks/{id}/events instead.", param="stream")
    return Asked(
        options=asked.options,
        model=asked.model,
        format=asked.format,
        granularities=asked.granularities,
        return_timestamps=asked.return_timestamps,
        logprobs=asked.logprobs,
    )


def _callback(fields: Fields) -> str | None:
    url = fields.text("callback_url")
    if url is not None:
        try:
            check_url(url)
        except UrlRefused as error:
            raise UrlRefused(error.message, param="callback_url") from error
    return url


def _tasks(request: Request) -> Tasks:
    runtime: Runtime = request.app.state.runtime
    return runtime.tasks


async def _find(request: Request, task_id: str) -> tuple[Tasks, TaskRecord]:
    tasks = _tasks(request)
    return tasks, await tasks.store.get(task_id, caller_of(request))


async def _result(request: Request, record: TaskRecord, shape: str | None) -> Response:
    asked, tasks = record.asked, _tasks(request)
    wanted = AudioRequest(
        options=asked.options,
        model=asked.model,
        format=asked.format if shape is None else read_format(shape),
        granularities=asked.granularities,
        return_timestamps=asked.return_timestamps,
        logprobs=asked.logprobs,
        stream=False,
    )
    transcript = await tasks.transcript(record)
    spent = (record.finished_at or 0.0) - (record.started_at or 0.0)
    # Seconds of work where the recording is hours long.
    return await asyncio.to_thread(render, transcript, wanted, perf_counter() - spent)


def with_result(body: dict[str, Any], answer: Response) -> Response:
    """``body`` with a rendered answer as its ``result``."""
    text = bytes(answer.body)
    body["result"] = json.loads(text) if isinstance(answer, JSONResponse) else text.decode()
    return JSONResponse(body)
