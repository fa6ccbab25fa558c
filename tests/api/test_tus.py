"""tus 1.0 as a client speaks it."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.api.conftest import running

from whisper_api.runtime import Runtime

TUS = {"tus-resumable": "1.0.0"}
BYTES = {"content-type": "application/offset+octet-stream"}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def begin(client: httpx.AsyncClient, length: int, **headers: str) -> str:
    """A new upload's address."""
    answer = await client.post(
        "/v1/uploads", headers={**TUS, "upload-length": str(length), **headers}
    )
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


async def send(
    client: httpx.AsyncClient, url: str, offset: int, data: Any, **headers: str
) -> httpx.Response:
    return await client.patch(
        url, content=data, headers={**TUS, **BYTES, "upload-offset": str(offset), **headers}
    )


async def offset(client: httpx.AsyncClient, url: str) -> int:
    answer = await client.head(url, headers=TUS)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    return int(answer.headers["upload-offset"])


async def test_the_server_says_what_it_speaks(client: httpx.AsyncClient) -> None:
    answer = await client.options("/v1/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert "creation-with-upload" in answer.headers["tus-extension"].split(",")
    assert int(answer.headers["tus-max-size"]) == 2048 * 2**20


async def test_an_upload_comes_in_parts_and_its_offset_is_told(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    meta = f"filename {b64(b'talk.mp3')},filetype {b64(b'audio/mpeg')}"
    url = await begin(client, 10, **{"upload-metadata": meta})
    assert await offset(client, url) == 0
    first = await send(client, url, 0, b"0123")
    assert first.status_code == 204
    assert first.headers["upload-offset"] == "4"
    assert first.headers["tus-resumable"] == "1.0.0"
    assert first.headers["upload-expires"].endswith("GMT")
    assert (await send(client, url, 4, b"456789")).headers["upload-offset"] == "10"
    head = await client.head(url, headers=TUS)
    assert head.headers["upload-length"] == "10"
    assert head.headers["upload-metadata"] == meta
    ident = url.rsplit("/", 1)[1]
    assert runtime.uploads.path(ident).read_bytes() == b"0123456789"


async def test_a_wrong_offset_is_409_and_changes_nothing(client: httpx.AsyncClient) -> None:
    url = await begin(client, 10)
    await send(client, url, 0, b"0123")
    wrong = await send(client, url, 0, b"xxxx")
    assert wrong.status_code == 409
    assert wrong.json()["error"]["code"] == "offset_conflict"
    assert wrong.headers["tus-resumable"] == "1.0.0"
    assert await offset(client, url) == 4


async def test_more_bytes_than_announced_are_refused(client: httpx.AsyncClient) -> None:
    url = await begin(client, 4)
    assert (await send(client, url, 0, b"01234")).status_code == 413
    assert await offset(client, url) == 0


async def test_bytes_that_arrived_before_a_broken_connection_count(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    url = await begin(client, 1_000_000)
    app = client.app  # type: ignore[attr-defined]
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"a" * 600_000, "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def nowhere(message: Any) -> None: ...

    headers = {**TUS, **BYTES, "upload-offset": "0", "host": "localhost"}
    scope = {
        "type": "http",
        "method": "PATCH",
        "path": url,
        "raw_path": url.encode(),
        "query_string": b"",
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
        "scheme": "http",
        "http_version": "1.1",
        "app": app,
    }
    await app(scope, receive, nowhere)
    assert await offset(client, url) == 600_000


async def test_creation_may_carry_the_first_bytes(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/v1/uploads", content=b"0123", headers={**TUS, **BYTES, "upload-length": "10"}
    )
    assert answer.status_code == 201
    assert answer.headers["upload-offset"] == "4"
    assert await offset(client, answer.headers["location"]) == 4


async def test_a_wrong_checksum_is_460_and_drops_its_bytes(client: httpx.AsyncClient) -> None:
    url = await begin(client, 8)
    await send(client, url, 0, b"0123")
    good = b64(hashlib.sha1(b"4567").digest())
    bad = await send(client, url, 4, b"45x7", **{"upload-checksum": f"sha1 {good}"})
    assert bad.status_code == 460
    assert await offset(client, url) == 4
    fine = await send(client, url, 4, b"4567", **{"upload-checksum": f"sha1 {good}"})
    assert fine.status_code == 204
    assert await offset(client, url) == 8


async def test_a_deleted_upload_is_gone(client: httpx.AsyncClient, runtime: Runtime) -> None:
    url = await begin(client, 4)
    ident = url.rsplit("/", 1)[1]
    assert (await client.delete(url, headers=TUS)).status_code == 204
    assert (await client.head(url, headers=TUS)).status_code == 404
    assert not list(runtime.uploads.path(ident).parent.glob(f"{ident}*"))


async def test_clients_that_can_only_post_name_the_method(client: httpx.AsyncClient) -> None:
    url = await begin(client, 4)
    headers = {**TUS, **BYTES, "upload-offset": "0", "x-http-method-override": "PATCH"}
    assert (await client.post(url, content=b"0123", headers=headers)).status_code == 204
    assert (await client.post(url, headers=TUS)).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"upload-length": "4"}, 412, "unsupported_tus_version"),
        ({**TUS}, 400, "invalid_value"),
        ({**TUS, "upload-length": "-1"}, 400, "invalid_value"),
        ({**TUS, "upload-length": str(2**40)}, 413, "file_too_large"),
        ({**TUS, "upload-length": "4", "upload-metadata": "filename %%%"}, 400, "invalid_value"),
    ],
)
async def test_bad_creations_say_what_is_wrong(
    client: httpx.AsyncClient, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await client.post("/v1/uploads", headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.headers["tus-version"] == "1.0.0"


async def test_another_content_type_is_415(client: httpx.AsyncClient) -> None:
    url = await begin(client, 4)
    assert (await send(client, url, 0, b"0123", **{"content-type": "audio/wav"})).status_code == 415


async def test_uploads_survive_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        url = await begin(client, 8)
        await send(client, url, 0, b"0123")
    async with running(tmp_path) as client:
        assert await offset(client, url) == 4
        assert (await send(client, url, 4, b"4567")).headers["upload-offset"] == "8"


async def test_one_caller_cannot_hold_more_uploads_than_the_limit(tmp_path: Path) -> None:
    async with running(tmp_path, max_pending_uploads=2) as client:
        for _ in range(2):
            await begin(client, 4)
        full = await client.post("/v1/uploads", headers={**TUS, "upload-length": "4"})
        assert full.status_code == 429
        assert full.json()["error"]["code"] == "too_many_uploads"
