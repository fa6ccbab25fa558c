"""Webhooks: signatures, tries, what is given up, and where they may go."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr
from tests.waiting import until as wait_until
from tests.webserver import Site, redirect

from whisper_api import webhooks as module
from whisper_api.config import Settings
from whisper_api.database import Database
from whisper_api.errors import Conflict, NotFound, SettingsError
from whisper_api.metrics import Metrics
from whisper_api.tables import tasks
from whisper_api.webhooks import Delivery, Signer, Webhooks, backoff, open_signer

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FAST: dict[str, Any] = {"webhook_allowed_hosts": ("127.0.0.0/8",), "webhook_retry_s": 0.01}

Send = Callable[..., Any]


def test_signatures_are_those_of_the_standard() -> None:
    # The example of the Standard Webhooks specification's reference libraries.
    body = b'{"test": 2432232314}'
    headers = Signer([SECRET]).headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-id"] == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert headers["webhook-timestamp"] == "1614265330"


def test_several_secrets_give_several_signatures() -> None:
    other = "whsec_" + base64.b64encode(b"another secret of 24 byt").decode()
    both = Signer([SECRET, other]).headers("m", 1, b"x")["webhook-signature"].split(" ")
    assert both[0] == Signer([SECRET]).headers("m", 1, b"x")["webhook-signature"]
    assert both[1] == Signer([other]).headers("m", 1, b"x")["webhook-signature"]


@pytest.mark.parametrize("secret", ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%%", "whsec_QUJD"])
def test_a_secret_of_another_shape_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Signer([secret])
    assert secret not in caught.value.message


def test_without_a_secret_one_is_made_and_kept_for_this_user_only(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    first = open_signer(settings).headers("m", 1, b"x")
    assert open_signer(settings).headers("m", 1, b"x") == first
    path = tmp_path / "webhook_secret"
    assert path.read_text().startswith("whsec_")
    assert path.stat().st_mode & 0o077 == 0


def test_waits_double_up_to_a_day() -> None:
    waits = [backoff(attempt, 5) for attempt in range(1, 40)]
    assert 4.5 <= waits[0] <= 5.5
    assert 36 <= waits[3] <= 44
    assert 86_400 * 0.9 <= waits[-1] <= 86_400 * 1.1


def test_the_documented_receiver_accepts_what_is_sent_and_nothing_else() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "tasks.md").read_text("utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)  # the documentation's own example
    verified, body = names["verified"], b'{"type": "task.completed"}'
    headers = Signer([SECRET]).headers("msg_1", int(time.time()), body)
    assert verified(SECRET, headers, body)
    assert not verified(SECRET, headers, body + b" ")
    assert not verified("whsec_" + base64.b64encode(b"x" * 24).decode(), headers, body)
    old = Signer([SECRET]).headers("msg_1", int(time.time()) - 400, body)
    assert not verified(SECRET, old, body)


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A database with one task."""
    opened = Database(Settings(data_dir=tmp_path))
    opened.migrate()
    row = {"id": "task_1", "owner": "", "status": "completed", "created_at": 1.0, "name": "a.wav"}
    row |= {"source": "upload", "options": {}}
    await opened.run(lambda connection: connection.execute(tasks.insert().values(row)))
    yield opened
    opened.close()


@pytest_asyncio.fixture
async def send(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Send]:
    """``await send(url, until="dead")``: a delivery once it is in that state."""
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    running: list[asyncio.Task[None]] = []

    async def do(url: str, until: str, **settings: Any) -> Delivery:
        chosen = Settings(
            data_dir=tmp_path, webhook_secrets=(SecretStr(SECRET),), **{**FAST, **settings}
        )
        hooks = Webhooks(chosen, database, Metrics())
        await database.run(
            lambda c: hooks.queue(c, "task_1", url, "task.completed", {"id": "task_1"})
        )
        running.append(asyncio.create_task(hooks.run()))

        async def look() -> Delivery | None:
            found = (await hooks.of_task("task_1"))[-1]
            return found if found.status == until else None

        delivery: Delivery = await wait_until(look)
        return delivery

    yield do
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def seen(site: Site, calls: int) -> None:
    """Until so many calls have come."""
    await wait_until(lambda: len(site.seen) >= calls)


