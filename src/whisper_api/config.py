"""Every setting, once: default, limits and prose; the environment name and the CLI flag follow.

Order of precedence: CLI flags, environment (``WHISPER_API_<NAME>``), the JSON file, defaults.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_data_dir() -> Path:
    """The folder for models, scratch files and state when no setting names one."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "whisper-api"


class FileValidation(BaseModel):
    """Which uploads are let in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_file_size_mb: Annotated[float, Field(gt=0, le=1_048_576)] = 2048
    """Largest accepted file in MiB, counted while its bytes arrive."""
    allowed_extensions: tuple[str, ...] = ()
    """File name endings let in (with or without the dot); empty means every supported format."""
    allowed_mime_types: tuple[str, ...] = ()
    """MIME types let in, judged by content; synonyms count; empty means every supported one."""
    allowed_containers: tuple[str, ...] = ()
    """Containers let in, by libav's names; empty means every supported one."""
    allowed_codecs: tuple[str, ...] = ()
    """Audio codecs let in, by libav's names; empty means every supported one."""


class RequestLogging(BaseModel):
    """The access log."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exclude_endpoints: tuple[str, ...] = ("/health", "/metrics")
    """Paths whose requests are not logged."""


class Settings(BaseSettings):
    """The effective settings of one process; frozen, passed down, never global."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="WHISPER_API_",
        env_nested_delimiter="__",
        use_attribute_docstrings=True,
    )

    # --- server -----------------------------------------------------------------------------
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 serves every network the machine is in."""
    service_port: Annotated[int, Field(ge=0, le=65535)] = 5042
    """TCP port; 0 takes a free one."""
    api_keys: tuple[SecretStr, ...] = ()
    """Keys of which each request must bring one (``Authorization: Bearer``); empty: open."""
    allowed_hosts: tuple[str, ...] = ("*",)
    """Host headers that are answered, such as ``asr.example.com``; ``*`` answers all."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe level that is logged."""
    log_file: Path | None = None
    """File that the log is written to as well."""
    request_logging: RequestLogging = RequestLogging()
    """The access log."""
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = 25
    """How long running requests may take to finish after a stop signal."""
    data_dir: Path = Field(default_factory=default_data_dir)
    """Folder for converted models, scratch files and state."""

    # --- model ------------------------------------------------------------------------------
    model_path: str = "bundled"
    """``bundled``, a model name such as ``small``, a hub name, or a folder."""
    engine: str = "auto"
    """``auto``, an engine's name, or ``module:Class``."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    device_id: Annotated[int, Field(ge=0, le=63)] | None = None
    """Which accelerator, where there are several; none takes the emptiest."""
    compute_type: str = "auto"
    """Number format of the weights in use: ``auto``, ``int8``, ``float16``, ``float32``…"""
    offline: bool = False
    """Never ask the model hub for anything."""
    cpu_threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """Threads of each CPU replica; 0 chooses."""
    replicas: Annotated[int, Field(ge=0, le=64)] = 0
    """Batches decoded at the same time; 0 chooses."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 8
    """Most windows in one batch."""

    # --- decoding ---------------------------------------------------------------------------
    language: str = "auto"
    """Language of the speech when a request names none: a code, an English name, or ``auto``."""
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Sampling temperature when a request names none; 0 (and up to 0.01) is the fallback ladder."""
    beam_size: Annotated[int, Field(ge=1, le=20)] = 5
    """Width of the beam search."""
    max_new_tokens: Annotated[int, Field(ge=8, le=448)] = 448
    """Most tokens written for one window."""
    chunk_length_s: Annotated[float, Field(ge=1, le=30)] = 30
    """Longest window in seconds."""
    return_timestamps: bool = False
    """Whether ``json`` answers carry segments when a request does not say."""

    # --- preprocessing (the old sox chain; off unless one of the three is named) --------------
    audio_rate: Annotated[int, Field(ge=8000, le=192_000)] | None = None
    """Samples per second of the old preprocessing chain."""
    norm_level: Annotated[float, Field(ge=-60, le=0)] | None = None
    """Peak level in dB that the old chain normalises to."""
    compand_params: str | None = None
    """Compression curve of the old chain, in sox's syntax."""

    # --- inputs and their limits --------------------------------------------------------------
    file_validation: FileValidation = FileValidation()
    """Which uploads are let in."""
    allowed_directories: tuple[Path, ...] = ()
    """Folders whose files ``/local/transcriptions`` may read; empty turns it off."""
    max_duration_s: Annotated[float, Field(ge=1, le=604_800)] = 86_400
    """Longest accepted audio in seconds, counted while decoding."""
    decode_workers: Annotated[int, Field(ge=1, le=64)] = 2
    """Processes that decode audio."""
    decode_timeout_s: Annotated[float, Field(ge=1, le=86_400)] = 600
    """Longest time that decoding one file may take."""
    decode_memory_mb: Annotated[int, Field(ge=256, le=65_536)] = 1024
    """Memory limit of each decode process (where the system has such limits)."""
    decode_recycle: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    """Files after which a decode process is replaced by a fresh one."""
    url_timeout_s: Annotated[float, Field(ge=1, le=86_400)] = 300
    """Longest time that fetching one URL may take."""
    url_max_redirects: Annotated[int, Field(ge=0, le=20)] = 5
    """Most redirects followed for one URL."""
    url_allowed_hosts: tuple[str, ...] = ()
    """Host names or networks (``10.0.0.0/8``) that URLs may reach although they are private."""

    # --- speech detection ---------------------------------------------------------------------
    vad: bool = True
    """Find speech first and decode only that."""
    vad_threshold: Annotated[float, Field(ge=0.05, le=0.95)] = 0.5
    """Speech probability from which a stretch counts as speech."""
    vad_min_speech_ms: Annotated[int, Field(ge=0, le=10_000)] = 100
    """Shortest stretch of speech that is kept."""
    vad_min_silence_ms: Annotated[int, Field(ge=32, le=10_000)] = 500
    """Silence that ends a stretch of speech."""
    vad_speech_pad_ms: Annotated[int, Field(ge=0, le=5_000)] = 300
    """Audio kept on both sides of each stretch."""

    # --- queue --------------------------------------------------------------------------------
    max_queued_seconds: Annotated[float, Field(ge=30, le=10_000_000)] = 36_000
    """Seconds of audio that may wait; beyond it requests get 429 with ``Retry-After``."""
    max_concurrent_requests: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Transcription requests held at the same time; beyond it 429."""
    max_batch_seconds: Annotated[float, Field(ge=0.1, le=600)] = 8
    """Longest measured time a batch may run while another lane waits."""
    request_timeout_s: Annotated[float, Field(ge=1, le=604_800)] = 86_400
    """Longest time one request may take altogether."""

    # --- history (keys of old installations) ----------------------------------------------------
    enable_history: bool = False
    """Keep transcripts."""
    max_history_days: Annotated[int, Field(ge=0, le=36_500)] = 30
    """Days that transcripts are kept; 0 keeps them for good."""
    version: str | None = None
    """Version label of an old config.json; shown, not used."""

    @property
    def max_file_bytes(self) -> int:
        """The size limit in bytes."""
        return int(self.file_validation.max_file_size_mb * 1024 * 1024)

    @property
    def scratch_dir(self) -> Path:
        """Where every temporary file lives."""
        return self.data_dir / "scratch"

    @property
    def models_dir(self) -> Path:
        """Where downloaded and converted models live."""
        return self.data_dir / "models"

    @property
    def preprocess(self) -> bool:
        """Whether the old chain is on: one of its three settings was named."""
        return any(
            value is not None for value in (self.audio_rate, self.norm_level, self.compand_params)
        )


def load_settings(path: Path | None = None, **overrides: Any) -> Settings:
    """Settings from an optional JSON file, the environment and ``overrides`` (strongest).

    Raises:
        SettingsError: a key or value is wrong; one line with its name and the allowed range.
    """
    raise NotImplementedError
