"""What the API takes and gives, for its description at ``/docs`` and for typed answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from whisper_api.formats import FORMATS


class ErrorDetail(BaseModel):
    """What went wrong; always all four keys."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every answer with a status of 400 or more."""

    error: ErrorDetail


class Model(BaseModel):
    """A model that requests may name."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Unix seconds")
    owned_by: str
    shutdown_date: str | None = None
    permissions: list[Any] = Field(default_factory=list, description="Empty; for old clients")


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[Model]


class Health(BaseModel):
    """The process lives; says nothing about the model."""

    status: Literal["ok"] = "ok"
    version: str


class Ready(BaseModel):
    """Whether the default model answers, and what it runs on."""

    model_config = ConfigDict(protected_namespaces=())

    status: Literal["ready", "loading", "failed", "stopping"]
    reasons: list[str] = Field(default_factory=list, description="Why it is not ready")
    version: str
    model: str | None = None
    engine: str | None = None
    device: str | None = None
    compute_type: str | None = None
    replicas: int | None = None
    batch_size: int | None = Field(default=None, description="Most windows in one batch")
    chosen_because: str | None = None
    note: str | None = Field(default=None, description="What people should know about the model")
    error: ErrorDetail | None = None


class Language(BaseModel):
    """A language of the default model."""

    code: str
    name: str


class Limits(BaseModel):
    """What is accepted here."""

    max_file_bytes: int
    max_duration_seconds: float
    min_duration_seconds: float = 0.1
    max_queued_seconds: float
    max_concurrent_requests: int


class Capabilities(BaseModel):
    """Limits, formats and abilities of this server."""

    version: str
    default_model: str
    models: list[str]
    limits: Limits
    response_formats: list[str]
    streaming_formats: list[str]
    extensions: list[str]
    languages: list[Language]
    features: dict[str, bool]
    api_key_required: bool


class QueuePlace(BaseModel):
    """One request in the queue."""

    request_id: str
    lane: str
    position: int = Field(description="Requests before it, those that run included")
    queued_seconds: float = Field(description="Of its audio, still to be done")
    eta_seconds: float = Field(description="Until it is done, by the measured speed")


class ClusterQueue(BaseModel):
    """Tasks of all processes that share the database."""

    queued_seconds: dict[str, float] = Field(description="Audio that waits or runs, by lane")
    speed: float = Field(description="Seconds of audio in a second, all workers together")
    backlog_seconds: float = Field(description="Until all of it is done")
    workers: dict[str, int] = Field(description="Processes with an engine, by state")


class Queue(BaseModel):
    """What waits and runs."""

    requests: int
    queued_seconds: float
    max_queued_seconds: float
    running_batches: int
    real_time_factor: float = Field(description="Measured engine seconds per second of audio")
    eta_seconds: float
    by_lane: dict[str, float]
    own: list[QueuePlace] = Field(description="The caller's own requests; an admin sees all")
    cluster: ClusterQueue


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def _list(description: str, **items: Any) -> dict[str, Any]:
    return {
        "type": "array",
        "items": {"type": "string", **items},
        "description": description,
    }


def _number(description: str, low: float, high: float, **more: Any) -> dict[str, Any]:
    return {
        "type": "number",
        "minimum": low,
        "maximum": high,
        "description": description,
        **more,
    }


FIELDS: dict[str, dict[str, Any]] = {
    "model": _text("A name of /v1/models; left out: the server's default."),
    "language": _text("Spoken language: a code, an English name, or auto."),
    "languages[]": _list("Candidates for detection; not together with language."),
    "prompt": _text("Text that comes before, for style and spelling."),
    "keywords[]": _list("Words to expect, in every part of the audio."),
    "response_format": _text("Shape of the answer.", enum=list(FORMATS), default="json"),
    "temperature": _number("0 is the whole fallback ladder.", 0, 1),
    "timestamp_granularities[]": _list(
        "What verbose_json carries; only with that format.", enum=["word", "segment"]
    ),
    "include[]": _list("logprobs of tokens; only with json.", enum=["logprobs"]),
    "stream": {"type": "boolean", "description": "Server-sent events as the text comes."},
    "chunking_strategy": _text(
        'auto (loudness and voice detection), or {"type": "server_vad", "threshold": 0.5, '
        '"prefix_padding_ms": 300, "silence_duration_ms": 200}.'
    ),
    "return_timestamps": {
        "type": "boolean",
        "description": "Segments with start_time_ms and end_time_ms.",
    },
    "beam_size": _number("Width of the beam search.", 1, 20),
    "chunk_length_s": _number("Longest window in seconds.", 1, 30),
    "vad_filter": {"type": "boolean", "description": "Find speech first, decode only that."},
    "vad_threshold": _number("Speech probability that counts as speech.", 0.05, 0.95),
    "vad_min_speech_ms": _number("Shortest speech kept.", 0, 10_000),
    "vad_min_silence_ms": _number("Silence that ends speech.", 32, 10_000),
    "vad_speech_pad_ms": _number("Audio kept on both sides of speech.", 0, 5_000),
}
"""Every optional field of the audio endpoints, as JSON schema."""

_SOURCES: dict[str, dict[str, Any]] = {
    "file": _text("Audio as base64, or as a data URL."),
    "url": _text("http(s) address of the audio.", format="uri"),
    "file_path": _text("Path on the server, inside allowed_directories."),
    "audio_id": _text("Id of a finished upload (/v1/uploads), or of other audio kept here."),
}

_TASK_FIELDS: dict[str, dict[str, Any]] = {
    "task": _text("What to write.", enum=["transcribe", "translate"], default="transcribe"),
    "callback_url": _text("Webhook that is told when the task has ended.", format="uri"),
}

EVENT: dict[str, Any] = {
    "type": "object",
    "description": "One event; its data is a JSON object, in the last one [DONE].",
    "properties": {"data": {"type": "string", "contentMediaType": "application/json"}},
}
"""A server-sent event."""

_COUNT = {"type": "integer", "minimum": 0}
_ANSWER: dict[str, Any] = {
    "description": "The transcript in the format asked for; events with stream=true.",
    "headers": {
        "x-cache": {
            "description": "What was there already.",
            "schema": {"enum": ["miss", "hit", "joined", "resumed"]},
        },
        "x-history-id": {
            "description": "The record of /v1/history, where the server keeps one.",
            "schema": {"type": "string"},
        },
    },
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["text"],
                "properties": {
                    "text": {"type": "string"},
                    "usage": {
                        "type": "object",
                        "properties": {"type": {"const": "duration"}, "seconds": _COUNT},
                    },
                    "languages": {"type": "array", "items": {"type": "object"}},
                    "logprobs": {"type": "array", "items": {"type": "object"}},
                    "warnings": {"type": "array", "items": {"type": "string"}},
                    "segments": {"type": "array", "items": {"type": "object"}},
                    "words": {"type": "array", "items": {"type": "object"}},
                    "task": {"enum": ["transcribe", "translate"]},
                    "language": {"type": "string"},
                    "duration": {"type": "number"},
                    "processing_time": {"type": "number"},
                    "duration_seconds": {"type": "number"},
                    "response_size_bytes": _COUNT,
                    "model": {"type": "string"},
                },
            }
        },
        "text/plain": {"schema": {"type": "string"}},
        "text/event-stream": {"schema": EVENT},
    },
}

ANY_ERROR: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The request is at fault."},
    "5XX": {"model": ErrorBody, "description": "The server is at fault."},
}
"""What any route may answer."""

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "Something in the request is wrong."},
    401: {"model": ErrorBody, "description": "No API key, or a wrong one."},
    403: {"model": ErrorBody, "description": "The path may not be read."},
    404: {"model": ErrorBody, "description": "No such model."},
    408: {"model": ErrorBody, "description": "Slower than the client waits; retry to go on."},
    413: {"model": ErrorBody, "description": "The upload is too large."},
    429: {"model": ErrorBody, "description": "The queue is full; see Retry-After."},
    500: {"model": ErrorBody, "description": "The server failed."},
    503: {"model": ErrorBody, "description": "Starting or stopping; see Retry-After."},
    504: {"model": ErrorBody, "description": "It took too long."},
}
"""The errors of the audio endpoints."""


def upload(title: str) -> dict[str, Any]:
    """Keyword arguments of a route that takes a multipart upload."""
    properties = {"file": _text("The audio.", format="binary"), **FIELDS}
    schema = {
        "type": "object",
        "title": f"{title}Request",
        "required": ["file"],
        "properties": properties,
    }
    return _route("multipart/form-data", schema)


def json_body(source: str) -> dict[str, Any]:
    """Keyword arguments of a route that takes a JSON object with ``source`` and the options."""
    properties = {source: _SOURCES[source]}
    properties |= {name.removesuffix("[]"): schema for name, schema in FIELDS.items()}
    schema = {"type": "object", "required": [source], "properties": properties}
    return _route("application/json", schema)


def task() -> dict[str, Any]:
    """The body of a route that makes a task: a multipart upload, or JSON with any source."""
    fields = FIELDS | _TASK_FIELDS
    del fields["stream"]
    plain = {name.removesuffix("[]"): schema for name, schema in fields.items()}
    form = {"file": _text("The audio.", format="binary"), **fields}
    bodies = {
        "multipart/form-data": {"type": "object", "required": ["file"], "properties": form},
        "application/json": {"type": "object", "properties": {**_SOURCES, **plain}},
    }
    content = {kind: {"schema": schema} for kind, schema in bodies.items()}
    return {"openapi_extra": {"requestBody": {"required": True, "content": content}}}


HEADERS = [
    {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Stands for this audio and these options; a repeated request joins.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    },
    {
        "name": "Cache-Control",
        "in": "header",
        "description": "no-store takes and leaves nothing, no-cache works anew.",
        "schema": {"type": "string"},
    },
]
"""Headers that the audio endpoints look at."""


def _route(media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    body = {"required": True, "content": {media_type: {"schema": schema}}}
    return {
        "openapi_extra": {"requestBody": body, "parameters": HEADERS},
        "responses": {200: _ANSWER, **ERRORS},
        "response_model": None,
    }
