"""Real server processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import MakeWav
from tests.e2e.browsing import FLAGS, HUB_MODEL, Page, Visit, find_browser
from tests.hub import Hub, serve_hub
from tests.waiting import PATIENCE_S

from whisper_api.api.system import SAMPLE

RUNNER = Path(__file__).parent / "run_server.py"
DEFAULTS = {"engine": "fake", "model_path": "fake", "vad": False, "decode_workers": 1}


@dataclass(frozen=True)
class Server:
    """A server process on a free port of this machine."""

    port: int
    process: subprocess.Popen[str]
    data_dir: Path
    key: str

    @property
    def root(self) -> str:
        """``http://127.0.0.1:port``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What OpenAI's clients get."""
        return f"{self.root}/v1"

    def get(self, path: str) -> httpx.Response:
        """A GET with the key."""
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.get(self.root + path, timeout=PATIENCE_S, headers=headers)

    def leftovers(self) -> list[str]:
        """Request folders still in scratch."""
        return [str(path) for path in (self.data_dir / "scratch").glob("*/request-*")]

    def wait_until_idle(self, seconds: float) -> None:
        """Until no request is in the queue and no scratch folder is left.

        Raises:
            AssertionError: it takes longer than ``seconds``.
        """
        end = time.monotonic() + seconds
        while self.get("/v1/queue").json()["requests"] or self.leftovers():
            assert time.monotonic() < end, (self.get("/v1/queue").json(), self.leftovers())
            time.sleep(0.05)


StartServer = Callable[..., Server]


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """``start_server(max_concurrent_requests=1)``: a process with these settings, ended later."""
    started: list[subprocess.Popen[str]] = []

    def start(*, environment: dict[str, str] | None = None, **settings: Any) -> Server:
        data_dir = tmp_path_factory.mktemp("server")
        content = {**DEFAULTS, "data_dir": str(data_dir), **settings}
        command = [sys.executable, str(RUNNER), json.dumps(content)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
        )
        started.append(process)
        assert process.stdout is not None
        port = int(process.stdout.readline())
        keys = settings.get("api_keys") or ["none-needed"]
        server = Server(port, process, data_dir, str(keys[0]))
        _wait_for_health(server)
        return server

    yield start
    for process in started:
        process.terminate()
    for process in started:
        process.wait(PATIENCE_S)


def _wait_for_health(server: Server) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        assert server.process.poll() is None, "the server process ended"
        try:
            if server.get("/health").status_code == 200:
                return
        except httpx.HTTPError:
            assert time.monotonic() < end, "the server does not answer"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def server(start_server: StartServer) -> Server:
    """The shared server: fake engine, no keys."""
    return start_server()


@pytest.fixture(scope="session")
def guarded(start_server: StartServer) -> Server:
    """A server with a key."""
    return start_server(api_keys=("sk-right",))


@pytest.fixture(scope="session")
def wav(make_wav: MakeWav) -> bytes:
    """Two markers of the fake engine's."""
    return make_wav({0.5: 42, 2.0: 43}, 3.4)


@pytest.fixture(scope="session")
def speech(wav: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file."""
    path = tmp_path_factory.mktemp("audio") / "s.wav"
    path.write_bytes(wav)
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One browser for all tests; its microphone hears the sample."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = find_browser()
    if found is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def hub() -> Iterator[Hub]:
    """A stand-in for the hub, with the bundled model under another name."""
    with serve_hub() as hub:
        hub.repositories[HUB_MODEL] = SAMPLE.parent / "bundled"
        yield hub


@pytest.fixture(scope="session")
def studio(start_server: StartServer, hub: Hub) -> Server:
    """A server with the bundled model that may fetch from itself."""
    return start_server(
        environment={"HF_ENDPOINT": hub.url},
        engine="auto",
        model_path="bundled",
        vad=True,
        url_allowed_hosts=["127.0.0.1"],
    )


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """``visit(server, locale="ru-RU")``: a tab; at the end none may have complained."""
    pages: list[Page] = []

    def make(server: Server, **options: Any) -> Page:
        pages.append(Page(browser, server, **options))
        return pages[-1]

    yield make
    for page in pages:
        page.context.close()
    assert [complaint for page in pages for complaint in page.complaints] == []
