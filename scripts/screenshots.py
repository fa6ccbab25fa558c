"""Take the pictures of the page for docs/images, from a real server with the bundled model.

Usage: python scripts/screenshots.py [NAME ...]
Needs Chromium; pngquant, where it is there, makes the files small. The bundled model knows numbers
only, so the transcripts that the pictures show are written into the history by this script.
"""

from __future__ import annotations

import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Page, sync_playwright

from whisper_api.api.system import SAMPLE

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
DESKTOP, PHONE = (1280, 800), (390, 800)
ROUNDS = 24
TEXTS = """Good morning, and thank you all for coming so early.
Today we look at the harbour, at the new ferry, and at what the night trains cost.
The ferry carried four hundred and four people on its first day, and two hundred and one came back.
That is more than anybody had hoped for in November.
Let us begin with the timetable, because most of the letters are about it.
The boat at seven is full, the boat at nine is half empty.
Marta suggests a third boat at eight, small and electric.
It would cost about as much as the repairs of the old one.
Who would like to speak first?
I would like to hear what the crew thinks of it.
They have to be on the pier at half past five as it is.
Then let us ask them before we decide anything.""".split("\n")
DOUBTFUL = {"ferry": 0.52, "electric.": 0.24, "pier": 0.41, "Marta": 0.22}
TITLES = ("Harbour meeting", "Interview with the crew", "Voice note, Tuesday", "Night trains")


def spoken() -> bytes:
    """The sample, again and again, with pauses of different lengths."""
    with wave.open(str(SAMPLE)) as file:
        about, frames = file.getparams(), file.readframes(file.getnframes())
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setparams(about)
        for turn in range(ROUNDS):
            out.writeframes(frames + bytes(16_000 * (turn % 3)))
    return buffer.getvalue()


@contextmanager
def server(folder: str) -> Iterator[str]:
    """Address of a server with the bundled model."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "whisper_api", "serve", "--port", str(port)]
    command += ["--data-dir", folder, "--log-level", "warning"]
    process = subprocess.Popen(command, cwd=folder)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def wait(ask: Callable[[], bool], seconds: float = 300) -> None:
    """Until ``ask`` says yes."""
    end = time.monotonic() + seconds
    while True:
        try:
            if ask():
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.1)


def fill(client: httpx.Client) -> str:
    """A history to look at; the id of its first transcript."""
    wait(lambda: client.get("/ready").status_code == 200)
    first = ""
    for title in reversed(TITLES):
        form = {"timestamp_granularities[]": ["word", "segment"], "response_format": "verbose_json"}
        files = {"file": (f"{title}.wav", spoken())}
        task = client.post("/v1/audio/transcriptions/async", data=form, files=files).json()
        where = f"/v1/tasks/{task['id']}"
        wait(lambda where=where: client.get(where).json()["status"] == "completed")  # type: ignore[misc]
        first = client.get(where).json()["history_id"]
        segments = client.get(f"/v1/history/{first}").json()["segments"]
        change = {"title": title, "segments": written(segments)}
        client.patch(f"/v1/history/{first}", json=change).raise_for_status()
    return first


def written(segments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Texts to look at, at the times of what was heard."""
    made = []
    pairs = list(zip(segments[::2], segments[1::2], strict=False))
    for (first, second), text in zip(pairs, TEXTS * 2, strict=False):
        start, end = first["start"], second["end"]
        spoken_words = text.split()
        step = (end - start) / len(spoken_words)
        words = [
            {
                "word": word,
                "start": start + place * step,
                "end": start + (place + 1) * step,
                "probability": DOUBTFUL.get(word, 0.98),
            }
            for place, word in enumerate(spoken_words)
        ]
        made.append({"start": start, "end": end, "text": text, "words": words})
    return made


def play(page: Page) -> None:
    """In the middle of listening."""
    page.wait_for_selector(".line")
    page.wait_for_selector(".play:not([disabled])")
    page.click(".line >> nth=4 >> .w >> nth=4")
    page.wait_for_timeout(300)


def run(page: Page) -> None:
    """Several files on their way, one of them broken."""
    files = [(f"{title}.wav", "audio/wav", spoken()) for title in ("Council", "Radio", "Memo")]
    files.insert(1, ("Holiday.mp4", "video/mp4", b"this is no video"))
    given = [{"name": name, "mimeType": kind, "buffer": data} for name, kind, data in files]
    page.set_input_files("#file", given)  # type: ignore[arg-type]
    page.wait_for_selector(".queue-row[data-state=failed]")
    page.wait_for_selector(".queue-row[data-state=running]")
    page.wait_for_timeout(400)
    page.locator("#queue").scroll_into_view_if_needed()
    page.evaluate("document.querySelector('#queue').scrollIntoView({ block: 'center' })")


def mend(page: Page) -> None:
    """A doubtful word being mended."""
    page.wait_for_selector(".line")
    page.keyboard.press("d")
    page.keyboard.press("d")
    page.keyboard.press("Enter")


def export(page: Page) -> None:
    """The dialog with subtitles laid out anew."""
    page.wait_for_selector(".line")
    page.keyboard.press("x")
    page.check("dialog [value=srt]", force=True)
    page.check("dialog [name=anew]")


def still(page: Page) -> None:
    """As it is."""


def pictures(
    record: str,
) -> dict[str, tuple[str, tuple[int, int], str, str, Callable[[Page], None]]]:
    """Name -> path, size, colours, language, what is done first."""
    text = f"/#/t/{record}"
    return {
        "start": ("/", DESKTOP, "light", "en-US", still),
        "start-dark": ("/", DESKTOP, "dark", "en-US", still),
        "start-phone-ru": ("/", PHONE, "light", "ru-RU", still),
        "progress": ("/", DESKTOP, "light", "en-US", run),
        "transcript": (text, DESKTOP, "light", "en-US", play),
        "transcript-dark": (text, DESKTOP, "dark", "en-US", play),
        "transcript-phone": (text, PHONE, "dark", "en-US", play),
        "mending": (text, DESKTOP, "light", "en-US", mend),
        "export": (text, DESKTOP, "light", "en-US", export),
        "history": ("/#/history", DESKTOP, "light", "en-US", still),
        "models": ("/#/models", DESKTOP, "light", "en-US", still),
    }


def shrink(path: Path) -> None:
    """Fewer colours, where pngquant is there."""
    tool = shutil.which("pngquant")
    if tool:
        subprocess.run([tool, "--force", "--skip-if-larger", "--output", path, path], check=False)


def main(names: list[str]) -> None:
    """Take the named pictures, or all."""
    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))))
    IMAGES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        server(folder) as root,
        sync_playwright() as driver,
    ):
        record = fill(httpx.Client(base_url=root, timeout=60))
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for name, (path, (width, height), colours, language, act) in pictures(record).items():
            if names and name not in names:
                continue
            page = browser.new_page(
                viewport={"width": width, "height": height},
                color_scheme=colours,  # type: ignore[arg-type]
                locale=language,
            )
            page.goto(root + path)
            page.wait_for_selector("#status[data-state=ready]")
            page.wait_for_timeout(600)
            act(page)
            page.wait_for_timeout(400)
            page.screenshot(path=IMAGES / f"{name}.png")
            shrink(IMAGES / f"{name}.png")
            page.close()
            print(f"{name}: {(IMAGES / f'{name}.png').stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
