"""Records on PostgreSQL and S3, shared by two servers; and databases that are away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from tests.api.conftest import OpenApp, running
from tests.conftest import MakeWav
from tests.waiting import until

from whisper_api.errors import DatabaseUnavailable
from whisper_api.runtime import Runtime
from whisper_api.tasks.durable import WAITING, flow_id


def runtime_of(client: httpx.AsyncClient) -> Runtime:
    found: Runtime = client.app.state.runtime  # type: ignore[attr-defined]
    return found


@pytest.mark.slow
async def test_two_servers_share_history_and_audio(
    tmp_path: Path, make_wav: MakeWav, postgres_url: str, s3_url: str
) -> None:
    shared = {"database_url": postgres_url, "storage_url": s3_url, "enable_history": True}
    shared["model_path"] = "fake:delay=1"
    wav = make_wav({0.5: 7, 1.5: 8}, 3)
    async with (
        running(tmp_path / "a", **shared) as first,
        running(tmp_path / "b", **shared) as second,
    ):
        answer = await first.post("/v1/audio/transcriptions", files={"file": ("встреча.wav", wav)})
        url = f"/v1/history/{answer.headers['x-history-id']}"
        assert (await second.get(url)).json()["text"] == answer.json()["text"]
        part = await second.get(f"{url}/audio", headers={"range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, wav[10:20])
        assert len((await second.get(f"{url}/peaks")).json()["peaks"]) == 150
        await second.patch(url, json={"title": "Совещание"})
        found = (await first.get("/v1/history", params={"q": "совещания"})).json()["data"]
        assert [item["title"] for item in found] == ["Совещание"]
        odd = await first.get("/v1/history", params={"q": "a", "model": "x\0"})
        assert odd.status_code == 400
        assert (await second.delete(url)).status_code == 200
        assert (await first.get(f"{url}/audio")).status_code == 404
        assert list(runtime_of(first).audio.store.listing()) == []
        assert not list((tmp_path / "a").glob("audio/*"))
        await hands_tasks_back_at_once(first, wav)


async def hands_tasks_back_at_once(client: httpx.AsyncClient, wav: bytes) -> None:
    """A server that stops, and may answer requests for a while, keeps no task from others."""
    runtime = runtime_of(client)
    sent = await client.post("/v1/audio/transcriptions/async", files={"file": ("a.wav", wav)})
    ident = sent.json()["id"]
    await until(lambda: runtime.tasks.attempt(ident) is not None)
    await runtime.drain(0)
    await asyncio.sleep(1)  # several looks into its queues, if it still looked
    flow = flow_id(ident, 0)
    found = await asyncio.to_thread(runtime.tasks.node.durable.flows, [flow])
    # It waits; or the other server of this test has it, if it was quick enough.
    mine = found[flow].executor == runtime.tasks.node.name
    assert found[flow].status in WAITING or not mine


async def test_when_the_database_goes_away_the_rest_works_on(
    open_app: OpenApp, make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_app(enable_history=True) as client:
        runtime = runtime_of(client)
        await runtime.preload()
        assert (await client.get("/ready")).status_code == 200
        with monkeypatch.context() as patched:
            gone = sa.create_engine("sqlite:////no/such/folder/x.sqlite", hide_parameters=True)
            patched.setattr(runtime.database, "_engine", gone)
            listed = await client.get("/v1/history")
            assert listed.status_code == 503
            assert listed.json()["error"]["code"] == "database_unavailable"
            assert int(listed.headers["retry-after"]) >= 1
            ready = await client.get("/ready")
            assert ready.status_code == 503
            assert ready.json()["error"]["code"] == "database_unavailable"
            assert (await client.get("/health")).status_code == 200
            wav = make_wav({0.5: 7}, 2)
            answer = await client.post("/v1/audio/transcriptions", files={"file": ("a.wav", wav)})
            assert answer.status_code == 200
            assert "x-history-id" not in answer.headers
        assert (await client.get("/ready")).status_code == 200
        assert (await client.get("/v1/history")).json()["data"] == []


async def test_a_start_waits_for_its_database_and_then_fails(
    open_app: OpenApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr("whisper_api.runtime.DATABASE_WAIT_S", 0.5)
    url = f"postgresql://user:secret@/none?host={tmp_path}"
    with pytest.raises(DatabaseUnavailable):
        async with open_app(database_url=url):
            raise AssertionError("started without a database")
    assert "waiting for the database" in caplog.text
    assert "secret" not in caplog.text


async def test_a_database_file_that_cannot_be_opened_is_not_waited_for(
    open_app: OpenApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseUnavailable):
        async with open_app(database_url=f"sqlite:///{tmp_path}/file/x.sqlite"):
            raise AssertionError("started without a database")
    assert "waiting for the database" not in caplog.text
