"""The page, reading: playing, seeking, the spoken word, doubtful words, search, long texts."""

from __future__ import annotations

import pytest
from tests.e2e.browsing import SAID, Page, Visit, lines, transcribe
from tests.e2e.conftest import Server

pytestmark = pytest.mark.slow

PLACE = "document.querySelector('audio').currentTime"
LENGTH = "document.querySelector('audio').duration"


@pytest.fixture(scope="module")
def record(studio: Server) -> str:
    return transcribe(studio)


def ready_to_play(page: Page) -> None:
    page.tab.wait_for_selector(".play:not([disabled])")


def test_the_spoken_word_is_marked_while_it_plays(
    visit: Visit, studio: Server, record: str
) -> None:
    page = visit(studio).open_record(record)
    ready_to_play(page)
    # The page keeps the list: on a busy machine a question each 25 ms misses words.
    page.tab.evaluate(
        """() => {
          window.marked = [];
          const note = (changes) => changes.map((change) => change.target)
            .filter((word) => word.matches(".w.spoken"))
            .forEach((word) => window.marked.push(word.innerText));
          new MutationObserver(note).observe(
            document.body, { subtree: true, attributeFilter: ["class"] });
        }"""
    )
    page.tab.keyboard.press("Space")
    page.tab.evaluate("document.querySelector('audio').playbackRate = 0.5")
    page.until("document.querySelector('audio').ended")
    marked = page.tab.evaluate("window.marked")
    assert marked == ["Four", "zero", "four.", "Two", "zero", "one."]
    assert page.tab.get_attribute(".play", "title") == "Play (Space)"


def test_a_word_a_segment_and_the_waveform_are_places_to_go(
    visit: Visit, studio: Server, record: str
) -> None:
    page = visit(studio).open_record(record)
    ready_to_play(page)
    words = page.tab.locator(".line >> nth=1").locator(".w")
    words.nth(1).click()
    page.until(f"{PLACE} > 2.0 && {PLACE} < 2.3")
    page.tab.click(".line-time >> nth=0")
    page.until(f"{PLACE} > 0.2 && {PLACE} < 0.5")
    box = page.tab.locator(".wave").bounding_box()
    assert box is not None
    page.tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
    page.until(f"Math.abs({PLACE} - {LENGTH} / 2) < 0.15")
    page.tab.focus(".wave")
    page.tab.keyboard.press("Home")
    page.until(f"{PLACE} === 0")
    assert page.tab.get_attribute(".wave", "aria-valuetext") == "0:00 of 0:03"
    # Speech is drawn in another colour than the rest.
    colours = page.tab.evaluate(
        """() => {
          const canvas = document.querySelector(".wave canvas");
          const { width, height } = canvas;
          const pixels = canvas.getContext("2d").getImageData(0, height / 2, width, 1);
          const found = new Set();
          for (let at = 0; at < pixels.data.length; at += 4) {
            if (pixels.data[at + 3] === 255) found.add(pixels.data.slice(at, at + 3).join());
          }
          return found.size;
        }"""
    )
    assert colours >= 2


def test_keys_move_through_the_recording(visit: Visit, studio: Server, record: str) -> None:
    page = visit(studio).open_record(record)
    ready_to_play(page)
    page.tab.keyboard.press("ArrowDown")
    page.tab.keyboard.press("ArrowDown")
    page.until(f"{PLACE} > 1.7")
    assert "Two zero one." in page.tab.inner_text(".line.current")
    page.tab.keyboard.press("ArrowLeft")
    page.until(f"{PLACE} === 0")
    page.tab.keyboard.press("]")
    page.tab.keyboard.press("]")
    assert page.tab.evaluate("document.querySelector('audio').playbackRate") == 1.5
    page.tab.reload()
    ready_to_play(page)
    assert page.tab.evaluate("document.querySelector('audio').playbackRate") == 1.5
    page.tab.keyboard.press("?")
    assert "Next doubtful word" in page.tab.inner_text("dialog")
    page.tab.keyboard.press("Escape")
    assert not page.tab.is_visible("dialog")


def test_a_key_jumps_to_the_next_doubtful_word(visit: Visit, studio: Server) -> None:
    texts = ("All clear here.", "Something odd there.", "And clear again.")
    record = transcribe(studio, segments=lines(*texts, doubt=4))
    page = visit(studio).open_record(record)
    page.tab.wait_for_selector(".doubts:visible")
    assert page.tab.inner_text(".doubts .words") == "1 doubtful word"
    assert page.tab.inner_text(".w.wrong") == "odd"
    ready_to_play(page)
    page.tab.keyboard.press("d")
    assert page.tab.inner_text(".w.pointed") == "odd"
    page.until(f"{PLACE} > 1 && {PLACE} < 1.3")
    # Enter begins to mend it, with the word chosen; what was typed is beyond doubt.
    page.tab.keyboard.press("Enter")
    page.tab.keyboard.type("even")
    page.tab.keyboard.press("Enter")
    page.tab.wait_for_selector(".doubts", state="hidden")
    assert page.text == "All clear here. Something even there. And clear again."


def test_search_finds_marks_and_replaces(visit: Visit, studio: Server, record: str) -> None:
    page = visit(studio).open_record(record)
    page.tab.keyboard.press("/")
    page.tab.keyboard.type("ZERO")
    assert page.tab.inner_text(".finder output") == "1 of 2"
    assert page.tab.evaluate("CSS.highlights.get('found-now').size") == 1
    page.tab.keyboard.press("Enter")
    assert page.tab.inner_text(".finder output") == "2 of 2"
    assert "Two zero" in page.tab.inner_text(".line.current")
    page.tab.fill(".finder input >> nth=1", "oh")
    page.tab.click("text=Replace all")
    assert page.tab.inner_text(".finder output") == "2 places changed"
    assert page.text == "Four oh four. Two oh one."
    page.tab.keyboard.press("Escape")
    page.tab.keyboard.press("Control+z")
    assert page.text == SAID


def test_a_long_transcript_has_few_rows_on_the_page(visit: Visit, studio: Server) -> None:
    segments = [
        {"start": at / 1000, "end": (at + 1) / 1000, "text": f"This is line number {at} of many."}
        for at in range(3000)
    ]
    page = visit(studio).open_record(transcribe(studio, segments=segments))
    page.until("document.querySelector('.line').getAttribute('aria-setsize') === '3000'")
    assert page.tab.locator(".line").count() < 100
    page.tab.evaluate("document.querySelector('.scroll').scrollTop = 1e9")
    page.until("document.querySelector('.lines').textContent.includes('number 2999')")
    assert page.tab.locator(".line").count() < 100
    page.tab.keyboard.press("/")
    page.tab.keyboard.type("number 1500 ")
    page.until("document.querySelector('.lines').textContent.includes('number 1500 ')")
    assert "number 1500" in page.tab.inner_text(".line.current")
