"""The page, mending: text, times, split, join, undo, saving by itself; taking away."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from tests.e2e.browsing import SAID, Page, Visit, history, lines, transcribe
from tests.e2e.conftest import Server
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

TEXTS = ("One small step for a man.", "One giant leap.", "Then silence.")


@pytest.fixture
def page(visit: Visit, studio: Server) -> Page:
    """A transcript of three segments, open."""
    record = transcribe(studio, title="Moon", segments=lines(*TEXTS))
    context = {"permissions": ["clipboard-read", "clipboard-write"]}
    return visit(studio, **context).open_record(record)


def texts(page: Page) -> list[str]:
    return [segment["text"].strip() for segment in history(page.server, page.record)["segments"]]


def edit(page: Page, row: int) -> None:
    page.tab.locator(".line").nth(row).locator(".line-text").dblclick()
    page.tab.wait_for_selector(".editing textarea")


def test_a_correction_is_saved_by_itself_and_can_be_undone(page: Page) -> None:
    edit(page, 1)
    page.tab.fill(".editing textarea", "One giant leap for mankind.")
    page.tab.keyboard.press("Enter")
    page.wait_until_saved()
    kept = history(page.server, page.record)
    assert kept["edited"]
    assert kept["segments"][1]["text"].strip() == "One giant leap for mankind."
    words = kept["segments"][1]["words"]
    # Words that stayed keep their times; new ones have a place in what is left.
    assert (words[0]["word"], words[0]["start"]) == ("One", 1.0)
    assert [word["start"] for word in words] == sorted(word["start"] for word in words)
    page.tab.reload()
    page.tab.wait_for_selector(".line")
    assert "for mankind" in page.text
    edit(page, 2)
    page.tab.fill(".editing textarea", "Then cheers.")
    page.tab.keyboard.press("Enter")
    page.tab.keyboard.press("Control+z")
    assert page.text.endswith("Then silence.")
    page.tab.keyboard.press("Control+Shift+z")
    assert page.text.endswith("Then cheers.")


def test_segments_are_split_joined_and_deleted(page: Page) -> None:
    edit(page, 0)
    page.tab.evaluate("document.querySelector('.editing textarea').setSelectionRange(15, 15)")
    page.tab.keyboard.press("Control+Enter")
    rows = page.tab.locator(".line-text").all_inner_texts()
    assert rows[:2] == ["One small step", "for a man."]
    page.wait_until_saved()
    first, second = history(page.server, page.record)["segments"][:2]
    assert first["end"] == second["start"] == 0.5
    edit(page, 2)
    page.tab.click("text=Join with next")
    assert page.tab.locator(".line-text").nth(2).inner_text() == "One giant leap. Then silence."
    edit(page, 0)
    page.tab.click(".editing >> text=Delete")
    page.until("document.querySelectorAll('.line').length === 2")
    wait_until(lambda: texts(page) == ["for a man.", "One giant leap. Then silence."])


def test_times_are_edited_and_wrong_ones_are_told(page: Page) -> None:
    edit(page, 1)
    page.tab.get_by_label("End", exact=True).fill("0:00.5")
    page.tab.keyboard.press("Tab")
    assert "end behind the start" in page.tab.inner_text(".edit-note")
    page.tab.get_by_label("End", exact=True).fill("0:01.75")
    page.tab.keyboard.press("Enter")
    page.wait_until_saved()
    segment = history(page.server, page.record)["segments"][1]
    assert (segment["start"], segment["end"]) == (1.0, 1.75)
    assert segment["words"][-1]["end"] == 1.75


def test_escape_leaves_the_text_as_it_was(page: Page) -> None:
    edit(page, 0)
    page.tab.fill(".editing textarea", "Nonsense")
    page.tab.keyboard.press("Escape")
    assert page.text.startswith(TEXTS[0])


def test_all_corrections_can_be_thrown_away(page: Page) -> None:
    page.tab.click("[aria-label='Back to the original']")
    page.tab.click("dialog button:has-text('Back to the original')")
    page.until("document.querySelectorAll('.line').length === 2")
    assert page.text == SAID
    assert not history(page.server, page.record)["edited"]


def test_the_title_is_changed_in_place(page: Page) -> None:
    page.tab.fill("#title", "Apollo 11")
    page.tab.keyboard.press("Enter")
    page.wait_until_saved()
    assert history(page.server, page.record)["title"] == "Apollo 11"


def test_it_is_taken_away_in_every_format(page: Page) -> None:
    page.tab.click("text=Export")
    page.tab.wait_for_selector("dialog")
    found = {}
    for name in ("txt", "srt", "vtt", "json"):
        if not page.tab.is_visible("dialog"):
            page.tab.click("text=Export")
        page.tab.check(f"dialog [value={name}]", force=True)
        title, content = page.download(lambda: page.tab.click("dialog >> text=Download"))
        assert title == f"Moon.{name}"
        found[name] = content.decode()
    assert found["txt"] == " ".join(TEXTS) + "\n"
    assert found["srt"].startswith(f"1\n00:00:00,000 --> 00:00:01,000\n{TEXTS[0]}\n\n2\n")
    assert found["vtt"].startswith(f"WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n{TEXTS[0]}\n\n")
    whole = json.loads(found["json"])
    assert [segment["text"] for segment in whole["segments"]] == list(TEXTS)
    assert whole["segments"][0]["words"][0]["word"] == "One"

    page.tab.keyboard.press("x")
    page.tab.check("dialog [value=srt]", force=True)
    page.tab.check("text=Lay out lines anew")
    page.tab.fill("dialog [name=width]", "14")
    page.tab.fill("dialog [name=lines]", "1")
    page.tab.keyboard.press("Tab")
    assert "One small step\n" in page.tab.inner_text(".preview")
    title, content = page.download(lambda: page.tab.click("text=All formats"))
    assert title == "Moon.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["Moon.json", "Moon.srt", "Moon.txt", "Moon.vtt"]
        cues = archive.read("Moon.srt").decode()
    assert cues.startswith("1\n00:00:00,000 --> 00:00:00,500\nOne small step\n\n2\n00:00:00,500")
    assert max(len(line) for line in cues.splitlines() if "-->" not in line) <= 14


def test_the_text_is_copied(page: Page) -> None:
    page.tab.click("text=Copy")
    page.tab.wait_for_selector("text=Copied")
    assert page.tab.evaluate("navigator.clipboard.readText()") == " ".join(TEXTS)
