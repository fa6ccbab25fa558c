"""Who may use the server, under which names and how much."""

from __future__ import annotations

import ipaddress
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from whisper_api.config.kinds import FilePath, Secrets, Section, Texts, split

RequestsPerMinute = Annotated[int, Field(ge=1, le=100_000)]
AudioMinutes = Annotated[float, Field(gt=0, le=10_000_000)]


def _moment(value: Any) -> Any:
    """A date means the end of that day; times without a zone are UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value) if len(value) > 10 else date.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time.max)
    if isinstance(value, datetime) and value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return value


Moment = Annotated[datetime, BeforeValidator(_moment)]


class KeyEntry(Section):
    """One API key with a name; of the key itself only its hash need be kept."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
    """Who it is for; what the key leaves on the server belongs to this name."""
    hash: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    """``sha256:`` and the hex digest of the key, as ``whisper-api keys create`` prints it."""
    secret: SecretStr | None = None
    """The key itself, instead of ``hash``."""
    role: Literal["user", "admin"] = "user"
    """An admin sees what belongs to others and manages models."""
    requests_per_minute: RequestsPerMinute | None = None
    """Instead of the general limit."""
    audio_minutes_per_day: AudioMinutes | None = None
    """Instead of the general limit."""
    callback_url: str | None = None
    """Webhook told of this key's tasks that name none themselves."""
    expires: Moment | None = None
    """Date (its end, UTC) or time after which the key is refused."""

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        given = self.secret.get_secret_value().strip() if self.secret else self.hash
        if not given or (self.hash and self.secret):
            raise ValueError(f"key {self.name!r} needs either hash or secret")
        return self


def _distinct(keys: tuple[KeyEntry, ...]) -> tuple[KeyEntry, ...]:
    names = [key.name for key in keys]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two keys have the name {min(twice)!r}")
    return keys


def _networks(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(ipaddress.ip_network(value, strict=False)) for value in values)


def _storage(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text != "memory" and not text.startswith(("redis://", "rediss://", "redis+sentinel://")):
        raise ValueError("allowed: memory, or an address that starts with redis:// or rediss://")
    return value


Keys = Annotated[tuple[KeyEntry, ...], BeforeValidator(split), AfterValidator(_distinct)]
Networks = Annotated[Texts, AfterValidator(_networks)]


class AccessSettings(Section):
    """Keys and names."""

    api_keys: Secrets = ()
    """Keys of which each request must bring one (``Authorization: Bearer``). A key that is the
    only one is an admin's; of several, each is a user's. Without any key the server is open."""
    keys: Annotated[
        Keys,
        Field(
            json_schema_extra={"limits": "a list of objects, see docs/security.md", "secret": True}
        ),
    ] = ()
    """Keys with names, roles, limits and expiry."""
    keys_file: FilePath | None = None
    """File of more such keys, which ``whisper-api keys`` writes; changes are noticed while the
    server runs. Null: ``keys.json`` in ``data_dir``."""
    keys_ttl_s: Annotated[float, Field(ge=0, le=3600)] = 5
    """Seconds for which keys count as known before ``keys_file`` is looked at again."""
    requests_per_minute: RequestsPerMinute | None = None
    """Transcriptions that each key (where there are none, each address) may start in a minute."""
    audio_minutes_per_day: AudioMinutes | None = None
    """Minutes of audio that each key (or address) may have transcribed in a day."""
    rate_limit_storage: Annotated[
        SecretStr,
        AfterValidator(_storage),
        Field(json_schema_extra={"limits": "memory or redis://…", "default": '"memory"'}),
    ] = SecretStr("memory")
    """Where the counts of these limits are kept: ``memory``, or ``redis://host:6379/0`` for
    several servers together."""
    trusted_proxies: Annotated[
        Networks, Field(json_schema_extra={"limits": "a list of addresses and networks"})
    ] = ()
    """Addresses or networks of proxies whose ``X-Forwarded-For`` is believed."""
    allowed_hosts: Texts = ()
    """Host headers that are answered: names, ``*.example.com``, ``*`` for all; empty: on a
    loopback address this machine's own names, otherwise all."""
