"""Where the server listens, logs and keeps its files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from whisper_api.config.kinds import FilePath, Section, Texts


def default_data_dir() -> Path:
    """The folder for models, scratch files and state when no setting names one."""
    if os.name == "nt" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "whisper-api"
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "whisper-api"


TAKEN = frozenset(
    "config docs favicon.ico health local metrics openapi.json ready sample.wav v1 web".split()
)
"""First parts of the server's own paths, which no prefix may begin with."""


def _prefix(value: str) -> str:
    value = value.rstrip("/")
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", value):
        raise ValueError("allowed: a path such as /speech")
    if value.split("/")[1:2] and value.split("/")[1] in TAKEN:
        raise ValueError(f"the server's own paths begin with /{value.split('/')[1]}")
    return value


class RequestLogging(Section):
    """The access log."""

    exclude_endpoints: Texts = ("/health", "/metrics")
    """Paths whose requests are not logged."""


class ServerSettings(Section):
    """The process and its address."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 serves every network the machine is in."""
    service_port: Annotated[int, Field(ge=0, le=65535)] = 5042
    """TCP port; 0 takes a free one."""
    root_path: Annotated[
        str, AfterValidator(_prefix), Field(json_schema_extra={"limits": "a path such as /speech"})
    ] = ""
    """Path below which a proxy shows this server, whether the proxy takes it off or not."""
    ssl_certfile: FilePath | None = None
    """Certificate with its chain (PEM): the server then speaks https. A renewed file is taken up
    within a minute."""
    ssl_keyfile: FilePath | None = None
    """Key of that certificate (PEM); null: it is in the same file."""
    ssl_keyfile_password: SecretStr | None = None
    """Password of that key, if it has one."""
    local_engine: bool = True
    """Whether this server transcribes itself; if not (``--no-engine``), workers do, through a
    shared database and storage."""
    worker_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Port of ``whisper-api worker`` for ``/health``, ``/ready`` and ``/metrics``; empty: none."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe level that is logged."""
    log_format: Literal["text", "json"] = "text"
    """Lines for people, or a JSON object on each line."""
    log_file: FilePath | None = None
    """File that the log is written to as well."""
    request_logging: RequestLogging = RequestLogging()
    """The access log."""
    tracing: bool = False
    """Whether OpenTelemetry traces requests (extra ``otel``); its ``OTEL_…`` variables hold."""
    tracing_endpoint: str | None = None
    """Address that traces are sent to (OTLP over HTTP), without ``/v1/traces``; null:
    ``OTEL_EXPORTER_OTLP_ENDPOINT``, else http://localhost:4318."""
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = 25
    """How long running requests may take to finish after a stop signal."""
    data_dir: FilePath = Field(
        default_factory=default_data_dir,
        json_schema_extra={"default": "whisper-api in the user's data folder"},
    )
    """Folder for converted models, scratch files and state."""
