"""What belongs to one key is not there for another: over every route that takes an id."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.waiting import until

from whisper_api.api.app import create_app
from whisper_api.config import Settings

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEYS = [
    {"name": "ann", "secret": "sk-ann", "role": "admin"},
    {"name": "bob", "secret": "sk-bob"},
    {"name": "cat", "secret": "sk-cat"},
]
NOBODYS = {"model_id", "pull_id", "worker_id"}
"""Ids of what belongs to no key; the routes of pulls and workers are for admins only."""
TUS = {"tus-resumable": "1.0.0"}


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer sk-{name}", **TUS}


def id_routes() -> list[tuple[str, str]]:
    """Method and path of every route that takes an id of something owned."""
    paths: dict[str, Any] = create_app(Settings()).openapi()["paths"]
    return [
        (method.upper(), path)
        for path, methods in paths.items()
        if "{" in path and not any(f"{{{name}}}" in path for name in NOBODYS)
        for method in methods
    ]


async def belongings(client: httpx.AsyncClient, wav: bytes) -> dict[str, str]:
    """What bob has: a task, its record in history, an upload."""
    url = "/v1/audio/transcriptions/async"
    sent = await client.post(url, files={"file": ("a.wav", wav)}, headers=bearer("bob"))
    task = sent.json()["id"]

    async def recorded() -> Any:
        state = (await client.get(f"/v1/tasks/{task}", headers=bearer("bob"))).json()
        return state["status"] == "completed" and state["history_id"]

    record = await until(recorded)
    length = {"upload-length": "5"}
    upload = await client.post("/v1/uploads", headers=bearer("bob") | length)
    ids = {"task_id": task, "id": record, "delivery_id": "1"}
    return ids | {"upload_id": upload.headers["location"].rsplit("/", 1)[1]}


async def test_another_keys_belongings_are_not_there(open_app: Any, make_wav: Any) -> None:
    routes = id_routes()
    assert len(routes) >= 15
    async with open_app(keys=KEYS, enable_history=True) as client:
        ids = await belongings(client, make_wav({0.5: 7}, 1))
        for method, path in routes:
            # A new kind of id needs an entry in ``belongings``.
            place = path.format_map(ids)
            body: dict[str, Any] = {}
            if method in {"PATCH", "POST"}:
                body = {"json": {"title": "mine now"}}
            headers = bearer("cat")
            if "/uploads/" in path and method == "PATCH":
                body = {"content": b"x"}
                headers |= {"content-type": "application/offset+octet-stream"}
                headers |= {"upload-offset": "0"}
            answer = await client.request(method, place, headers=headers, **body)
            assert answer.status_code == 404, (method, path, answer.text)
        for path in ("/v1/tasks", "/v1/history"):
            assert (await client.get(path, headers=bearer("cat"))).json()["data"] == []
            assert (await client.get(path, headers=bearer("bob"))).json()["data"]
        # Nothing was changed, and its owner and an admin see it.
        for name in ("bob", "ann"):
            for path in ("/v1/tasks/{task_id}", "/v1/history/{id}"):
                found = await client.get(path.format_map(ids), headers=bearer(name))
                assert found.status_code == 200, path
            upload = await client.head(f"/v1/uploads/{ids['upload_id']}", headers=bearer(name))
            assert upload.headers["upload-offset"] == "0"


async def test_ids_in_bodies_and_queries_are_looked_at_too(open_app: Any, make_wav: Any) -> None:
    async with open_app(keys=KEYS, enable_history=True) as client:
        ids = await belongings(client, make_wav({0.5: 7}, 1))
        body = {"audio_id": ids["upload_id"]}
        url = "/v1/audio/transcriptions/async"
        assert (await client.post(url, json=body, headers=bearer("cat"))).status_code == 404
        export = {"ids": ids["id"], "response_format": "text"}
        answer = await client.get("/v1/history/export", params=export, headers=bearer("cat"))
        assert answer.status_code == 404
