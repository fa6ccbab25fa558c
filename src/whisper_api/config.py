"""Every setting, once: default, limits and prose; the environment name and the CLI flag follow.

Order of precedence: CLI flags, environment (``WHISPER_API_<NAME>``), the JSON file, defaults.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from whisper_api.errors import SettingsError, WhisperApiError
from whisper_api.languages import parse_language
from whisper_api.setting_docs import SettingDoc, describe_model, nearest, plain_json

ENV_PREFIX = "WHISPER_API_"


def default_data_dir() -> Path:
    """The folder for models, scratch files and state when no setting names one."""
    if os.name == "nt" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "whisper-api"
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "whisper-api"


def _split(value: Any) -> Any:
    """A list written as one text: JSON, or parts between commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f"not a JSON list ({error})") from error
    return [part.strip() for part in value.split(",") if part.strip()]


def _home(value: Any) -> Any:
    return os.path.expanduser(value) if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_split)]
Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_split)]
FilePath = Annotated[Path, BeforeValidator(_home)]
Folders = Annotated[tuple[FilePath, ...], BeforeValidator(_split)]


class FileValidation(BaseModel):
    """Which uploads are let in."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_file_size_mb: Annotated[float, Field(gt=0, le=1_048_576)] = 2048
    """Largest accepted file in MiB, counted while its bytes arrive."""
    allowed_extensions: Texts = ()
    """File name endings let in (with or without the dot); empty means every supported format."""
    allowed_mime_types: Texts = ()
    """MIME types let in, judged by content; synonyms count; empty means every supported one."""
    allowed_containers: Texts = ()
    """Containers let in, by libav's names; empty means every supported one."""
    allowed_codecs: Texts = ()
    """Audio codecs let in, by libav's names; empty means every supported one."""


class RequestLogging(BaseModel):
    """The access log."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    exclude_endpoints: Texts = ("/health", "/metrics")
    """Paths whose requests are not logged."""


class Settings(BaseSettings):
    """The effective settings of one process; frozen, passed down, never global."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        # Lists in the environment may be written with commas, so ``_split`` decodes them.
        enable_decoding=False,
        use_attribute_docstrings=True,
    )

    # --- server -----------------------------------------------------------------------------
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 serves every network the machine is in."""
    service_port: Annotated[int, Field(ge=0, le=65535)] = 5042
    """TCP port; 0 takes a free one."""
    api_keys: Secrets = ()
    """Keys of which each request must bring one (``Authorization: Bearer``); empty: open."""
    allowed_hosts: Texts = ()
    """Host headers that are answered: names, ``*.example.com``, ``*`` for all; empty: on a
    loopback address this machine's own names, otherwise all."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe level that is logged."""
    log_file: FilePath | None = None
    """File that the log is written to as well."""
    request_logging: RequestLogging = RequestLogging()
    """The access log."""
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = 25
    """How long running requests may take to finish after a stop signal."""
    data_dir: FilePath = Field(
        default_factory=default_data_dir,
        json_schema_extra={"default": "whisper-api in the user's data folder"},
    )
    """Folder for converted models, scratch files and state."""

    # --- model ------------------------------------------------------------------------------
    model_path: str = "bundled"
    """``bundled``, a model name such as ``small``, a hub name, or a folder."""
    engine: str = "auto"
    """``auto``, an engine's name, or ``module:Class``."""
    device: Annotated[
        str,
        Field(
            pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
            json_schema_extra={"limits": "auto, cpu, mps, cuda or cuda:N"},
        ),
    ] = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    device_id: Annotated[int, Field(ge=0, le=63)] | None = None
    """Which accelerator, where there are several; none takes the emptiest."""
    compute_type: str = "auto"
    """Number format of the weights in use: ``auto``, ``int8``, ``float16``, ``float32`` or more."""
    offline: bool = False
    """Never ask the model hub for anything."""
    cpu_threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """Threads of each CPU replica; 0 chooses."""
    replicas: Annotated[int, Field(ge=0, le=64)] = 0
    """Batches decoded at the same time; 0 chooses."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 8
    """Most windows in one batch."""

    # --- decoding ---------------------------------------------------------------------------
    language: Annotated[
        str, Field(json_schema_extra={"limits": "auto, an ISO code or an English name"})
    ] = "auto"
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
    allowed_directories: Folders = ()
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
    url_allowed_hosts: Texts = ()
    """Host names or networks (``10.0.0.0/8``) that URLs may reach although they are private."""

    # --- speech detection ---------------------------------------------------------------------
    vad: bool = True
    """Find speech first and decode only that."""
    vad_threshold: Annotated[float, Field(ge=0.05, le=0.95)] = 0.5
    """Speech probability from which a stretch counts as speech."""
    vad_min_speech_ms: Annotated[int, Field(ge=0, le=10_000)] = 64
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

    _notices: tuple[str, ...] = PrivateAttr(())

    @property
    def notices(self) -> tuple[str, ...]:
        """What whoever starts the server must be told about these settings."""
        return self._notices

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        names = {"WARN": "WARNING", "CRITICAL": "ERROR", "FATAL": "ERROR"}
        return names.get(value.upper(), value.upper()) if isinstance(value, str) else value

    @field_validator("language")
    @classmethod
    def _language_code(cls, value: str) -> str:
        try:
            return parse_language(value) or "auto"
        except WhisperApiError as error:
            raise ValueError(error.message) from error

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


SECTIONS = {
    "host": "Server",
    "model_path": "Model",
    "language": "Decoding",
    "audio_rate": "Preprocessing",
    "file_validation": "Inputs and their limits",
    "vad": "Speech detection",
    "max_queued_seconds": "Queue",
    "enable_history": "History and old keys",
}
"""The setting that opens each section -> the section's title."""


