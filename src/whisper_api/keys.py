"""API keys: whom each one stands for, what its owner may do, and until when.

Keys come from the settings ``api_keys`` and ``keys`` and from a file that the command line
writes. Only digests are kept in memory and in the file. A key has 256 random bits, so that a
plain SHA-256 of it cannot be searched through.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from whisper_api.config import KeyEntry, Settings
from whisper_api.errors import AuthenticationFailed, SettingsError
from whisper_api.types import Caller

log = logging.getLogger(__name__)

PREFIX = "sk-"
"""OpenAI's prefix: some clients insist on it."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much one caller may ask for; None: any amount."""

    requests_per_minute: int | None = None
    audio_minutes_per_day: float | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """One key as the server knows it."""

    digest: bytes = field(repr=False)
    caller: Caller
    allowance: Allowance
    expires: datetime | None = None


def new_key() -> str:
    """A fresh key."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(key: str) -> str:
    """What settings and the keys file hold instead of ``key``."""
    return "sha256:" + _digest(key).hex()


class KeyRing:
    """All keys of one process."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Reads the keys file, if there is one.

        Raises:
            SettingsError: the file cannot be used, or names a key twice.
        """
        self.everybody = Allowance(settings.requests_per_minute, settings.audio_minutes_per_day)
        """What each address may ask for where no keys are set."""
        self._settings = settings
        self._clock = clock
        self._now = now
        self._path = settings.keys_path
        self._stamp = _stamp(self._path)
        self._keys = self._collect(read_keys(self._path))
        self._required = bool(self._keys)
        self._failure = ""
        self._fresh_until = clock() + settings.keys_ttl_s
        # Its own: a caller's key must not wait for work on others' audio.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keys")

    @property
    def required(self) -> bool:
        """Whether requests need a key; once true it stays so, whatever happens to the file."""
        return self._required

    async def refresh(self) -> None:
        """Look at the keys file again where the last look is older than ``keys_ttl_s``."""
        now = self._clock()
        if now < self._fresh_until:
            return
        self._fresh_until = now + self._settings.keys_ttl_s
        read = asyncio.get_running_loop().run_in_executor
        stamp = await read(self._thread, _stamp, self._path)
        if stamp == self._stamp:
            return
        try:
            self._keys = self._collect(await read(self._thread, read_keys, self._path))
        except SettingsError as error:
            # The stamp stays: who may read the file can change without it.
            if error.message != self._failure:
                log.error("the keys stay as they were: %s", error.message)
            self._failure = error.message
            return
        self._stamp, self._failure = stamp, ""
        self._required = self._required or bool(self._keys)
        log.info("keys read again: %d", len(self._keys))

    def find(self, given: str) -> Key:
        """The key that ``given`` is.

        Raises:
            AuthenticationFailed: there is none, or it has expired.
        """
        digest = _digest(given)
        # Every key is looked at, so that time says nothing about which one came near.
        matches = [key for key in self._keys if hmac.compare_digest(digest, key.digest)]
        if not matches:
            raise AuthenticationFailed("The API key is wrong.", code="invalid_api_key")
        key = matches[0]
        if key.expires is not None and key.expires <= self._now():
            raise AuthenticationFailed("The API key has expired.", code="invalid_api_key")
        return key

    def _collect(self, in_file: Iterable[KeyEntry]) -> tuple[Key, ...]:
        settings = self._settings
        named = [*settings.keys, *in_file]
        names = [entry.name for entry in named]
        if twice := {name for name in names if names.count(name) > 1}:
            raise SettingsError(
                f"{self._path}: the key {min(twice)!r} stands in the settings as well"
            )
        plain = [_digest(key.get_secret_value().strip()) for key in settings.api_keys]
        only = len(plain) == 1 and not named
        callers = [(digest, Caller(digest.hex()[:16], "key", admin=only)) for digest in plain]
        return (
            *(Key(digest, caller, self.everybody) for digest, caller in callers),
            *(self._key(entry) for entry in named),
        )

    def _key(self, entry: KeyEntry) -> Key:
        if entry.secret is not None:
            digest = _digest(entry.secret.get_secret_value().strip())
        else:
            digest = bytes.fromhex((entry.hash or "").removeprefix("sha256:"))
        requests, minutes = entry.requests_per_minute, entry.audio_minutes_per_day
        return Key(
            digest=digest,
            caller=Caller(entry.name, entry.name, entry.role == "admin", entry.callback_url),
            allowance=Allowance(
                self.everybody.requests_per_minute if requests is None else requests,
                self.everybody.audio_minutes_per_day if minutes is None else minutes,
            ),
            expires=entry.expires,
        )


def read_keys(path: Path) -> list[KeyEntry]:
    """The keys in a keys file; none where there is no file.

    Raises:
        SettingsError: it is not a keys file.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        entries = [KeyEntry.model_validate(item) for item in content["keys"]]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{path}: {where}: {first['msg']}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{path}: not a keys file") from error
    names = [entry.name for entry in entries]
    if twice := {name for name in names if names.count(name) > 1}:
        raise SettingsError(f"{path}: two keys have the name {min(twice)!r}")
    return entries


def write_keys(path: Path, entries: Iterable[KeyEntry]) -> None:
    """Replace a keys file at once, readable by its owner only.

    Raises:
        SettingsError: it cannot be written.
    """
    items = [entry_json(entry) for entry in entries]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".keys-", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(json.dumps({"keys": items}, indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written ({error.strerror})") from error


def entry_json(entry: KeyEntry) -> dict[str, object]:
    """A key as the settings and the keys file hold it: what was set, the secret in clear."""
    content = entry.model_dump(mode="json", exclude_none=True)
    if entry.secret is not None:
        content["secret"] = entry.secret.get_secret_value()
    return content


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
