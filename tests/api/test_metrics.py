"""What ``/metrics`` says of requests that guards refused, and that its labels stay few."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

import httpx
from tests.api.conftest import OpenApp
from tests.conftest import MakeWav

URL = "/v1/audio/transcriptions"
KEY = {"authorization": "Bearer sk-one"}


async def counted(client: httpx.AsyncClient) -> Counter[tuple[str, str]]:
    """(route, status) -> requests."""
    text = (await client.get("/metrics", headers=KEY)).text
    found = re.findall(r'whisper_requests_total\{route="([^"]+)",status="(\d+)"\} (\S+)', text)
    return Counter({(route, status): round(float(count)) for route, status, count in found})


async def test_a_request_without_a_key_counts_under_its_route(open_app: OpenApp) -> None:
    async with open_app(api_keys=("sk-one", "sk-two")) as client:
        await client.post(URL)
        await client.get("/v1/tasks/task_1")
        await client.delete("/v1/history/rec_1")
        found = await counted(client)
    assert found[URL, "401"] == 1
    assert found["/v1/tasks/{task_id}", "401"] == 1
    assert sum(count for (route, _), count in found.items() if route == "other") == 0


async def test_a_page_of_another_site_counts_under_its_route(open_app: OpenApp) -> None:
    async with open_app() as client:
        answer = await client.get("/v1/history", headers={"sec-fetch-site": "cross-site"})
        assert answer.status_code == 403
        assert (await counted(client))["/v1/history", "403"] == 1


async def test_a_large_body_counts_under_its_route(open_app: OpenApp) -> None:
    async with open_app(file_validation={"max_file_size_mb": 1}) as client:
        answer = await client.post(URL, files={"file": ("a.wav", bytes(3 << 20))})
        assert answer.status_code == 413
        assert (await counted(client))[URL, "413"] == 1


async def test_a_caller_over_its_limit_counts_under_its_route(
    open_app: OpenApp, make_wav: MakeWav
) -> None:
    async with open_app(requests_per_minute=1) as client:
        for _ in range(3):
            await client.post(URL, files={"file": ("a.wav", make_wav({0.5: 1}, 2))})
        found = await counted(client)
    assert found[URL, "200"] == 1
    assert found[URL, "429"] == 2


async def test_a_request_to_a_stopping_server_counts_under_its_route(open_app: OpenApp) -> None:
    async with open_app() as client:
        client.app.state.runtime.scheduler.stop_admitting()  # type: ignore[attr-defined]
        await client.post(f"{URL}/url", json={"url": "http://127.0.0.1/a.wav"})
        assert (await counted(client))[f"{URL}/url", "503"] == 1


async def test_a_wrong_method_counts_under_its_route(open_app: OpenApp) -> None:
    async with open_app() as client:
        assert (await client.patch("/v1/tasks/task_1")).status_code == 405
        found = await counted(client)
        failures = (await client.get("/metrics")).text
    assert found["/v1/tasks/{task_id}", "405"] == 1
    assert 'whisper_failures_total{code="method_not_allowed"} 1.0' in failures


async def test_strange_paths_make_no_labels(open_app: OpenApp) -> None:
    async with open_app() as client:
        paths = [f"/strange/{n}" for n in range(20)] + [f"/v1/tasks/{n}" for n in range(20)]
        paths += [f"/web/{n}" for n in range(20)] + [f"/v1/models/a/{n}" for n in range(20)]
        await asyncio.gather(*(client.get(path) for path in paths))
        found = await counted(client)
    assert found["other", "404"] == 20
    assert found["/v1/tasks/{task_id}", "404"] == 20
    assert found["/web", "404"] == 20
    assert len({route for route, _ in found}) <= 5
