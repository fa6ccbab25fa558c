"""Tasks in applications of their own: restarts, limits, keys."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.api.conftest import running
from tests.api.test_task_control import (
    SLOW,
    SUBMIT,
    engine,
    first_window,
    held,
    hurry,
    look,
    parts,
    slow_down,
    submit,
    until,
    wav,
    whole,
)
from tests.waiting import until as wait_until
from tests.webserver import Site

__all__ = ["hurry", "wav"]
pytestmark = pytest.mark.slow


async def test_a_task_that_waits_is_cancelled_before_it_begins(tmp_path: Path, wav: bytes) -> None:
    async with running(tmp_path, **SLOW, task_concurrency=1) as client:
        await parts(client).preload()
        with held(client, 5):
            first, second = await submit(client, wav), await submit(client, wav)
            await until(client, first, progress=10)
            await client.delete(f"/v1/tasks/{second}")
        await until(client, first, status="completed")
        await asyncio.sleep(0.3)
        assert (await look(client, second))["attempts"] == 0


async def test_a_clean_stop_interrupts_a_task_and_the_next_start_goes_on(
    tmp_path: Path, wav: bytes
) -> None:
    async with running(tmp_path, **SLOW) as client:
        await slow_down(client, 9)
        ident = await submit(client, wav)
        await until(client, ident, progress=30)
    assert not list((tmp_path / "scratch").glob("*/request-*"))
    async with running(tmp_path, **SLOW) as client:
        record = await client.app.state.runtime.tasks.store.find(ident)  # type: ignore[attr-defined]
        done = await until(client, ident, status="completed")
        assert whole(done)
        assert first_window(engine(client)) >= record.done >= 6


async def test_settings_that_changed_meanwhile_are_told_and_a_retry_starts_anew(
    tmp_path: Path, wav: bytes
) -> None:
    async with running(tmp_path, **SLOW) as client:
        await slow_down(client, 9)
        ident = await submit(client, wav)
        await until(client, ident, progress=30)
    async with running(tmp_path, **SLOW, norm_level=-3) as client:
        done = await until(client, ident, status="failed")
        assert done["error"]["code"] == "task_stale"
        await client.post(f"/v1/tasks/{ident}/retry")
        assert whole(await until(client, ident, status="completed"))


async def test_too_many_waiting_tasks_are_refused(tmp_path: Path, wav: bytes) -> None:
    async with running(tmp_path, **SLOW, max_pending_tasks=2) as client:
        await slow_down(client)
        for _ in range(2):
            await submit(client, wav)
        full = await client.post(SUBMIT, files={"file": ("a.wav", wav)})
        assert full.status_code == 429
        assert full.json()["error"]["code"] == "overloaded"
        assert len((await client.get("/v1/tasks")).json()["data"]) == 2


async def test_tasks_and_webhooks_belong_to_the_key_that_made_them(
    tmp_path: Path, wav: bytes
) -> None:
    async with Site({"/hook": b"ok"}) as site:
        names = ("ann", "bob")
        keys = [{"name": name, "secret": name} for name in names]
        keys[0]["callback_url"] = f"{site.url}/hook"
        keys.append({"name": "root", "secret": "root", "role": "admin"})
        async with running(tmp_path, **SLOW, keys=keys) as client:
            ann, bob, root = ({"authorization": f"Bearer {n}"} for n in (*names, "root"))
            await slow_down(client)
            answer = await client.post(SUBMIT, files={"file": ("a.wav", wav)}, headers=ann)
            path = f"/v1/tasks/{answer.json()['id']}"
            for method, end in (
                ("GET", ""),
                ("GET", "/result"),
                ("GET", "/events"),
                ("GET", "/deliveries"),
                ("POST", "/retry"),
                ("DELETE", ""),
            ):
                refused = await client.request(method, path + end, headers=bob)
                assert refused.status_code == 404, (method, end)
            assert (await client.get("/v1/tasks", headers=bob)).json()["data"] == []
            assert len((await client.get("/v1/tasks", headers=root)).json()["data"]) == 1
            assert (await client.delete(path, headers=ann)).json()["status"] == "cancelled"
            await wait_until(lambda: site.bodies)
    assert json.loads(site.bodies[0])["type"] == "task.cancelled"
