"""The page, ways in: dropping, pasting, choosing, recording, links; the queue; large files."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import MakeWav
from tests.e2e.browsing import SAID, Visit, history
from tests.e2e.conftest import Server, StartServer

from whisper_api.api.system import SAMPLE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slow(start_server: StartServer) -> Server:
    """A server that takes its time: over a second for every window of ten."""
    fake = "fake:delay=1.2"
    return start_server(model_path=fake, batch_size=1, chunk_length_s=10)


@pytest.fixture(scope="module")
def long_file(make_wav: MakeWav, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "meeting.wav"
    path.write_bytes(make_wav({float(at): at for at in range(1, 60, 4)}, 60))
    return path


def long_speech(megabytes: int) -> bytes:
    """The sample, and silence behind it."""
    with wave.open(str(SAMPLE)) as file:
        about, spoken = file.getparams(), file.readframes(file.getnframes())
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setparams(about)
        out.writeframes(spoken + bytes(megabytes * 1_000_000 // 2 * 2))
    return buffer.getvalue()


def test_the_sample_is_one_press_away(visit: Visit, studio: Server) -> None:
    page = visit(studio).open()
    page.tab.wait_for_selector("#status[data-state=ready]")
    assert "everyday phrases" in page.tab.inner_text("#banner")
    page.tab.click("#sample")
    page.wait_for_transcript()
    assert page.text == SAID
    assert page.tab.input_value("#title") == "sample.wav"


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_files_are_taken_anywhere_on_the_page(visit: Visit, studio: Server, event: str) -> None:
    page = visit(studio).open("/#/history")
    page.tab.wait_for_selector("#history .rows, #history .empty")
    page.tab.evaluate("location.hash = '#/'")
    page.give(event, {"given.wav": SAMPLE.read_bytes()})
    page.wait_for_transcript()
    assert page.text == SAID


def test_many_files_have_a_queue_and_a_broken_one_says_what_to_do(
    visit: Visit, studio: Server, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"this is no audio")
    studio.wait_until_idle(30)  # the page would show what still runs of other tests
    page = visit(studio).open()
    copies = []
    for name in ("one.wav", "two.wav"):
        path = tmp_path / name
        path.write_bytes(SAMPLE.read_bytes())
        copies.append(str(path))
    page.tab.set_input_files("#file", [*copies, str(broken)])
    page.tab.wait_for_selector("#queue:visible")
    page.until("document.querySelectorAll('.queue-row[data-state=completed]').length === 2")
    failed = page.tab.wait_for_selector(".queue-row[data-state=failed]")
    assert "save it again as MP3 or WAV" in failed.inner_text()
    assert "3 of 3" in page.tab.inner_text("#queue-sum")
    page.tab.click("text=Clear finished")
    page.tab.wait_for_selector("#queue", state="hidden")
    page.complaints[:] = [text for text in page.complaints if "400" not in text]


def test_a_link_is_fetched_and_a_private_one_is_refused_in_plain_words(
    visit: Visit, studio: Server
) -> None:
    page = visit(studio).open()
    page.tab.click("#from-url")
    page.tab.fill("#url", "http://10.1.2.3/x.wav")
    page.tab.press("#url", "Enter")
    failed = page.tab.wait_for_selector(".queue-row[data-state=failed]")
    assert "public http or https" in failed.inner_text()
    page.complaints.clear()
    page.tab.click("#from-url")
    page.tab.fill("#url", f"{studio.root}/sample.wav")
    page.tab.press("#url", "Enter")
    page.wait_for_transcript()
    assert page.text == SAID


def test_the_microphone_is_recorded_with_level_and_pause(visit: Visit, studio: Server) -> None:
    page = visit(studio, permissions=["microphone"]).open()
    page.tab.click("#record")
    page.tab.wait_for_selector(".recorder[data-state=on]")
    page.until("Number(document.querySelector('.level').getAttribute('aria-valuenow')) > 20")
    page.until("document.querySelector('.recorder-time').textContent === '0:04'")
    page.tab.click("text=Pause")
    page.tab.wait_for_selector(".recorder[data-state=paused]")
    assert page.tab.inner_text(".recorder-time") == "0:04"
    page.tab.click("text=Go on")
    page.tab.wait_for_selector(".recorder[data-state=on]")
    page.tab.click("text=Finish and transcribe")
    page.wait_for_transcript()
    assert "zero" in page.text.lower()


def test_options_are_sent_and_remembered(visit: Visit, studio: Server) -> None:
    page = visit(studio).open()
    page.until("document.querySelector('[name=language]').options.length > 2")
    page.tab.select_option("[name=language]", "en")
    page.tab.click("#options summary")
    page.tab.fill("[name=prompt]", "Numbers of flights")
    page.tab.fill("[name=keywords]", "zero, four")
    page.tab.uncheck("[name=words]")
    page.tab.reload()
    page.until("document.querySelector('[name=language]')?.value === 'en'")
    assert "3 set" in page.tab.inner_text("#options summary")
    page.tab.click("#sample")
    page.wait_for_transcript()
    options = history(studio, page.record)["options"]
    assert options["language"] == "en"
    assert options["prompt"] == "Numbers of flights"
    assert options["keywords"] == ["zero", "four"]
    assert options["word_timestamps"] is False


def test_a_large_file_goes_on_after_a_broken_connection(
    visit: Visit, studio: Server, tmp_path: Path
) -> None:
    path = tmp_path / "large.wav"
    path.write_bytes(long_speech(9))
    page = visit(studio).open()
    broken: list[str] = []
    methods: list[str] = []

    def break_once(route: Any) -> None:
        methods.append(route.request.method)
        if route.request.method == "PATCH" and methods.count("PATCH") == 2:
            broken.append(route.request.url)
            route.abort("connectionreset")
        else:
            route.continue_()

    page.tab.route("**/v1/uploads/*", break_once)
    page.tab.set_input_files("#file", str(path))
    page.wait_for_transcript()
    assert page.text == SAID
    assert broken
    # Two parts, one of them twice; in between the server was asked how far it is.
    assert methods == ["PATCH", "PATCH", "HEAD", "PATCH"]
    page.complaints[:] = [text for text in page.complaints if "ERR_CONNECTION_RESET" not in text]


def test_a_closed_tab_loses_nothing(visit: Visit, slow: Server, long_file: Path) -> None:
    first = visit(slow).open()
    first.tab.set_input_files("#file", str(long_file))
    first.tab.wait_for_selector(".line")
    first.tab.close()
    page = visit(slow).open()
    page.tab.click("text=Watch")
    page.tab.wait_for_selector(".run:visible")
    page.wait_for_transcript()
    page.until("document.querySelectorAll('.line').length === 15")


def test_text_comes_while_the_job_runs_and_can_be_stopped(
    visit: Visit, slow: Server, long_file: Path
) -> None:
    page = visit(slow).open()
    page.tab.set_input_files("#file", str(long_file))
    page.tab.wait_for_selector(".line")
    assert page.tab.is_visible(".run")
    assert "of 1:00" in page.tab.inner_text(".run-words")
    assert page.tab.is_disabled("text=Export")
    page.tab.click(".run >> text=Cancel")
    page.tab.wait_for_selector(".queue-row[data-state=cancelled]")
    page.tab.click("text=Try again")
    page.tab.wait_for_selector(".queue-row[data-state=completed]")
    page.tab.click(".queue-row >> text=Open")
    page.tab.wait_for_selector(".line")
    assert page.text.startswith("marker-0001 marker-0005")
