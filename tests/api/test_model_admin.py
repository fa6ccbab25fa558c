"""Models over HTTP: pulled with progress, loaded, unloaded, removed; by admins only."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.api.test_transcriptions import URL, problem
from tests.hub import Hub, serve_hub
from tests.waiting import PATIENCE_S, until

from whisper_api.api.system import package_folder
from whisper_api.errors import Conflict, ModelNotFound, NotFound
from whisper_api.pulls import Pulls

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAME = "acme/whisper"
KEYS = [
    {"name": "ann", "secret": "sk-ann", "role": "admin"},
    {"name": "bob", "secret": "sk-bob"},
]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        hub.repositories[NAME] = package_folder("assets") / "bundled"
        yield hub


async def ended(client: httpx.AsyncClient, where: str) -> Any:
    """A pull once it has ended."""

    async def look() -> Any:
        pull = (await client.get(where)).json()
        return pull if pull["status"] not in {"pending", "running"} else None

    return await until(look)


async def test_a_model_comes_is_used_and_goes(open_app: Any, hub: Hub, make_wav: Any) -> None:
    async with open_app() as client:
        answer = await client.post("/v1/models/pull", json={"model": NAME})
        assert answer.status_code == 202
        where = answer.headers["location"]
        assert where == f"/v1/models/pulls/{answer.json()['id']}"
        pull = await ended(client, where)
        assert pull["status"] == "completed"
        assert pull["progress"] == 100
        assert pull["total_bytes"] > 1_000_000
        assert (await client.get("/v1/models/pulls")).json()["data"] == [pull]
        assert problem(await client.delete(where))["code"] == "conflict"
        listed = {model["id"] for model in (await client.get("/v1/models")).json()["data"]}
        assert NAME in listed

        loaded = await client.post("/v1/models/load", json={"model": NAME})
        assert loaded.json()["status"] == "loaded"
        assert loaded.json()["size_bytes"] > 1_000_000
        in_memory = (await client.get("/v1/models/loaded")).json()["data"]
        assert NAME in {model["id"] for model in in_memory}
        form = {"model": NAME}
        said = await client.post(URL, files={"file": make_wav({0.5: 3}, 1)}, data=form)
        assert said.json()["model"] == NAME

        gone = await client.post("/v1/models/unload", json={"model": NAME})
        assert gone.json() == {"id": NAME, "object": "model", "status": "unloaded"}
        assert problem(await client.post("/v1/models/unload", json={"model": NAME}))
        removed = await client.delete(f"/v1/models/{NAME}")
        assert removed.json() == {"id": NAME, "object": "model", "deleted": True}
        assert (await client.get(f"/v1/models/{NAME}")).status_code == 404
        assert (await client.delete(f"/v1/models/{NAME}")).status_code == 404


async def test_a_streamed_pull_tells_its_progress(open_app: Any, hub: Hub) -> None:
    async with open_app() as client:
        body = {"model": NAME, "stream": True}
        answer = await client.post("/v1/models/pull", json=body)
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [line[6:] for line in answer.text.split("\r\n") if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        states = [json.loads(event) for event in events[:-1]]
        assert states[-1]["status"] == "completed"
        progress = [state["progress"] for state in states]
        assert progress == sorted(progress)


async def test_a_pull_that_fails_says_why(open_app: Any, hub: Hub) -> None:
    async with open_app() as client:
        answer = await client.post("/v1/models/pull", json={"model": "acme/none"})
        pull = await ended(client, answer.headers["location"])
        assert pull["status"] == "failed"
        assert pull["error"]["code"] == "model_not_found"
        for body in ({"model": "../etc"}, {"model": 5}, {}, {"model": NAME, "revision": 7}):
            answer = await client.post("/v1/models/pull", json=body)
            assert answer.status_code in {400, 404}, body
        assert (await client.get("/v1/models/pulls/nope")).status_code == 404


async def test_the_default_stays_and_models_in_use_stay(open_app: Any, make_wav: Any) -> None:
    async with open_app() as client:
        assert (await client.delete("/v1/models/fake")).status_code == 409
        gate = threading.Event()
        async with client.app.state.runtime.pool.lease() as engine:
            engine.on_decode = lambda items: gate.wait(PATIENCE_S)
        request = client.post(URL, files={"file": make_wav({0.5: 3}, 1)})
        running = asyncio.ensure_future(request)
        scheduler = client.app.state.runtime.scheduler
        await until(lambda: scheduler.state().running_batches > 0)
        answer = await client.post("/v1/models/unload", json={"model": "whisper-1"})
        assert answer.status_code == 409
        gate.set()
        assert (await running).json()["text"] == "marker-0003"


async def test_only_admins_manage_models(open_app: Any) -> None:
    calls = [
        ("POST", "/v1/models/pull"),
        ("POST", "/v1/models/load"),
        ("POST", "/v1/models/unload"),
        ("GET", "/v1/models/loaded"),
        ("GET", "/v1/models/pulls"),
        ("GET", "/v1/models/pulls/x"),
        ("DELETE", "/v1/models/pulls/x"),
        ("DELETE", "/v1/models/bundled"),
    ]
    async with open_app(keys=KEYS) as client:
        for method, path in calls:
            refused = await client.request(method, path, headers={"authorization": "Bearer sk-bob"})
            assert refused.status_code == 403, path
            error = problem(refused)
            assert error["type"] == "invalid_request_error"
            assert "insufficient permissions" in error["message"]
            let_in = await client.request(method, path, headers={"authorization": "Bearer sk-ann"})
            assert let_in.status_code != 403, path


async def test_only_allowed_models_are_offered(open_app: Any) -> None:
    async with open_app(allowed_models=("large-v3",)) as client:
        listed = {model["id"] for model in (await client.get("/v1/models")).json()["data"]}
        assert "fake" in listed
        assert "bundled" not in listed
        answer = await client.get("/v1/models/bundled")
        assert answer.status_code == 404
        assert "not offered" in problem(answer)["message"]


async def test_a_server_without_an_engine_sends_admins_to_its_workers(
    open_app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Which database it has does not matter here.
    monkeypatch.setattr("whisper_api.runtime.check_role", lambda settings, role: None)
    async with open_app(local_engine=False) as client:
        body = {"model": "fake"}
        for place in ("pull", "load", "unload"):
            answer = await client.post(f"/v1/models/{place}", json=body)
            assert (answer.status_code, problem(answer)["code"]) == (409, "no_engine")
        assert problem(await client.delete("/v1/models/fake"))["code"] == "no_engine"
        assert (await client.get("/v1/models/loaded")).json()["data"] == []


class SlowStore:
    """Pulls until it is let go on."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.pulled: list[str] = []

    def pull(self, name: str, progress: Callable[[int, int], None], revision: str | None) -> None:
        progress(1, 10)
        assert self.go_on.wait(PATIENCE_S)
        progress(5, 10)
        self.pulled.append(name)


async def test_pulls_run_one_after_the_other_and_can_be_stopped() -> None:
    slow: Any = SlowStore()
    pulls = Pulls(slow)
    first, second, third = pulls.start("a"), pulls.start("b"), pulls.start("c")
    assert pulls.start("a") is first
    await until(lambda: first.done == 1)
    assert second.status == "pending"
    pulls.cancel(first.id)
    pulls.cancel(second.id)
    slow.go_on.set()
    await until(lambda: third.ended)
    assert [pull.status for pull in pulls.all()] == ["completed", "cancelled", "cancelled"]
    assert slow.pulled == ["c"]
    with pytest.raises(Conflict):
        pulls.cancel(third.id)
    with pytest.raises(NotFound):
        pulls.get("pull_0")
    with pytest.raises(ModelNotFound):
        pulls.start("../up")
    await pulls.close()


async def test_the_end_of_the_server_does_not_wait_for_the_hub() -> None:
    slow: Any = SlowStore()
    pulls = Pulls(slow)
    pull = pulls.start("a")
    await until(lambda: pull.done == 1)
    await asyncio.wait_for(pulls.close(), PATIENCE_S / 2)
    assert pull.status == "cancelled"
    slow.go_on.set()
