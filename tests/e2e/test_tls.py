"""``whisper-api serve`` with a certificate of its own: https, renewal, clear errors."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from whisper_api.cli.tls import Certificate, certificate_of
from whisper_api.config import Settings
from whisper_api.errors import SettingsError

AUTHORITY = trustme.CA()


def issue(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """A certificate and its key, as files."""
    issued = AUTHORITY.issue_cert(name, "127.0.0.1")
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return certificate, key


@pytest.fixture
def trusting() -> ssl.SSLContext:
    """A client's context that trusts the authority of these tests only."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of ``whisper-api serve`` with a certificate."""
    certificate, key = issue(tmp_path)
    command = [sys.executable, "-m", "whisper_api", "serve", "--port", "0", "--engine", "fake"]
    command += ["--data-dir", str(tmp_path / "data"), "--no-vad", "--api-keys", "sk-right"]
    command += ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)]
    for name in [name for name in os.environ if name.startswith("WHISPER_API_")]:
        monkeypatch.delenv(name)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        try:
            yield next(word for word in process.stdout.readline().split() if "://" in word)
        finally:
            process.terminate()
            process.wait(30)


@pytest.mark.slow
def test_a_server_with_a_certificate_speaks_https(serving: str, trusting: ssl.SSLContext) -> None:
    assert serving.startswith("https://localhost:")
    assert httpx.get(f"{serving}/health", verify=trusting).status_code == 200
    key = {"authorization": "Bearer sk-right"}
    lent = httpx.post(f"{serving}/v1/session", headers=key, verify=trusting)
    assert "; Secure" in lent.headers["set-cookie"]
    with pytest.raises(httpx.ConnectError):  # whoever does not trust it is not let down silently
        httpx.get(f"{serving}/health")
    with pytest.raises(httpx.HTTPError):
        httpx.get(serving.replace("https", "http") + "/health")


def presented(certificate: Certificate) -> bytes:
    """The certificate that a new connection is shown, over a pair of memory buffers."""
    trusting = ssl.create_default_context()
    AUTHORITY.configure_trust(trusting)
    trusting.check_hostname = False
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server)
    server = certificate.context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(6):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    shown = client.getpeercert(binary_form=True)
    assert shown is not None
    return shown


async def test_a_renewed_certificate_is_taken_up_and_a_bad_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, key = issue(tmp_path)
    certificate = Certificate(Settings(ssl_certfile=path, ssl_keyfile=key))
    first = presented(certificate)
    stamps, errors = certificate._stamps, [OSError("gone between two looks")]

    def unsteady() -> list[tuple[int, int, int]]:
        if errors:
            raise errors.pop()
        return stamps()

    monkeypatch.setattr(certificate, "_stamps", unsteady)
    looking = asyncio.create_task(certificate.renew(0.01))
    try:
        path.write_bytes(b"half a fi")
        await asyncio.sleep(0.1)
        assert presented(certificate) == first
        new, new_key = issue(tmp_path, "other")
        shutil.copy(new_key, key)
        shutil.copy(new, path)
        for _ in range(3000):
            if presented(certificate) != first:
                break
            await asyncio.sleep(0.01)
        assert presented(certificate) != first
    finally:
        looking.cancel()


def locked(folder: Path) -> tuple[Path, Path]:
    """A certificate whose key has the password ``open sesame``."""
    certificate, key = issue(folder)
    loaded = load_pem_private_key(key.read_bytes(), None)
    way = BestAvailableEncryption(b"open sesame")
    key.write_bytes(loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, way))
    return certificate, key


def test_a_key_may_have_a_password(tmp_path: Path) -> None:
    certificate, key = locked(tmp_path)
    settings = Settings(ssl_certfile=certificate, ssl_keyfile=key)
    assert Certificate(settings.model_copy(update={"ssl_keyfile_password": secret("open sesame")}))
    for wrong in (None, secret("shut sesame")):
        with pytest.raises(SettingsError, match="ssl_keyfile_password"):
            Certificate(settings.model_copy(update={"ssl_keyfile_password": wrong}))


def secret(text: str) -> object:
    return Settings(ssl_keyfile_password=text).ssl_keyfile_password  # type: ignore[arg-type]


def test_one_file_may_hold_both(tmp_path: Path) -> None:
    certificate, key = issue(tmp_path)
    certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    assert certificate_of(Settings(ssl_certfile=certificate)) is not None


def test_what_is_wrong_with_the_files_is_said(tmp_path: Path) -> None:
    certificate, key = issue(tmp_path)
    _, other = issue(tmp_path, "other")
    junk, gone = tmp_path / "junk", tmp_path / "gone"
    junk.write_text("hello")
    for settings, words in (
        (Settings(ssl_certfile=gone, ssl_keyfile=key), f"ssl_certfile: {gone} cannot be read"),
        (Settings(ssl_certfile=certificate, ssl_keyfile=gone), "ssl_keyfile: .*gone cannot be"),
        (Settings(ssl_certfile=certificate, ssl_keyfile=other), "the key is not this certificate"),
        (Settings(ssl_certfile=junk, ssl_keyfile=key), "not a certificate and its key in PEM"),
        (Settings(ssl_certfile=certificate), "not a certificate and its key in PEM"),
        (Settings(ssl_keyfile=key), "a key needs its certificate"),
    ):
        with pytest.raises(SettingsError, match=words):
            certificate_of(settings)


@pytest.mark.slow
def test_the_command_says_it_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "whisper_api", "serve", "--port", "0", "--engine", "fake"]
    command += ["--data-dir", str(tmp_path), "--ssl-certfile", "gone.pem"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
    )
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert lines == ["error: ssl_certfile: gone.pem cannot be read (No such file or directory)"]
