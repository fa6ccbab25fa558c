"""Durable tasks over HTTP, in one application of their own: DBOS is one for each process."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.api.conftest import running
from tests.conftest import MakeWav
from tests.waiting import until

from whisper_api.api import tasks as module
from whisper_api.tasks.service import Tasks

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUBMIT = "/v1/audio/transcriptions/async"
TUS = {"tus-resumable": "1.0.0"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that runs tasks."""
    folder = tmp_path_factory.mktemp("tasks")
    local = folder / "local"
    local.mkdir()
    settings: dict[str, Any] = {"allowed_directories": (local,), "task_checkpoint_s": 0.05}
    async with running(folder / "data", **settings) as client:
        yield client


def service(client: httpx.AsyncClient) -> Tasks:
    found: Tasks = client.app.state.runtime.tasks  # type: ignore[attr-defined]
    return found


async def submit(client: httpx.AsyncClient, wav: bytes, **fields: Any) -> dict[str, Any]:
    answer = await client.post(SUBMIT, files={"file": ("talk.wav", wav)}, data=fields)
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/tasks/{body['id']}"
    return body


async def ended(client: httpx.AsyncClient, ident: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        body: dict[str, Any] = (await client.get(f"/v1/tasks/{ident}")).json()
        return body if body["finished_at"] is not None else None

    found: dict[str, Any] = await until(look)
    return found


async def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


async def test_a_task_is_accepted_done_and_answers_in_any_format(
    app: httpx.AsyncClient, make_wav: MakeWav
) -> None:
    wav = make_wav({0.5: 7, 2.0: 8}, 3)
    body = await submit(app, wav, response_format="srt")
    assert body["object"] == "task"
    assert body["task_id"] == body["id"]
    assert body["status"] == "pending"
    assert body["name"] == "talk.wav"
    done = await ended(app, body["id"])
    assert done["status"] == "completed"
    assert done["progress"] == 100
    assert done["processed_seconds"] == done["duration_seconds"] == 3
    assert done["attempts"] == 1
    assert done["error"] is None
    assert done["options"]["response_format"] == "srt"
    assert done["result"].startswith("1\n00:00:00,5")
    direct = await app.post(
        "/v1/audio/transcriptions",
        files={"file": ("talk.wav", wav)},
        data={"response_format": "verbose_json"},
    )
    later = await app.get(f"/v1/tasks/{body['id']}/result?response_format=verbose_json")
    assert later.json() == direct.json()
    text = await app.get(f"/v1/tasks/{body['id']}/result", params={"response_format": "text"})
    assert text.text == "marker-0007 marker-0008\n"
    assert text.headers["content-type"].startswith("text/plain")
    wrong = await app.get(f"/v1/tasks/{body['id']}/result?response_format=docx")
    assert wrong.status_code == 400
    record = (await app.get(f"/v1/history/{done['history_id']}")).json()
    stages = ("decode", "speech", "recognise")
    assert all(record["timings"][f"{stage}_seconds"] >= 0 for stage in stages)


async def test_a_task_comes_from_json_in_every_way(
    app: httpx.AsyncClient, make_wav: MakeWav
) -> None:
    wav = make_wav({0.5: 11}, 1)
    local = app.app.state.settings.allowed_directories[0]  # type: ignore[attr-defined]
    (local / "here.wav").write_bytes(wav)
    head = {**TUS, "upload-length": str(len(wav))}
    begun = await app.post("/v1/uploads", headers=head)
    ident = begun.headers["location"].rsplit("/", 1)[1]
    part = {**TUS, "upload-offset": "0", "content-type": "application/offset+octet-stream"}
    early = await app.post(SUBMIT, json={"audio_id": ident})
    assert early.status_code == 409
    assert await code(early) == "upload_incomplete"
    await app.patch(begun.headers["location"], content=wav, headers=part)
    sources: list[dict[str, str]] = [
        {"file": base64.b64encode(wav).decode()},
        {"file_path": str(local / "here.wav")},
        {"audio_id": ident},
    ]
    for source in sources:
        answer = await app.post(SUBMIT, json={**source, "response_format": "text"})
        assert answer.status_code == 202, answer.text
        done = await ended(app, answer.json()["id"])
        assert done["result"] == "marker-0011\n", source


@pytest.mark.parametrize(
    ("body", "status", "wanted"),
    [
        ({}, 400, "missing_field"),
        ({"url": "http://a/", "audio_id": "x"}, 400, "missing_field"),
        ({"file": "%%%"}, 400, "invalid_base64"),
        ({"audio_id": "upload_" + "0" * 32}, 404, "not_found"),
        ({"audio_id": "audio_none"}, 404, "not_found"),
        ({"url": "http://127.0.0.1/a.wav"}, 400, "url_refused"),
        ({"audio_id": "audio_none", "temperature": 9}, 400, "invalid_value"),
        ({"audio_id": "audio_none", "task": "sing"}, 400, "invalid_value"),
        ({"audio_id": "audio_none", "callback_url": "ftp://a/"}, 400, "url_refused"),
        ({"audio_id": "audio_none", "stream": True}, 400, "invalid_value"),
    ],
)
async def test_bad_submissions_are_refused_and_leave_nothing(
    app: httpx.AsyncClient, body: dict[str, Any], status: int, wanted: str
) -> None:
    before = (await app.get("/v1/tasks?limit=100")).json()["data"]
    answer = await app.post(SUBMIT, json=body)
    assert answer.status_code == status, answer.text
    assert await code(answer) == wanted
    assert (await app.get("/v1/tasks?limit=100")).json()["data"] == before


async def test_half_a_character_in_a_text_does_no_harm(
    app: httpx.AsyncClient, make_wav: MakeWav
) -> None:
    """What is left of an emoji that a JavaScript program has cut in two."""
    wav = base64.b64encode(make_wav({0.5: 7}, 1)).decode()
    body = {"file": wav, "prompt": "hi \ud83d", "keywords": ["k\udc00"], "language": "en"}
    json_kind = {"content-type": "application/json"}
    answer = await app.post(SUBMIT, content=json.dumps(body).encode(), headers=json_kind)
    assert answer.status_code == 202, answer.text
    form = {"keywords": '["k\\ud83d"]', "language": "en"}
    other = await submit(app, make_wav({0.5: 7}, 1), **form)
    for ident in (answer.json()["id"], other["id"]):
        assert (await ended(app, ident))["status"] == "completed"
    assert (await app.get("/v1/tasks")).status_code == 200
    for name in ("url", "file_path", "audio_id", "callback_url"):
        body = {"audio_id": "audio_none", name: "http://a\ud83d/"}
        if name in ("url", "file_path"):
            del body["audio_id"]
        wrong = await app.post(SUBMIT, content=json.dumps(body).encode(), headers=json_kind)
        assert 400 <= wrong.status_code < 500, (name, wrong.text)


async def test_long_results_are_written_off_the_event_loop(
    app: httpx.AsyncClient, make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await submit(app, make_wav({0.5: 7}, 1), response_format="verbose_json")
    assert (await ended(app, made["id"]))["status"] == "completed"
    threads = []

    def watched(name: str) -> None:
        real = getattr(module, name)

        def call(*args: Any) -> Any:
            threads.append((name, threading.current_thread() is threading.main_thread()))
            return real(*args)

        monkeypatch.setattr(module, name, call)

    for name in ("render", "with_result"):
        watched(name)
    whole = (await app.get(f"/v1/tasks/{made['id']}")).json()
    alone = (await app.get(f"/v1/tasks/{made['id']}/result")).json()
    assert whole["result"] == alone
    assert threads == [("render", False), ("with_result", False), ("render", False)]


async def test_tasks_are_listed_in_pages_and_by_status(
    app: httpx.AsyncClient, make_wav: MakeWav
) -> None:
    made = [(await submit(app, make_wav({0.5: n}, 1)))["id"] for n in range(3)]
    for ident in made:
        await ended(app, ident)
    first = (await app.get("/v1/tasks?limit=2")).json()
    assert [task["id"] for task in first["data"]] == made[:0:-1]
    assert first["has_more"] is True
    assert (first["first_id"], first["last_id"]) == (made[2], made[1])
    second = (await app.get(f"/v1/tasks?limit=1&after={first['last_id']}")).json()
    assert [task["id"] for task in second["data"]] == [made[0]]
    oldest = (await app.get("/v1/tasks?order=asc&limit=100")).json()["data"]
    assert [task["id"] for task in oldest][-3:] == made
    none = (await app.get("/v1/tasks?status=pending&status=running")).json()
    assert none == {
        "object": "list",
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }
    assert (await app.get("/v1/tasks?status=lost")).status_code == 400
    assert (await app.get("/v1/tasks?after=task_none")).status_code == 404


async def test_a_finished_task_is_removed_and_then_unknown(
    app: httpx.AsyncClient, make_wav: MakeWav
) -> None:
    ident = (await submit(app, make_wav({0.5: 1}, 1)))["id"]
    await ended(app, ident)
    assert (await app.delete(f"/v1/tasks/{ident}")).json()["status"] == "completed"
    for path in ("", "/result", "/events", "/deliveries"):
        answer = await app.get(f"/v1/tasks/{ident}{path}")
        assert answer.status_code == 404
        assert await code(answer) == "not_found"


async def events(client: httpx.AsyncClient, ident: str, **headers: str) -> list[dict[str, Any]]:
    """The whole stream of a task's events."""
    answer = await client.get(f"/v1/tasks/{ident}/events", headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.text.split("\r\n\r\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\r\n") if ": " in line)
        if "event" in lines:
            data = json.loads(lines["data"])
            found.append({"id": int(lines["id"]), "event": lines["event"], "data": data})
    return found


async def test_events_tell_everything_in_order_and_go_on_after_the_last_one_seen(
    app: httpx.AsyncClient, make_wav: MakeWav
) -> None:
    wav = make_wav({4.0 * n + 1: n for n in range(6)}, 24)
    ident = (
        await submit(
            app,
            wav,
            chunk_length_s="4",
            response_format="verbose_json",
            **{"timestamp_granularities[]": "word"},
        )
    )["id"]
    seen = await events(app, ident)
    ids = [event["id"] for event in seen]
    assert ids == sorted(set(ids))
    segments = [event["data"] for event in seen if event["event"] == "segment"]
    assert [segment["id"] for segment in segments] == list(range(6))
    assert segments[3]["text"] == " marker-0003"
    assert segments[3]["words"][0]["word"] == "marker-0003"
    assert seen[-1]["event"] == "status"
    assert seen[-1]["data"]["status"] == "completed"
    progress = [e["data"]["processed_seconds"] for e in seen if e["event"] == "progress"]
    assert progress == sorted(progress)
    assert progress[-1] == 24
    cut = next(e["id"] for e in seen if e["event"] == "segment" and e["data"]["id"] == 3)
    rest = await events(app, ident, **{"last-event-id": str(cut)})
    assert [e["data"]["id"] for e in rest if e["event"] == "segment"] == [4, 5]
    assert min(e["id"] for e in rest) > cut
    assert rest[-1]["data"]["status"] == "completed"
    for strange in ("9" * 16, "9" * 5000):  # no id of ours: from the start
        again = await events(app, ident, **{"last-event-id": strange})
        assert [e["data"]["id"] for e in again if e["event"] == "segment"] == list(range(6))


async def test_a_broken_file_ends_its_task_with_the_same_error_as_the_direct_way(
    app: httpx.AsyncClient, make_wav: MakeWav
) -> None:
    wav = make_wav({}, 0.05)
    direct = await app.post("/v1/audio/transcriptions", files={"file": ("a.wav", wav)})
    done = await ended(app, (await submit(app, wav))["id"])
    assert done["status"] == "failed"
    assert done["error"] == direct.json()["error"]
    assert (await app.get(f"/v1/tasks/{done['id']}/result")).status_code == 409


async def test_silence_is_a_task_with_an_empty_text(
    app: httpx.AsyncClient, make_wav: MakeWav
) -> None:
    body = await submit(app, make_wav({}, 2), vad_filter="true", response_format="text")
    done = await ended(app, body["id"])
    assert (done["status"], done["result"]) == ("completed", "\n")


async def test_a_tasks_audio_is_played_and_drawn_while_it_lives(
    app: httpx.AsyncClient, make_wav: MakeWav
) -> None:
    wav = make_wav({0.5: 5}, 2)
    ident = (await submit(app, wav))["id"]
    part = await app.get(f"/v1/tasks/{ident}/audio", headers={"range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, wav[:4])
    assert (await app.get(f"/v1/tasks/{ident}/audio")).content == wav
    await ended(app, ident)
    drawn = (await app.get(f"/v1/tasks/{ident}/peaks")).json()
    assert drawn["duration"] == 2
    assert max(drawn["peaks"]) > 0.1
    assert (await app.get("/v1/tasks/task_none/audio")).status_code == 404
    assert (await app.get("/v1/tasks/task_none/peaks")).status_code == 404
