"""The page, care: accessibility, languages, colours, phones, keys, weight, states of the server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.e2e.browsing import Page, Visit, lines, transcribe
from tests.e2e.conftest import Server

pytestmark = pytest.mark.slow

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def record(studio: Server) -> str:
    return transcribe(studio, segments=lines("Quite clear.", "Very odd words.", doubt=3))


def faults(page: Page) -> list[str]:
    """What axe finds wrong, in words."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page.tab).response["violations"]
    return [
        f"{fault['id']}: {node['html'][:120]} {node.get('failureSummary', '')}"
        for fault in found
        for node in fault["nodes"]
    ]


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing(visit: Visit, studio: Server, record: str, colours: str) -> None:
    page = visit(studio, color_scheme=colours, reduced_motion="reduce").open()
    page.tab.wait_for_selector("#status[data-state=ready]")
    page.tab.click("#options summary")
    found = {"home": faults(page)}
    page.tab.click("#help")
    found["help"] = faults(page)
    page.tab.keyboard.press("Escape")
    page.tab.evaluate(f"location.hash = '#/t/{record}'")
    page.tab.wait_for_selector(".w.wrong")
    page.tab.keyboard.press("d")
    page.tab.keyboard.press("/")
    found["text"] = faults(page)
    page.tab.keyboard.press("Escape")
    page.tab.locator(".line-text").first.dblclick()
    found["editing"] = faults(page)
    page.tab.keyboard.press("Escape")
    page.tab.keyboard.press("x")
    page.tab.wait_for_selector("dialog")
    found["export"] = faults(page)
    page.tab.keyboard.press("Escape")
    page.tab.click("#tab-debug")
    page.tab.wait_for_selector(".debug pre")
    found["debug"] = faults(page)
    page.tab.evaluate("location.hash = '#/history'")
    page.tab.wait_for_selector("#history .rows:visible")
    page.tab.check("#history .rows input >> nth=0")
    found["history"] = faults(page)
    page.tab.evaluate("location.hash = '#/models'")
    page.tab.wait_for_selector("#models-more li")
    found["models"] = faults(page)
    assert {view: list_ for view, list_ in found.items() if list_} == {}


def test_it_speaks_russian_and_fits_a_phone(visit: Visit, studio: Server, record: str) -> None:
    page = visit(studio, locale="ru-RU", viewport=PHONE).open()
    page.tab.wait_for_selector("#status[data-state=ready]")
    assert page.tab.inner_text("#pick") == "Выбрать файлы"
    assert page.tab.get_attribute("html", "lang") == "ru"
    for path, mark in (
        ("#/", "#drop"),
        (f"#/t/{record}", ".line"),
        ("#/history", "#history .rows:visible"),
        ("#/models", "#models-more li"),
    ):
        page.tab.evaluate(f"location.hash = '{path}'")
        page.tab.wait_for_selector(mark)
        assert page.tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    page.tab.select_option("#tongue", "en")
    page.tab.wait_for_selector("h1 >> text=Models")
    page.tab.reload()
    page.tab.wait_for_selector("h1 >> text=Models")


def test_colours_follow_the_system_or_the_person(visit: Visit, studio: Server) -> None:
    page = visit(studio, color_scheme="dark").open()
    back = "getComputedStyle(document.body).backgroundColor"
    dark = page.tab.evaluate(back)
    page.tab.click("#theme")
    assert page.tab.evaluate(back) != dark
    page.tab.reload()
    page.tab.wait_for_selector("body:not(.waiting)")
    assert page.tab.evaluate(back) != dark
    page.tab.click("#theme")
    assert page.tab.evaluate(back) == dark


def test_the_keyboard_alone_is_enough(visit: Visit, studio: Server) -> None:
    page = visit(studio).open()
    page.tab.wait_for_selector("#status[data-state=ready]")
    page.tab.keyboard.press("Tab")
    assert page.tab.evaluate("document.activeElement.className") == "skip"
    for _ in range(30):
        page.tab.keyboard.press("Tab")
        if page.tab.evaluate("document.activeElement.id") == "sample":
            break
    page.tab.keyboard.press("Enter")
    page.wait_for_transcript()
    page.tab.keyboard.press("e")
    page.tab.keyboard.press("Control+a")
    page.tab.keyboard.type("Four hundred and four.")
    page.tab.keyboard.press("Enter")
    page.wait_until_saved()
    assert page.text.startswith("Four hundred and four.")


def test_a_key_is_asked_for_and_opens_everything(visit: Visit, keyed: Server) -> None:
    page = visit(keyed).open()
    page.tab.wait_for_selector("dialog")
    page.tab.fill("#key", "wrong")
    page.tab.keyboard.press("Enter")
    page.tab.click("#sample")
    page.tab.wait_for_selector("dialog >> text=refused")
    page.tab.fill("#key", keyed.key)
    page.tab.check("#key-keep")
    page.tab.keyboard.press("Enter")
    page.wait_for_transcript()
    # Audio elements send no key: a cookie that scripts cannot see lets them in.
    page.tab.wait_for_selector(".play:not([disabled])")
    assert page.tab.evaluate("document.cookie") == ""
    page.tab.close()
    again = page.context.new_page()
    again.goto(f"{keyed.root}/#/history")
    again.wait_for_selector(".row-title")
    page.complaints[:] = [text for text in page.complaints if "401" not in text]


@pytest.fixture(scope="module")
def keyed(start_server: Any) -> Server:
    server: Server = start_server(
        engine="auto", model_path="bundled", vad=True, api_keys=["sk-page"]
    )
    return server


def test_the_first_paint_is_light(visit: Visit, studio: Server) -> None:
    page = visit(studio)
    sizes: dict[str, int] = {}
    page.tab.on("response", lambda answer: sizes.setdefault(answer.url, len(answer.body())))
    page.tab.goto(studio.root)
    page.tab.wait_for_selector("#drop")
    shown = dict(sizes)
    assert sum(shown.values()) < 100 * 1024, shown  # what it asks of the API included
    assert any(url.endswith("/app.js") for url in shown)


def test_states_of_the_server_are_told(visit: Visit, studio: Server) -> None:
    page = visit(studio)
    states = [
        (503, {"status": "loading", "version": "1", "reasons": ["The model is being loaded."]}),
        (503, {"status": "failed", "version": "1", "reasons": ["No such folder."]}),
    ]

    def answer(route: Any) -> None:
        if not states:
            route.continue_()
            return
        status, body = states[0]
        route.fulfill(status=status, content_type="application/json", body=json.dumps(body))

    page.tab.route("**/ready", answer)
    page.open()
    page.tab.wait_for_selector("#banner >> text=being loaded")
    states.pop(0)
    page.tab.wait_for_selector("#banner >> text=No such folder.")
    states.pop(0)
    page.tab.wait_for_selector("#status[data-state=ready]")
    assert "everyday phrases" in page.tab.inner_text("#banner")
    page.complaints[:] = [text for text in page.complaints if "503" not in text]


def test_what_is_gone_is_told_in_plain_words(visit: Visit, studio: Server) -> None:
    page = visit(studio).open("/#/t/tr_nothing")
    page.tab.wait_for_selector("text=This transcript is not here")
    page.tab.click(".state >> text=Back")
    page.tab.wait_for_selector("#drop")
    page.complaints[:] = [text for text in page.complaints if "404" not in text]


def test_the_docs_open(visit: Visit, studio: Server) -> None:
    page = visit(studio)
    page.tab.goto(f"{studio.root}/docs")
    page.tab.wait_for_selector(".opblock-summary-path")
    assert "/v1/audio/transcriptions" in page.tab.inner_text("#docs")
