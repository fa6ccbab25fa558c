"""The exception tree; it knows no HTTP (``api.errors`` maps it to statuses).

WhisperApiError
  SettingsError               a key, value or file of the configuration is wrong
  RequestError                the caller's fault
    InvalidOption             a field has a bad value
    AudioRejected             the audio itself is refused
      AudioMissing            no file, or an empty one
      UnsupportedMedia        its format is not allowed here
      UndecodableAudio        broken, or not audio
      AudioTooShort
      AudioTooLong
    FileTooLarge              more bytes than the limit
    UrlRefused                a URL that may not be fetched
    UrlFailed                 a URL that could not be fetched
    PathRefused               a server path outside the allowed directories
    ModelNotFound
    BodyStalled               nothing more of the request's body came
    DeadlineExceeded          slower than the caller said it would wait; may go on with a retry
    AuthenticationFailed      no key, or a wrong one
    PermissionRefused         a key that may not do this
    NotFound                  no such task, upload or record, or another's
    RangeRefused              a part of a file that is not there
    Conflict                  its state does not allow this
    ContentTypeRefused        a body of a type that this route does not take
    ProtocolMismatch          a version of tus that is not spoken here
    ChecksumMismatch          bytes that are not the announced ones
    CrossSiteRefused          another site's page, where only this server's own may ask
  CapacityError               try again later
    DatabaseUnavailable       the database is away
    Overloaded                the queue is full
    RateLimited               the caller's own limit is used up
    ShuttingDown              the server drains
    ModelLoading
    ModelUnavailable          no worker that is here now has it
    StorageFull               the disk or the database has no room
  ServerError                 the server's fault
    EngineError               the engine failed on a batch
      EngineOutOfMemory
    DecoderCrashed            the decode worker died or ran out of time
    RequestTimedOut           the whole request took longer than allowed
    ModelBroken               a model folder that cannot be used
    RecordBroken              a stored record that cannot be read
    TaskAbandoned             a task whose process died each time
    TaskStale                 what a task has done so far no longer fits
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a caller stands against one limit."""

    unit: str  #: what is counted: requests, audio-seconds
    limit: int
    remaining: int
    reset: float  #: seconds until there is room again


class WhisperApiError(Exception):
    """Something went wrong."""

    default_param: ClassVar[str | None] = None
    default_code: ClassVar[str | None] = None

    def __init__(
        self, message: str = "", *, param: str | None = None, code: str | None = None
    ) -> None:
        """``message`` defaults to the class docstring; ``param`` names the field at fault."""
        self.message = message or (self.__doc__ or "").strip()
        self.param = param if param is not None else self.default_param
        self.code = code if code is not None else self.default_code
        super().__init__(self.message)


class SettingsError(WhisperApiError):
    """The settings are wrong."""


class RequestError(WhisperApiError):
    """The request is wrong."""


class InvalidOption(RequestError):
    """A field has a value that is not allowed."""

    default_code = "invalid_value"


class AudioRejected(RequestError):
    """The audio was refused."""

    default_param = "file"


class AudioMissing(AudioRejected):
    """No audio was sent, or the file is empty."""

    default_code = "audio_missing"


class UnsupportedMedia(AudioRejected):
    """The audio's format is not allowed on this server."""

    default_code = "unsupported_format"


class UndecodableAudio(AudioRejected):
    """The audio file could not be decoded or its format is not supported."""

    default_code = "undecodable_audio"


class AudioTooShort(AudioRejected):
    """The audio is too short: at least 0.1 seconds are needed."""

    default_code = "audio_too_short"


class AudioTooLong(AudioRejected):
    """The audio is longer than this server allows."""

    default_code = "audio_too_long"


class FileTooLarge(RequestError):
    """The upload is larger than this server allows."""

    default_param = "file"
    default_code = "file_too_large"


class UrlRefused(RequestError):
    """The URL may not be fetched from this server."""

    default_param = "url"
    default_code = "url_refused"


class UrlFailed(RequestError):
    """The URL could not be fetched."""

    default_param = "url"
    default_code = "url_failed"


class PathRefused(RequestError):
    """The path is not inside a directory that this server may read."""

    default_param = "file_path"
    default_code = "path_refused"


class ModelNotFound(RequestError):
    """The model does not exist."""

    default_param = "model"
    default_code = "model_not_found"


class DeadlineExceeded(RequestError):
    """The transcript did not come before the client's own read timeout."""

    default_code = "deadline_exceeded"


class BodyStalled(RequestError):
    """Nothing more of the request's body came; send it again."""

    default_code = "upload_stalled"