def describe() -> list[SettingDoc]:
    """Every setting with its names, default, limits and prose; nested ones have a dotted name."""
    return describe_model(Settings, ENV_PREFIX, SECTIONS)


def load_settings(path: Path | None = None, **overrides: Any) -> Settings:
    """Settings from an optional JSON file, the environment and ``overrides`` (strongest).

    Relative paths in the file start at the file's folder; others at the working folder.
    ``overrides`` name top-level settings; nested objects are merged key by key.

    Raises:
        SettingsError: a key or value is wrong; one line for each with its name, its value
            (unless secret) and the allowed range.
    """
    docs = describe()
    in_file = _read(path, docs) if path is not None else {}
    in_environment = EnvSettingsSource(Settings)()
    if strange := list(_unknown_keys(overrides, docs)):
        raise SettingsError("\n".join(strange))
    merged = _merge(_merge(in_file, in_environment), overrides)
    notices = list(_unknown_variables(docs))
    if {"service_port", "model_path"} & in_file.keys() and "host" not in merged:
        merged["host"] = "0.0.0.0"
        notices.append(OLD_HOST.format(file=path))
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        where = f"{path}: " if path is not None else ""
        by_name = {doc.name: doc for doc in docs}
        lines = dict.fromkeys(_complaint(item, by_name) for item in error.errors())
        raise SettingsError("\n".join(where + line for line in lines)) from None
    if settings.enable_history:
        notices.append("enable_history is accepted, but this version stores no transcripts yet.")
    settings._notices = tuple(notices)
    return settings


OLD_HOST = (
    "{file} names no host, so this server listens on 0.0.0.0: EVERYONE on every network of this "
    'machine can use it. Put "host": "127.0.0.1" into the file to serve this machine only, or '
    '"host": "0.0.0.0" to keep it so without this warning.'
)


def _read(path: Path, docs: list[SettingDoc]) -> dict[str, Any]:
    """The file's object with its keys checked and its relative paths made absolute."""
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # also UnicodeDecodeError
        raise SettingsError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: must hold one JSON object with the settings in it")
    if strange := list(_unknown_keys(content, docs)):
        raise SettingsError("\n".join(f"{path}: {line}" for line in strange))
    folder = path.resolve().parent
    for key in ("log_file", "data_dir"):
        if isinstance(content.get(key), str):
            content[key] = str(folder / _home(content[key]))
    if isinstance(allowed := content.get("allowed_directories"), list):
        content["allowed_directories"] = [str(folder / _home(str(item))) for item in allowed]
    model = content.get("model_path")
    if isinstance(model, str) and (folder / _home(model)).is_dir():
        content["model_path"] = str(folder / _home(model))
    return content


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _unknown_keys(content: dict[str, Any], docs: list[SettingDoc]) -> Iterable[str]:
    """One line for each key that no setting has, with the nearest one that exists."""
    known = {doc.path[0] for doc in docs}
    for key, value in content.items():
        nested = {doc.path[1] for doc in docs if doc.path[0] == key and len(doc.path) > 1}
        if key not in known:
            yield f"unknown setting {key!r}{nearest(key, known)}"
        elif nested and isinstance(value, dict):
            for inner in value.keys() - nested:
                yield f"unknown setting '{key}.{inner}'{nearest(inner, nested)}"


def _unknown_variables(docs: list[SettingDoc]) -> Iterable[str]:
    """One line for each variable of ours that names no setting; others' tools may set such."""
    known = {doc.env for doc in docs} | {ENV_PREFIX + doc.path[0].upper() for doc in docs}
    known |= {ENV_PREFIX + name for name in ("CONFIG", "KEY", "URL")}
    for name in os.environ:
        ours = name.upper().startswith(ENV_PREFIX) and not name.upper().startswith(
            ENV_PREFIX + "TEST_"
        )
        if ours and name.upper() not in known:
            yield f"environment variable {name} names no setting{nearest(name.upper(), known)}"


def _complaint(item: ErrorDetails, docs: dict[str, SettingDoc]) -> str:
    """One line about one wrong value: its name, the value unless secret, what is allowed."""
    names = [str(part) for part in item["loc"]]
    doc = next((docs[name] for n in (2, 1) if (name := ".".join(names[:n])) in docs), None)
    if doc is None:
        return f"{'.'.join(names)}: must be a JSON object"
    shown = "the value (hidden)" if doc.secret else plain_json(item["input"])
    own = str(item["ctx"]["error"]) if item["type"] == "value_error" else ""
    return f"{doc.name}: {shown} is not allowed; {own or 'allowed: ' + doc.limits}"
