"""The page in a real browser: what its tests share. The fixtures are in conftest."""

from __future__ import annotations

import base64
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from whisper_api.api.system import SAMPLE

if TYPE_CHECKING:
    from tests.e2e.conftest import Server

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SAID = "Four zero four. Two zero one."
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    f"--use-file-for-fake-audio-capture={SAMPLE}",
)
WATCH_POLICY = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error("refused by the content policy:", event.violatedDirective, event.blockedURI));
"""
WAIT_MS = 60_000
HUB_MODEL = "acme/whisper"


def find_browser() -> str | None:
    """A Chromium of this machine."""
    named = os.environ.get("WHISPER_API_TEST_BROWSER")
    return named or next((path for name in BROWSERS if (path := shutil.which(name))), None)


class Page:
    """A tab; whatever it complains about is kept."""

    def __init__(self, browser: Any, server: Server, **options: Any) -> None:
        self.server = server
        self.complaints: list[str] = []
        self.context = browser.new_context(**{"locale": "en-US", **options})
        self.context.set_default_timeout(WAIT_MS)
        self.context.add_init_script(WATCH_POLICY)
        self.tab = self.context.new_page()
        self.tab.on("console", self._note)
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _note(self, message: Any) -> None:
        # While the model is being loaded, /ready is a 503, which browsers log by themselves.
        starting = str(message.location.get("url", "")).endswith("/ready")
        if message.type in ("error", "warning") and not starting:
            self.complaints.append(message.text)

    def open(self, path: str = "/") -> Page:
        """Go there and wait until the page is painted."""
        self.tab.goto(self.server.root + path)
        self.tab.wait_for_selector("body:not(.waiting)")
        self.tab.wait_for_selector("main > .view:not([hidden])")
        return self

    def open_record(self, record: str) -> Page:
        """Open a transcript of the history and wait for its text."""
        self.open(f"/#/t/{record}")
        self.tab.wait_for_selector(".line")
        return self

    def wait_for_transcript(self) -> None:
        """Until the open task is done and its record is shown."""
        self.tab.wait_for_url("**/#/t/*")
        self.tab.wait_for_selector("#title:not([readonly])")
        self.tab.wait_for_selector(".line")

    @property
    def text(self) -> str:
        """The transcript that is shown."""
        return " ".join(self.tab.locator(".line-text").all_inner_texts())

    @property
    def record(self) -> str:
        """Id of the record that is open."""
        return str(self.tab.url).rpartition("/")[2]

    def until(self, expression: str) -> None:
        """Until it is true on the page; Playwright's own waiting would need eval there.

        Raises:
            AssertionError: it takes longer than a minute.
        """
        end = time.monotonic() + WAIT_MS / 1000
        while not self.tab.evaluate(expression):
            assert time.monotonic() < end, expression
            self.tab.wait_for_timeout(30)

    def wait_until_saved(self) -> None:
        """Until the corrections have reached the server."""
        self.tab.wait_for_selector('[data-state="save.saved"]')

    def download(self, action: Callable[[], Any]) -> tuple[str, bytes]:
        """Name and content of what ``action`` saves."""
        with self.tab.expect_download() as download:
            action()
        return download.value.suggested_filename, Path(download.value.path()).read_bytes()

    def give(self, event: str, files: dict[str, bytes]) -> None:
        """Drop or paste files anywhere on the page."""
        self.until("document.body.dataset.listening === 'yes'")
        content = [[name, base64.b64encode(data).decode()] for name, data in files.items()]
        self.tab.evaluate(GIVE, [event, content])


GIVE = """
async ([kind, files]) => {
  const data = new DataTransfer();
  for (const [name, content] of files) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    data.items.add(new File([bytes], name, { type: "audio/wav" }));
  }
  const about = { bubbles: true, cancelable: true };
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { ...about, clipboardData: data })
    : new DragEvent(kind, { ...about, dataTransfer: data });
  document.body.dispatchEvent(event);
}
"""
Visit = Callable[..., Page]


def transcribe(server: Server, name: str = "sample.wav", **change: Any) -> str:
    """A record of the sample in the server's history; ``change`` is written into it at once."""
    headers = {"authorization": f"Bearer {server.key}"}
    with httpx.Client(base_url=server.root, headers=headers, timeout=60) as client:
        form = {"timestamp_granularities[]": ["word", "segment"], "response_format": "verbose_json"}
        files = {"file": (name, SAMPLE.read_bytes())}
        task = client.post("/v1/audio/transcriptions/async", data=form, files=files).json()
        end = time.monotonic() + 60
        while task["status"] != "completed":
            assert task["status"] in ("pending", "running"), task
            assert time.monotonic() < end, task
            time.sleep(0.05)
            task = client.get(f"/v1/tasks/{task['id']}").json()
        record = str(task["history_id"])
        if change:
            answer = client.patch(f"/v1/history/{record}", json=change)
            assert answer.status_code == 200, answer.text[:500]
    return record


def history(server: Server, record: str) -> dict[str, Any]:
    """A record as the server has it."""
    found: dict[str, Any] = server.get(f"/v1/history/{record}").json()
    return found


def lines(*texts: str, doubt: int | None = None) -> list[dict[str, Any]]:
    """Segments of one second, each word with its time; one word (counted) is doubtful."""
    made: list[dict[str, Any]] = []
    count = 0
    for at, text in enumerate(texts):
        spoken = text.split()
        step = 1 / len(spoken)
        words = [
            {
                "word": word,
                "start": at + place * step,
                "end": at + (place + 1) * step,
                "probability": 0.2 if count + place == doubt else 0.99,
            }
            for place, word in enumerate(spoken)
        ]
        count += len(spoken)
        made.append({"start": at, "end": at + 1, "text": text, "words": words})
    return made