class AuthenticationFailed(RequestError):
    """The API key is missing or wrong."""


class PermissionRefused(RequestError):
    """The API key does not allow this."""

    default_code = "permission_denied"


class NotFound(RequestError):
    """There is no such thing here."""

    default_code = "not_found"


class RangeRefused(RequestError):
    """The part of the file that was asked for begins behind its end."""

    default_code = "range_not_satisfiable"

    def __init__(self, size: int = 0) -> None:
        """``size`` is that of the file in bytes."""
        super().__init__()
        self.size = size


class Conflict(RequestError):
    """The present state does not allow this."""

    default_code = "conflict"


class ContentTypeRefused(RequestError):
    """The body has a type that this route does not take."""

    default_param = "Content-Type"
    default_code = "unsupported_content_type"


class ProtocolMismatch(RequestError):
    """The header Tus-Resumable must say 1.0.0."""

    default_param = "Tus-Resumable"
    default_code = "unsupported_tus_version"


class ChecksumMismatch(RequestError):
    """The bytes are not those that the checksum was made of; they were dropped."""

    default_param = "Upload-Checksum"
    default_code = "checksum_mismatch"


class CrossSiteRefused(RequestError):
    """Pages of other sites may not call this; use an API key or this server's own page."""

    default_code = "cross_site_refused"


class CapacityError(WhisperApiError):
    """The server has no room for this now; try again later."""

    def __init__(
        self,
        message: str = "",
        *,
        retry_after: float = 1.0,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        """``retry_after`` is the number of seconds after which a retry is worth while."""
        super().__init__(message, param=param, code=code)
        self.retry_after = retry_after


class DatabaseUnavailable(CapacityError):
    """The server's database does not answer; try again later."""

    default_code = "database_unavailable"


class Overloaded(CapacityError):
    """The queue is full; try again later."""

    default_code = "overloaded"


class RateLimited(CapacityError):
    """Your limit is reached; try again later."""

    default_code = "rate_limit_exceeded"

    def __init__(
        self, message: str = "", *, retry_after: float = 1.0, standing: Standing | None = None
    ) -> None:
        """``standing`` is where the caller stands against the limit."""
        super().__init__(message, retry_after=retry_after)
        self.standing = standing


class ShuttingDown(CapacityError):
    """The server is shutting down; try again later."""

    default_code = "shutting_down"


class ModelLoading(CapacityError):
    """The model is being loaded; try again later."""

    default_code = "model_loading"


class ModelUnavailable(CapacityError):
    """No worker that is here now has the model; try again later."""

    default_param = "model"
    default_code = "model_unavailable"


class StorageFull(CapacityError):
    """The server's disk is full; try again later."""

    default_code = "storage_full"

    def __init__(self, message: str = "", *, retry_after: float = 60.0) -> None:
        """``retry_after``: as for every ``CapacityError``."""
        super().__init__(message, retry_after=retry_after)


class ServerError(WhisperApiError):
    """The server failed."""


class EngineError(ServerError):
    """The recognition engine failed."""

    default_code = "engine_error"


class EngineOutOfMemory(EngineError):
    """The recognition engine ran out of memory."""

    default_code = "out_of_memory"


class DecoderCrashed(ServerError):
    """The audio decoder stopped unexpectedly on this file."""

    default_code = "decoder_crashed"


class RequestTimedOut(ServerError):
    """The request took longer than this server allows."""

    default_code = "timeout"


class ModelBroken(ServerError):
    """The model's files cannot be used."""

    default_code = "model_broken"


class RecordBroken(ServerError):
    """A stored record cannot be read."""

    default_code = "record_broken"


class TaskAbandoned(ServerError):
    """The server process ended again and again while it worked on this task."""

    default_code = "task_abandoned"


class TaskStale(ServerError):
    """The settings have changed since this task began; retry it, then it starts anew."""

    default_code = "task_stale"


def named_error(
    name: str, message: str, param: str | None = None, code: str | None = None
) -> WhisperApiError:
    """The error that another process had, by the name of its class; unknown ones are the
    server's fault."""
    known: list[type[WhisperApiError]] = [WhisperApiError]
    for kind in known:
        known.extend(kind.__subclasses__())
    kind = next((kind for kind in known if kind.__name__ == name), ServerError)
    error = kind()
    # Not every class takes these; all of them have them.
    WhisperApiError.__init__(error, message, param=param, code=code)
    if isinstance(error, CapacityError):
        error.retry_after = 1.0
    return error
