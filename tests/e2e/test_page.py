"""The page in a real browser: it opens, transcribes, speaks two languages, and breaks no rule."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import MakeWav
from tests.e2e.conftest import Server, StartServer

pytestmark = pytest.mark.slow
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = os.environ.get("WHISPER_API_TEST_BROWSER") or next(
        (path for name in BROWSERS if (path := shutil.which(name))), None
    )
    if found is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=list(FLAGS))
        yield browser
        browser.close()


class Page:
    """A page whose complaints are kept."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.complaints: list[str] = []
        self.tab = browser.new_context(**options).new_page()
        self.tab.on("console", self._note)
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.goto(url)

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def transcribe(self, path: Path) -> str:
        self.tab.set_input_files("#file", str(path))
        self.tab.click("#go")
        self.tab.wait_for_selector("#copy:visible", timeout=30_000)
        return str(self.tab.inner_text("#text"))


@pytest.fixture(scope="module")
def recording(make_wav: MakeWav, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "meeting.wav"
    path.write_bytes(make_wav({1.0: 42, 40.0: 43}, 60))
    return path


@pytest.mark.parametrize(
    ("locale", "width", "word"), [("en-US", 1100, "Transcribe"), ("ru-RU", 390, "Расшифровать")]
)
def test_a_person_gets_text(
    browser: Any, server: Server, recording: Path, locale: str, width: int, word: str
) -> None:
    page = Page(browser, server.root, locale=locale, viewport={"width": width, "height": 800})
    page.tab.wait_for_function("document.getElementById('model').textContent.includes('cpu')")
    assert page.tab.inner_text("#go") == word
    assert page.transcribe(recording) == "marker-0042 marker-0043"
    assert page.tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.tab.select_option("#format", "srt")
    assert page.transcribe(recording).startswith("1\n00:00:01,000 --> 00:00:01,250\nmarker-0042")
    with page.tab.expect_download() as download:
        page.tab.click("#save")
    assert download.value.suggested_filename == "meeting.srt"
    page.tab.select_option("#format", "verbose_json")
    assert '"duration": 60' in page.transcribe(recording)
    assert page.complaints == []


def test_errors_are_told(browser: Any, server: Server, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"nothing")
    page = Page(browser, server.root, locale="en-US")
    page.tab.set_input_files("#file", str(broken))
    page.tab.click("#go")
    page.tab.wait_for_selector("#error:visible")
    assert "decode" in page.tab.inner_text("#error")
    assert page.tab.is_enabled("#go")


def test_keys_and_language_switch(browser: Any, start_server: StartServer, recording: Path) -> None:
    server = start_server(api_keys=["sk-page"])
    page = Page(browser, server.root, locale="en-US")
    page.tab.wait_for_selector("#key:visible")
    page.tab.fill("#key", "sk-page")
    page.tab.click("#tongue")
    assert page.tab.inner_text("#go") == "Расшифровать"
    assert page.transcribe(recording) == "marker-0042 marker-0043"
    assert page.complaints == []


def test_sample(browser: Any, start_server: StartServer) -> None:
    server = start_server(engine="auto", model_path="bundled", vad=True)
    if not server.get("/v1/capabilities").json()["features"]["sample"]:
        pytest.skip("this build has no sample")
    page = Page(browser, server.root, locale="en-US")
    page.tab.wait_for_selector("#note:visible")
    page.tab.click("#sample")
    page.tab.wait_for_selector("#copy:visible", timeout=60_000)
    assert page.tab.inner_text("#text").strip()
    assert page.complaints == []


def test_docs_open(browser: Any, server: Server) -> None:
    page = Page(browser, f"{server.root}/docs")
    page.tab.wait_for_selector(".opblock-summary-path")
    assert "/v1/audio/transcriptions" in page.tab.inner_text("#docs")
    assert page.complaints == []
