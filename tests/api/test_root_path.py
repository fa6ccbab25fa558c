"""Below a path of a proxy's: every address that leaves the server has it, probes need none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
import pytest_asyncio
from tests.api.conftest import running

from whisper_api.config import load_settings
from whisper_api.errors import SettingsError

pytestmark = pytest.mark.asyncio(loop_scope="session")
KEY = {"authorization": "Bearer sk-right"}
TUS = {"tus-resumable": "1.0.0", "upload-length": "10"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def below(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server whose ``root_path`` is ``/ai/speech``."""
    folder = tmp_path_factory.mktemp("below")
    async with running(folder, root_path="/ai/speech/", api_keys=["sk-right"]) as client:
        yield client


class Links(HTMLParser):
    """Every address in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("href", "src") and value]


@pytest.mark.parametrize("page", ["/ai/speech/", "/ai/speech/docs"])
async def test_every_address_in_the_pages_is_below_the_prefix(below: Any, page: str) -> None:
    answer = await below.get(page)
    assert answer.status_code == 200
    links = [link for link in Links(answer.text).found if not link.startswith("#")]
    assert len(links) >= 4
    for link in links:
        place = urljoin(page, link)
        assert place.startswith("/ai/speech/"), link
        assert (await below.get(place)).status_code == 200, link


async def test_a_page_without_its_slash_is_sent_to_the_one_with_it(below: Any) -> None:
    answer = await below.get("/ai/speech")
    assert (answer.status_code, answer.headers["location"]) == (308, "/ai/speech/")


async def test_answers_name_their_places_below_the_prefix(below: Any, make_wav: Any) -> None:
    submitted = await below.post(
        "/ai/speech/v1/audio/transcriptions/async",
        files={"file": ("a.wav", make_wav({0.2: 7}, 1))},
        headers=KEY,
    )
    assert submitted.headers["location"] == f"/ai/speech/v1/tasks/{submitted.json()['id']}"
    assert (await below.get(submitted.headers["location"], headers=KEY)).status_code == 200
    events = (await below.get(f"{submitted.headers['location']}/events", headers=KEY)).text
    assert events.startswith("event: ") or "\nevent: " in events
    upload = await below.post("/ai/speech/v1/uploads", headers={**KEY, **TUS})
    assert upload.headers["location"].startswith("/ai/speech/v1/uploads/upload_")
    assert (await below.head(upload.headers["location"], headers=KEY | TUS)).status_code == 200
    slash = await below.get("/ai/speech/v1/tasks/", headers=KEY)
    assert slash.headers["location"] == "http://localhost/ai/speech/v1/tasks"


async def test_the_cookie_of_players_is_sent_below_the_prefix(below: Any) -> None:
    lent = await below.post("/ai/speech/v1/session", headers=KEY)
    assert "Path=/ai/speech/v1;" in lent.headers["set-cookie"]
    ended = await below.delete("/ai/speech/v1/session", headers=KEY)
    assert "Path=/ai/speech/v1;" in ended.headers["set-cookie"]


async def test_the_description_tells_programs_where_the_server_is(below: Any) -> None:
    described = (await below.get("/ai/speech/openapi.json")).json()
    assert described["servers"] == [{"url": "/ai/speech"}]
    assert "/v1/tasks" in described["paths"]


async def test_guards_see_through_the_prefix(below: Any) -> None:
    assert (await below.get("/ai/speech/v1/tasks")).status_code == 401
    assert (await below.get("/ai/speech/health")).status_code == 200
    page = await below.get("/ai/speech/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    opened = await below.options(
        "/ai/speech/v1/audio/transcriptions",
        headers={"origin": "https://other.example", "access-control-request-method": "POST"},
    )
    assert opened.headers["access-control-allow-origin"] == "*"


async def test_proxies_may_take_the_prefix_off_and_probes_need_none(below: Any) -> None:
    assert (await below.get("/health")).status_code == 200
    upload = await below.post("/v1/uploads", headers={**KEY, **TUS})
    assert upload.headers["location"].startswith("/ai/speech/v1/uploads/upload_")
    assert (await below.get("/ai/speechless/health", headers=KEY)).status_code == 404


async def test_places_on_other_hosts_and_without_a_prefix_stay(below: Any) -> None:
    from whisper_api.api.prefix import Prefix

    prefix = Prefix(below.app, "/a")
    outside = prefix._outside
    assert outside("https://else.example/v1", "localhost") == "https://else.example/v1"
    assert outside("http://localhost/v1?x=1", "localhost") == "http://localhost/a/v1?x=1"
    assert outside("part", "localhost") == "part"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("speech", "root_path: 'speech' is not allowed; allowed: a path such as /speech"),
        ("/a//b", "allowed: a path such as /speech"),
        ("/v1/x", "the server's own paths begin with /v1"),
    ],
)
async def test_prefixes_that_cannot_work_are_refused(value: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(root_path=value)
    assert words.replace("'", '"') in caught.value.message.replace("'", '"')


async def test_a_last_slash_does_not_matter() -> None:
    assert load_settings(root_path="/speech/").root_path == "/speech"
    assert load_settings(root_path="/").root_path == ""
