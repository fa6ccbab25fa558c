"""Exceptions -> HTTP: one table, one body shape (OpenAI's), for our errors and the framework's."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from whisper_api import errors

log = logging.getLogger(__name__)

INVALID = "invalid_request_error"
SERVER = "server_error"
BUSY = "rate_limit_error"
NO_RETRY = {"x-should-retry": "false"}
RETRIED_STATUSES = frozenset({408, 409, 429})
"""4xx statuses that OpenAI's clients try again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a class of errors is answered."""

    status: int
    type: str = INVALID
    headers: Mapping[str, str] = field(default_factory=dict)


ANSWERS: dict[type[errors.WhisperApiError], Answer] = {
    errors.RequestError: Answer(400),
    # OpenAI's own answer to a large upload has this type.
    errors.FileTooLarge: Answer(413, SERVER),
    errors.PathRefused: Answer(403),
    errors.ModelNotFound: Answer(404),
    errors.DeadlineExceeded: Answer(408),
    errors.BodyStalled: Answer(408, headers={"connection": "close"}),
    errors.AuthenticationFailed: Answer(401, headers={"www-authenticate": "Bearer"}),
    errors.PermissionRefused: Answer(403),
    errors.NotFound: Answer(404),
    errors.RangeRefused: Answer(416),
    errors.Conflict: Answer(409, headers=NO_RETRY),
    errors.ProtocolMismatch: Answer(412),
    errors.ContentTypeRefused: Answer(415),
    errors.ChecksumMismatch: Answer(460),
    errors.CrossSiteRefused: Answer(403),
    errors.CapacityError: Answer(503, SERVER),
    errors.StorageFull: Answer(507, SERVER),
    errors.Overloaded: Answer(429, BUSY),
    errors.RateLimited: Answer(429, "requests"),
    errors.WhisperApiError: Answer(500, SERVER),
    errors.RequestTimedOut: Answer(504, SERVER, NO_RETRY),
    errors.ModelBroken: Answer(500, SERVER, NO_RETRY),
    errors.SettingsError: Answer(500, SERVER, NO_RETRY),
}
"""Error -> answer; the nearest class on an error's family line counts."""


def answer_for(error: errors.WhisperApiError) -> Answer:
    """The row of the table for ``error``."""
    return next(ANSWERS[cls] for cls in type(error).__mro__ if cls in ANSWERS)


def error_body(
    message: str, type_: str = INVALID, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """OpenAI's error object; always all four keys."""
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


def error_of(error: errors.WhisperApiError) -> dict[str, Any]:
    """OpenAI's error object for one of our errors, without the ``error`` around it."""
    found: dict[str, Any] = body_for(error)["error"]
    return found


def body_for(error: errors.WhisperApiError) -> dict[str, Any]:
    """The body for one of our errors."""
    return error_body(error.message, answer_for(error).type, error.param, error.code)


def response_for(error: errors.WhisperApiError) -> Response:
    """The whole response for one of our errors; the server's own faults are logged."""
    answer = answer_for(error)
    if isinstance(error, errors.ServerError | errors.SettingsError):
        log.error("%s: %s", type(error).__name__, error.message, exc_info=error.__cause__)
    headers = dict(answer.headers)
    if isinstance(error, errors.RateLimited):
        # Not capped: OpenAI's clients do not try again where they would wait over two minutes.
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
        headers |= limit_headers(error.standing)
    elif isinstance(error, errors.CapacityError):
        headers["retry-after"] = str(min(120, max(1, math.ceil(error.retry_after))))
    if isinstance(error, errors.RangeRefused):
        headers["content-range"] = f"bytes */{error.size}"
    return _respond(answer.status, body_for(error), headers)


def limit_headers(standing: errors.Standing | None) -> dict[str, str]:
    """OpenAI's headers about one limit; none where there is no limit."""
    if standing is None:
        return {}
    return {
        f"x-ratelimit-limit-{standing.unit}": str(standing.limit),
        f"x-ratelimit-remaining-{standing.unit}": str(standing.remaining),
        f"x-ratelimit-reset-{standing.unit}": duration(standing.reset),
    }


def duration(seconds: float) -> str:
    """Seconds as OpenAI writes them in headers: ``6ms``, ``12s``, ``6m0s``, ``1h0m5s``."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours}h"] if hours else []
    parts += [f"{minutes}m"] if hours or minutes else []
    return "".join([*parts, f"{rest}s"])


def unexpected_body(request_id: str) -> dict[str, Any]:
    """The body for an error that nobody foresaw."""
    message = f"The server had an error. Its log has more under the request id {request_id}."
    return error_body(message, SERVER, code="internal_error")


def unexpected(request_id: str) -> Response:
    """The answer to an error that nobody foresaw."""
    return _respond(500, unexpected_body(request_id))


def count_failure(scope: Scope, code: str | None) -> None:
    """Note a failed request in the metrics, by error code."""
    app = scope.get("app")
    runtime = getattr(app.state, "runtime", None) if app is not None else None
    if runtime is not None:
        runtime.metrics.failures.labels(code=code or "none").inc()


def install(app: FastAPI) -> None:
    """Answer our errors and the framework's in OpenAI's shape."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, errors.WhisperApiError)
        count_failure(request.scope, error.code)
        return response_for(error)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message, code = _http_words(request, error)
        count_failure(request.scope, code)
        type_ = SERVER if error.status_code >= 500 else INVALID
        return _respond(error.status_code, error_body(message, type_, code=code), error.headers)

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"][1:]) or None
        where = f"{param}: " if param else ""
        count_failure(request.scope, "invalid_value")
        return _respond(400, error_body(f"{where}{first['msg']}.", INVALID, param, "invalid_value"))

    app.add_exception_handler(errors.WhisperApiError, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, validation)


def _http_words(request: Request, error: HTTPException) -> tuple[str, str | None]:
    path = request.url.path
    if error.status_code == 404:
        message = f"Unknown URL: {request.method} {path}. The API is described at /docs."
        return message, "unknown_url"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        return f"{request.method} is not allowed on {path}; use {allowed}.", "method_not_allowed"
    return str(error.detail), None


def _respond(
    status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    extra = dict(headers or {})
    if 400 <= status < 500 and status not in RETRIED_STATUSES:
        extra |= NO_RETRY
    return JSONResponse(body, status, extra)
