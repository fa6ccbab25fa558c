"""Tasks as the API shows them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from whisper_api.api.schemas import ErrorDetail
from whisper_api.tasks.live import Attempt
from whisper_api.tasks.record import Asked, Status, TaskRecord
from whisper_api.webhooks import Delivery

State = Literal["pending", "running", "completed", "failed", "cancelled"]


class TaskBody(BaseModel):
    """A transcription in the background."""

    model_config = ConfigDict(protected_namespaces=())

    id: str
    task_id: str = Field(description="The same as id")
    object: Literal["task"] = "task"
    status: State
    created_at: int = Field(description="Unix seconds")
    started_at: int | None
    finished_at: int | None
    name: str = Field(description="The file's name")
    duration_seconds: float | None = Field(description="Audio, as far as known")
    progress: float = Field(description="Percent, 0 to 100")
    processed_seconds: float = Field(description="Audio that is done")
    eta_seconds: float | None = Field(description="Work left, by the speed measured so far")
    attempts: int = Field(description="Processes that began or took it up")
    model: str | None
    options: dict[str, Any]
    callback_url: str | None
    error: ErrorDetail | None
    history_id: str | None

    def dump(self) -> dict[str, Any]:
        """In JSON's own types."""
        return self.model_dump(mode="json")


class TaskDetail(TaskBody):
    """One task, with its result once it is completed."""

    result: Any = Field(default=None, description="As response_format has it")


class TaskList(BaseModel):
    """One page of tasks."""

    object: Literal["list"] = "list"
    data: list[TaskBody]
    has_more: bool
    first_id: str | None
    last_id: str | None


class DeliveryBody(BaseModel):
    """A webhook message and how far it came."""

    id: str = Field(description="Also the header webhook-id")
    object: Literal["delivery"] = "delivery"
    task_id: str
    url: str
    event: str
    status: Literal["pending", "delivered", "dead"]
    attempts: int
    created_at: int
    next_attempt_at: int | None
    finished_at: int | None
    response_status: int | None = Field(description="Of the last try")
    error: str | None = Field(description="Of the last try")


class DeliveryList(BaseModel):
    """The deliveries of a task."""

    object: Literal["list"] = "list"
    data: list[DeliveryBody]


def task_body(record: TaskRecord, attempt: Attempt | None = None) -> TaskBody:
    """A task as it is now; ``attempt`` knows more than the record while it runs here."""
    processed, eta, progress = record.processed, record.eta, record.progress
    duration = record.duration
    if attempt is not None and record.status is Status.RUNNING:
        duration = attempt.record.duration or duration
        processed = max(processed, attempt.processed)
        eta = attempt.eta if attempt.eta is not None else eta
        if duration:
            progress = max(progress, round(min(99.9, 100 * processed / duration), 1))
    return TaskBody(
        id=record.id,
        task_id=record.id,
        status=record.status.value,
        created_at=int(record.created_at),
        started_at=_seconds(record.started_at),
        finished_at=_seconds(record.finished_at),
        name=record.name,
        duration_seconds=None if duration is None else round(duration, 3),
        progress=progress,
        processed_seconds=round(processed, 3),
        eta_seconds=eta,
        attempts=record.attempts,
        model=record.model or record.asked.model,
        options=options_body(record.asked),
        callback_url=record.callback_url,
        error=ErrorDetail.model_validate(record.error) if record.error else None,
        history_id=record.history_id,
    )


def options_body(asked: Asked) -> dict[str, Any]:
    """What was asked for, by the names of the form fields."""
    options = asdict(asked.options)
    vad = options.pop("vad")
    del options["loudness"], options["max_new_tokens"], options["word_timestamps"]
    del options["logprobs"]
    return options | {
        "languages": list(asked.options.languages),
        "keywords": list(asked.options.keywords),
        "vad_filter": vad["enabled"],
        "response_format": asked.format,
        "timestamp_granularities": list(asked.granularities),
        "return_timestamps": asked.return_timestamps,
        "include": ["logprobs"] if asked.logprobs else [],
    }


def delivery_body(delivery: Delivery) -> DeliveryBody:
    """A delivery without its payload."""
    return DeliveryBody(
        id=delivery.id,
        task_id=delivery.task_id,
        url=delivery.url,
        event=delivery.event,
        status=delivery.status,
        attempts=delivery.attempts,
        created_at=int(delivery.created_at),
        next_attempt_at=_seconds(delivery.next_at),
        finished_at=_seconds(delivery.finished_at),
        response_status=delivery.response_status,
        error=delivery.error,
    )


def _seconds(moment: float | None) -> int | None:
    return None if moment is None else int(moment)
