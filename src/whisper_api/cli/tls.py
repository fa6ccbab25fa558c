"""The server's certificate: read at the start with clear errors, read again when it is renewed."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from whisper_api.config import Settings
from whisper_api.errors import SettingsError

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
"""How often the files are looked at."""


class Certificate:
    """Certificate and key of the settings, in a context that new connections use."""

    def __init__(self, settings: Settings) -> None:
        """Reads the files.

        Raises:
            SettingsError: a file cannot be read, or they do not fit together.
        """
        assert settings.ssl_certfile is not None
        self._path, self._key = settings.ssl_certfile, settings.ssl_keyfile
        self._files = [("ssl_certfile", self._path)]
        if self._key is not None:
            self._files.append(("ssl_keyfile", self._key))
        secret = settings.ssl_keyfile_password
        self._password = secret.get_secret_value() if secret else ""
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._seen = self._stamps()
        self._load(self.context)

    async def renew(self, every: float = LOOK_SECONDS) -> None:
        """Until cancelled: take up files that have changed; where they are bad, keep the old."""
        while True:
            await asyncio.sleep(every)
            try:
                if await asyncio.to_thread(self._refresh):
                    log.info("the certificate was renewed")
            except SettingsError as error:
                log.error("the old certificate stays: %s", error.message)
            except Exception:
                log.exception("the old certificate stays")

    def _refresh(self) -> bool:
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._seen = stamps
        # First into a context that is thrown away: half of a bad pair must not stay in ours.
        self._load(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
        self._load(self.context)
        return True

    def _stamps(self) -> list[tuple[int, int, int]]:
        return [_stamp(name, path) for name, path in self._files]

    def _load(self, context: ssl.SSLContext) -> None:
        names = " and ".join(f"{name} ({path})" for name, path in self._files)
        try:
            # A callable: without one OpenSSL would ask for the password on the terminal.
            context.load_cert_chain(self._path, self._key, password=lambda: self._password)
        except ssl.SSLError as error:
            raise SettingsError(f"{names}: {self._reason(error)}") from error
        except ValueError as error:
            raise SettingsError(f"ssl_keyfile_password: not usable ({error})") from error
        except OSError as error:
            raise SettingsError(f"{names}: cannot be read ({error.strerror})") from error

    def _reason(self, error: ssl.SSLError) -> str:
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key is not this certificate's"
        # OpenSSL's other reasons differ between versions, and "PEM lib" helps nobody.
        if b"ENCRYPTED" in self._files[-1][1].read_bytes():
            return "the key has a password, and ssl_keyfile_password is not it"
        return "not a certificate and its key in PEM"


def certificate_of(settings: Settings) -> Certificate | None:
    """The certificate, where the settings name one.

    Raises:
        SettingsError: as ``Certificate``, or there is a key without a certificate.
    """
    if settings.ssl_certfile is not None:
        return Certificate(settings)
    if settings.ssl_keyfile is not None:
        raise SettingsError("ssl_keyfile: a key needs its certificate, in ssl_certfile")
    return None


@asynccontextmanager
async def renewing(certificate: Certificate | None) -> AsyncIterator[None]:
    """Renewed files are taken up as long as this is open."""
    if certificate is None:
        yield
        return
    looking = asyncio.create_task(certificate.renew())
    try:
        yield
    finally:
        looking.cancel()


def _stamp(name: str, path: Path) -> tuple[int, int, int]:
    try:
        with path.open("rb"):
            found = path.stat()
    except OSError as error:
        raise SettingsError(f"{name}: {path} cannot be read ({error.strerror})") from error
    return found.st_mtime_ns, found.st_size, found.st_ino
