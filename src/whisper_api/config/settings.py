"""All settings of one process: the sections of this package put together."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from pydantic import PrivateAttr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from whisper_api.config.access import AccessSettings
from whisper_api.config.answers import AnswerSettings
from whisper_api.config.audio import InputSettings, PreprocessingSettings, SpeechSettings
from whisper_api.config.decoding import DecodingSettings, ModelSettings
from whisper_api.config.queue import QueueSettings
from whisper_api.config.records import RecordSettings
from whisper_api.config.server import ServerSettings
from whisper_api.config.storage import StorageSettings
from whisper_api.config.tasks import TaskSettings
from whisper_api.errors import WhisperApiError
from whisper_api.languages import parse_language
from whisper_api.setting_docs import SettingDoc, describe_model

ENV_PREFIX = "WHISPER_API_"


# Fields of the last base come first: read the list from below.
class Settings(
    StorageSettings,
    RecordSettings,
    TaskSettings,
    AnswerSettings,
    QueueSettings,
    SpeechSettings,
    InputSettings,
    PreprocessingSettings,
    DecodingSettings,
    ModelSettings,
    AccessSettings,
    ServerSettings,
    BaseSettings,
):
    """The effective settings of one process; frozen, passed down, never global."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        # Lists in the environment may be written with commas, so ``split`` decodes them.
        enable_decoding=False,
        use_attribute_docstrings=True,
    )

    _notices: tuple[str, ...] = PrivateAttr(())

    @property
    def notices(self) -> tuple[str, ...]:
        """What whoever starts the server must be told about these settings."""
        return self._notices

    def noting(self, notices: Iterable[str]) -> Self:
        """These settings with what must be told about them."""
        self._notices = tuple(notices)
        return self

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
    def secrets(self) -> tuple[str, ...]:
        """Every secret in the settings, for whoever must hide them."""
        given = [*self.api_keys, *(key.secret for key in self.keys if key.secret)]
        if self.ssl_keyfile_password:
            given.append(self.ssl_keyfile_password)
        if "@" in self.rate_limit_storage.get_secret_value():
            given.append(self.rate_limit_storage)
        return tuple(secret.get_secret_value() for secret in given)

    @property
    def keys_path(self) -> Path:
        """The file with keys that ``whisper-api keys`` writes."""
        return self.keys_file or self.data_dir / "keys.json"

    @property
    def models_dir(self) -> Path:
        """Where downloaded and converted models live."""
        return self.data_dir / "models"

    @property
    def audio_dir(self) -> Path:
        """Where kept audio lives unless ``storage_url`` says otherwise."""
        return self.data_dir / "audio"

    @property
    def preprocess(self) -> bool:
        """Whether the old chain is on: one of its three settings was named."""
        return any(
            value is not None for value in (self.audio_rate, self.norm_level, self.compand_params)
        )


SECTIONS = {
    "host": "Server",
    "api_keys": "Access",
    "model_path": "Model",
    "language": "Decoding",
    "audio_rate": "Preprocessing",
    "file_validation": "Inputs and their limits",
    "vad": "Speech detection",
    "max_queued_seconds": "Queue",
    "task_concurrency": "Tasks, uploads in parts, webhooks",
    "json_keep_alive_s": "Slow answers, retries, repeated requests",
    "enable_history": "History and old keys",
    "database_url": "Database and stored audio",
}
"""The setting that opens each section -> the section's title."""


def describe() -> list[SettingDoc]:
    """Every setting with its names, default, limits and prose; nested ones have a dotted name."""
    return describe_model(Settings, ENV_PREFIX, SECTIONS)
