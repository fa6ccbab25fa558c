"""The page: the history, models, and the tab for developers."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any, Literal

import pytest
from tests.e2e.browsing import HUB_MODEL, SAID, Page, Visit, history, transcribe
from tests.e2e.conftest import Server, StartServer
from tests.hub import Hub

from whisper_api.api.workers import WorkerBody, WorkerList

pytestmark = pytest.mark.slow
State = Literal["ready", "draining", "away"]


@pytest.fixture(scope="module")
def shelf(start_server: StartServer) -> Server:
    """A server of its own, with three transcripts."""
    server = start_server(engine="auto", model_path="bundled", vad=True)
    for title in ("Flight to Riga", "Flight to Oslo", "Lottery"):
        transcribe(server, f"{title}.wav", title=title)
    return server


def titles(page: Page) -> list[str]:
    return list(page.tab.locator("#history .row-title").all_inner_texts())


def test_the_history_is_searched_and_filtered(visit: Visit, shelf: Server) -> None:
    page = visit(shelf).open("/#/history")
    page.until("document.querySelectorAll('#history .row-title').length === 3")
    page.tab.fill("#history-search", "flight")
    page.until("document.querySelectorAll('#history .row-title').length === 2")
    assert set(titles(page)) == {"Flight to Riga", "Flight to Oslo"}
    page.tab.fill("#history-search", "nowhere")
    page.tab.wait_for_selector("text=Nothing matches")
    page.tab.click("button:has-text('Take the filters off')")
    page.until("document.querySelectorAll('#history .row-title').length === 3")
    page.tab.click("text=Filters")
    page.tab.select_option("#history [name=source]", "sync")
    page.tab.wait_for_selector("text=Nothing matches")
    page.tab.select_option("#history [name=source]", "")
    page.tab.fill("#history [name=from]", "2020-01-01")
    page.tab.click("text=Lottery")
    page.tab.wait_for_selector(".line")
    assert page.text == SAID


def test_records_are_renamed_exported_together_and_deleted(visit: Visit, shelf: Server) -> None:
    extra = transcribe(shelf, "extra.wav", title="Extra")
    page = visit(shelf).open("/#/history")
    row = page.tab.locator("#history .rows > li", has_text="Extra")
    row.locator("[aria-label=Rename]").click()
    page.tab.fill(".rename input", "More")
    page.tab.keyboard.press("Enter")
    page.tab.wait_for_selector(".row-title >> text=More")
    assert history(shelf, extra)["title"] == "More"

    for name in ("Flight to Riga", "More"):
        page.tab.check(f"[aria-label='Select {name}']")
    assert "2 selected" in page.tab.inner_text(".selection")
    page.tab.click(".selection >> text=Export")
    page.tab.check("dialog [value=srt]", force=True)
    _, content = page.download(lambda: page.tab.click("dialog >> text=Download"))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert sorted(archive.namelist()) == ["Flight to Riga.srt", "More.srt"]
        assert b"Four zero four." in archive.read("More.srt")

    page.tab.uncheck("[aria-label='Select Flight to Riga']")
    page.tab.click(".selection >> text=Delete")
    page.tab.click("dialog >> text=Delete >> nth=-1")
    page.until("document.querySelectorAll('#history .row-title').length === 3")
    assert shelf.get(f"/v1/history/{extra}").status_code == 404


def test_an_empty_history_says_what_to_do(visit: Visit, shelf: Server) -> None:
    page = visit(shelf)
    empty = '{"object": "list", "data": [], "has_more": false}'
    page.tab.route(
        "**/v1/history?*",
        lambda route: route.fulfill(body=empty, content_type="application/json"),
    )
    page.open("/#/history")
    page.tab.wait_for_selector("text=Nothing here yet")
    page.tab.click("text=Transcribe something")
    page.tab.wait_for_selector("#drop")


def test_a_model_is_fetched_with_progress_chosen_and_removed(
    visit: Visit, studio: Server, hub: Hub
) -> None:
    hub.hold_after["vocabulary.json"] = 100_000
    page = visit(studio).open("/#/models")
    page.tab.wait_for_selector("#models-here >> text=bundled")
    page.tab.wait_for_selector("[data-model=small] >> text=Fetch")
    page.tab.fill("#model-name", HUB_MODEL)
    page.tab.keyboard.press("Enter")
    page.tab.wait_for_selector(f"[data-model='{HUB_MODEL}'] [role=progressbar]")
    assert page.tab.is_visible(f"[data-model='{HUB_MODEL}'] [aria-label=Stop]")
    hub.released.set()
    page.tab.click(f"#models-here [data-model='{HUB_MODEL}'] >> text=Use")
    page.tab.wait_for_selector(f"#models-here [data-model='{HUB_MODEL}'] >> text=In use")
    page.tab.evaluate("location.hash = '#/'")
    page.tab.click("#sample")
    page.wait_for_transcript()
    assert history(studio, page.record)["model"] == HUB_MODEL
    page.tab.evaluate("location.hash = '#/models'")
    page.tab.click(f"[data-model='{HUB_MODEL}'] [aria-label=Remove]")
    page.tab.click("dialog button:has-text('Remove')")
    page.tab.wait_for_selector("#models-here [data-model=bundled] >> text=In use")
    listed = {model["id"] for model in studio.get("/v1/models").json()["data"]}
    assert HUB_MODEL not in listed


def test_developers_see_the_request_the_answer_and_the_times(visit: Visit, studio: Server) -> None:
    record = transcribe(studio, "my words.wav")
    page = visit(studio).open_record(record)
    page.tab.click("#tab-debug")
    code = page.tab.inner_text(".debug pre >> nth=0")
    assert code.startswith(f"curl {studio.root}/v1/audio/transcriptions")
    assert "-F 'file=@my words.wav'" in code
    assert "-F 'timestamp_granularities[]=word'" in code
    page.tab.click("text=Python")
    code = page.tab.inner_text(".debug pre >> nth=0")
    compile(code, "example", "exec")
    assert f'base_url="{studio.root}/v1"' in code
    page.tab.click("text=JavaScript")
    assert "new FormData()" in page.tab.inner_text(".debug pre >> nth=0")
    assert "Work" in page.tab.inner_text(".debug table")
    answer = json.loads(page.tab.inner_text(".debug pre >> nth=1"))
    assert answer["id"] == record


def test_the_machines_that_share_the_work_are_shown(visit: Visit, studio: Server) -> None:
    page = visit(studio)
    machines = WorkerList(data=[machine("api"), machine("worker"), machine("worker", "draining")])
    machines.data += [machine("worker", "away")]

    def answer(route: Any) -> None:
        route.fulfill(json=machines.model_dump())

    page.tab.route("**/v1/workers", answer)
    page.open("/#/models")
    page.tab.wait_for_selector("#workers li >> nth=3")
    shown = page.tab.locator("#workers li").all_inner_texts()
    assert "Server without an engine" in shown[0]
    assert "memory" not in shown[0]
    for words in ("box · 7", "Ready", "small in memory", "2 recordings or parts", "12.5×"):
        assert words in shown[1]
    assert "Takes no more work" in shown[2]
    assert "last heard of 42 s ago" in shown[3]
    # They change while one looks on, and there is nothing to see where nobody shares anything.
    machines.data[1].running = 0
    page.tab.wait_for_selector("#workers >> text=nothing to do")
    page.tab.select_option("#tongue", "ru")
    page.tab.wait_for_selector("#workers >> text=в памяти: small")
    del machines.data[1:]
    page.tab.wait_for_selector("#workers", state="detached")


def machine(role: Literal["api", "worker"], state: State = "ready") -> WorkerBody:
    """A process as the server tells of it."""
    return WorkerBody(
        id=f"{role}-{state}",
        role=role,
        state=state,
        host="box",
        pid=7,
        version="1",
        started_at=0,
        seen_seconds_ago=42.2 if state == "away" else 0.5,
        models=["small"],
        stored_models=[],
        running=2,
        speed=12.5,
    )
