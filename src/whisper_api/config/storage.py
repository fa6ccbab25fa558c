"""Where records and stored audio live."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator

from whisper_api.config.kinds import Section

DATABASE_SCHEMES = ("postgres://", "postgresql://", "postgresql+psycopg://", "sqlite:///")


class StorageSettings(Section):
    """The database and the store of audio files; both may lie on other machines."""

    database_url: SecretStr = Field(
        default=SecretStr(""),
        json_schema_extra={
            "limits": "postgresql://USER:PASSWORD@HOST/NAME or sqlite:////PATH",
        },
    )
    """Database of history and tasks; empty: SQLite in ``data_dir``. PostgreSQL (extra
    ``postgres``) where several machines share it."""
    storage_url: SecretStr = Field(
        default=SecretStr(""),
        json_schema_extra={
            "limits": "a folder, or an address such as s3://BUCKET/PREFIX",
        },
    )
    """Where kept audio lies; empty: a folder in ``data_dir``. ``s3://`` needs the extra ``s3`` and
    takes its keys from the usual ``AWS_…`` variables."""

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if url and not url.startswith(DATABASE_SCHEMES):
            raise ValueError("it must start with postgresql:// or sqlite:///")
        return value