async def test_a_message_arrives_signed_and_is_noted(send: Send) -> None:
    async with Site({"/hook": b"thanks"}) as site:
        done = await send(f"{site.url}/hook", "delivered")
    assert (done.attempts, done.response_status, done.error) == (1, 200, None)
    ((path, headers),) = site.seen
    assert path == "/hook"
    body = done.payload.encode()
    signed = f"{done.id}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{digest}"
    assert headers["webhook-id"] == done.id
    assert int(headers["content-length"]) == len(body)
    content = json.loads(body)
    assert content["type"] == "task.completed"
    assert content["data"] == {"id": "task_1"}


async def test_a_receiver_that_fails_is_asked_again_and_then_given_up(send: Send) -> None:
    broken = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    async with Site({"/hook": broken}) as site:
        dead = await send(f"{site.url}/hook", "dead", webhook_max_attempts=3)
    assert (dead.attempts, dead.response_status) == (3, 500)
    assert dead.error == "The receiver answered 500."
    assert len(site.seen) == 3
    assert len({headers["webhook-id"] for _, headers in site.seen}) == 1


async def test_a_receiver_that_comes_back_gets_the_message(send: Send) -> None:
    async with Site({"/hook": b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"}) as site:
        waiting = asyncio.create_task(send(f"{site.url}/hook", "delivered"))
        await seen(site, 2)
        site.pages["/hook"] = b"ok"
        done = await waiting
    assert done.attempts == len(site.seen)


async def test_redirects_are_not_followed(send: Send) -> None:
    async with Site({"/hook": redirect("/secret"), "/secret": b"got it"}) as site:
        dead = await send(f"{site.url}/hook", "dead", webhook_max_attempts=1)
    assert dead.response_status == 302
    assert [path for path, _ in site.seen] == ["/hook"]


async def test_private_addresses_are_refused_unless_they_are_listed(send: Send) -> None:
    async with Site({"/hook": b"ok"}) as site:
        dead = await send(
            f"{site.url}/hook", "dead", webhook_allowed_hosts=(), webhook_max_attempts=1
        )
    assert dead.response_status is None
    assert dead.error == "The host '127.0.0.1' is not in the public internet."
    assert site.seen == []


async def test_a_receiver_that_is_gone_for_good_is_not_asked_again(send: Send) -> None:
    async with Site({"/hook": b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"}) as site:
        dead = await send(f"{site.url}/hook", "dead")
    assert dead.attempts == len(site.seen) == 1


async def test_what_is_queued_goes_out_after_a_restart(
    send: Send, database: Database, tmp_path: Path
) -> None:
    async with Site({"/hook": b"ok"}) as site:
        before = Webhooks(Settings(data_dir=tmp_path, **FAST), database, Metrics())
        await database.run(
            lambda c: before.queue(c, "task_1", f"{site.url}/hook", "task.failed", {})
        )
        await send(f"{site.url}/hook", "delivered")
        await seen(site, 2)
        kept = [delivery.event for delivery in await before.of_task("task_1")]
    assert kept == ["task.failed", "task.completed"]


async def test_an_unforeseen_error_does_not_end_the_sending(
    send: Send, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, fails = Webhooks._due, [RuntimeError("nobody foresaw this")]

    async def due(hooks: Webhooks, most: int) -> list[Delivery]:
        if fails:
            raise fails.pop()
        return await real(hooks, most)

    monkeypatch.setattr(Webhooks, "_due", due)
    async with Site({"/hook": b"ok"}) as site:
        await send(f"{site.url}/hook", "delivered")
    assert not fails
    assert "nobody foresaw this" in caplog.text


async def test_a_delivery_is_sent_once_more_under_its_old_id(
    send: Send, database: Database, tmp_path: Path
) -> None:
    async with Site({"/hook": b"ok"}) as site:
        done = await send(f"{site.url}/hook", "delivered")
        hooks = Webhooks(Settings(data_dir=tmp_path, **FAST), database, Metrics())
        again = await hooks.replay("task_1", done.id)
        assert (again.status, again.attempts) == ("pending", 0)
        await seen(site, 2)
    assert {headers["webhook-id"] for _, headers in site.seen} == {done.id}
    with pytest.raises(NotFound):
        await hooks.replay("task_2", done.id)


async def test_a_delivery_that_is_still_tried_is_not_replayed(
    database: Database, tmp_path: Path
) -> None:
    hooks = Webhooks(Settings(data_dir=tmp_path), database, Metrics())
    await database.run(lambda c: hooks.queue(c, "task_1", "http://a.test/", "task.failed", {}))
    (waiting,) = await hooks.of_task("task_1")
    with pytest.raises(Conflict):
        await hooks.replay("task_1", waiting.id)
