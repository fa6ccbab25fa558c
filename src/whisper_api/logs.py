"""Logging for people: one line an event on stderr and, when asked for, in a rotating file.

Each line names the request it belongs to; what callers send cannot forge lines, and secrets
are starred.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import re
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from whisper_api.config import Settings
from whisper_api.errors import SettingsError

request_id_var: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the request that the running code serves; empty outside of requests."""

FILE_BYTES = 10 * 1024 * 1024
FILE_COUNT = 5
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_BEARER = re.compile(r"(?i)(bearer\s+)[^\s'\",;]+")
_CHATTY = (
    "uvicorn",
    "uvicorn.error",
    "httpx",
    "httpcore",
    "huggingface_hub",
    "filelock",
    "fsspec",
    "faster_whisper",
)


class LineFormatter(logging.Formatter):
    """``2026-11-24 12:00:00.123 INFO whisper_api.pool [req_1] text``, times in UTC."""

    converter = staticmethod(time.gmtime)
    default_msec_format = "%s.%03d"

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        """``secrets`` are starred wherever they turn up."""
        super().__init__("%(asctime)s %(levelname)s %(name)s%(request)s %(message)s")
        self._secrets = tuple(secret for secret in secrets if secret)

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, and its traceback below if it has one."""
        ident = request_id_var.get()
        record.request = f" [{ident}]" if ident else ""
        return self.hide(super().format(record))

    def hide(self, text: str) -> str:
        """``text`` with secrets starred."""
        for secret in self._secrets:
            text = text.replace(secret, "********")
        return _BEARER.sub(r"\1********", text)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without traceback; line breaks and control characters are escaped."""
        return _CONTROL.sub(
            lambda found: found.group().encode("unicode_escape").decode(),
            super().formatMessage(record),
        )


class JsonFormatter(logging.Formatter):
    """An object on a line: time, level, logger, request_id, message, and an event's own fields."""

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        """``secrets`` are starred wherever they turn up."""
        super().__init__()
        self._hide = LineFormatter(secrets).hide

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, its traceback as a field."""
        moment = datetime.fromtimestamp(record.created, UTC)
        content: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "request_id": request_id_var.get() or None,
            "message": self._hide(record.getMessage()),
        }
        content |= getattr(record, "fields", {})
        if record.exc_info:
            content["exception"] = self._hide(self.formatException(record.exc_info))
        return json.dumps(content, ensure_ascii=False, default=str)


def setup_logging(settings: Settings) -> None:
    """Send every logger, uvicorn's too, to stderr and to ``settings.log_file``.

    Raises:
        SettingsError: the log file cannot be written.
    """
    chosen = JsonFormatter if settings.log_format == "json" else LineFormatter
    formatter: logging.Formatter = chosen(settings.secrets)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if settings.log_file is not None:
        try:
            settings.log_file.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(
                logging.handlers.RotatingFileHandler(
                    settings.log_file,
                    maxBytes=FILE_BYTES,
                    backupCount=FILE_COUNT,
                    encoding="utf-8",
                )
            )
        except OSError as error:
            raise SettingsError(
                f"log_file: {settings.log_file} cannot be written ({error.strerror})"
            ) from error
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(settings.log_level)
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        own = logging.getLogger(name)
        own.handlers.clear()
        own.propagate = True
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
