"""What a server says of those that share its tasks."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from tests.api.conftest import OpenApp
from tests.conftest import MakeWav

from whisper_api.api.worker_app import create_worker_app
from whisper_api.config import Settings
from whisper_api.errors import SettingsError
from whisper_api.models import RemoteModels
from whisper_api.runtime import Runtime, open_runtime


async def test_a_server_of_its_own_lists_itself_and_is_not_drained(
    client: httpx.AsyncClient,
) -> None:
    found = (await client.get("/v1/workers")).json()["data"]
    assert [(row["role"], row["state"]) for row in found] == [("all", "ready")]
    refused = await client.post(f"/v1/workers/{found[0]['id']}/drain")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "not_shared")


async def test_workers_are_for_admins_and_everybody_sees_the_shared_queue(
    open_app: OpenApp,
) -> None:
    keys = [
        {"name": "boss", "secret": "sk-boss-0123456789abcdef", "role": "admin"},
        {"name": "user", "secret": "sk-user-0123456789abcdef"},
    ]
    async with open_app(keys=keys) as client:
        user = {"authorization": "Bearer sk-user-0123456789abcdef"}
        boss = {"authorization": "Bearer sk-boss-0123456789abcdef"}
        for method, path in (("GET", "/v1/workers"), ("POST", "/v1/workers/x/drain")):
            assert (await client.request(method, path, headers=user)).status_code == 403
        assert (await client.get("/v1/workers", headers=boss)).status_code == 200
        shared = (await client.get("/v1/queue", headers=user)).json()["cluster"]
        assert shared["workers"] == {"ready": 1, "draining": 0, "away": 0}
        assert shared["backlog_seconds"] == 0


async def test_the_scaling_signal_counts_tasks_that_wait(
    open_app: OpenApp, make_wav: MakeWav
) -> None:
    async with open_app(model_path="fake:delay=5", task_takeover_s=1) as client:
        wav = make_wav({0.5: 1}, 20)
        sent = await client.post("/v1/audio/transcriptions/async", files={"file": ("a.wav", wav)})
        assert sent.status_code == 202
        await client.get("/v1/workers")  # looks anew
        text = (await client.get("/metrics")).text
        families = {family.name: family for family in text_string_to_metric_families(text)}
        queued = families["whisper_cluster_queued_seconds"].samples
        assert {sample.labels["lane"]: sample.value for sample in queued}["task"] == 20
        speed = families["whisper_cluster_speed"].samples[0].value
        backlog = families["whisper_cluster_backlog_seconds"].samples[0].value
        assert backlog == pytest.approx(20 / speed)


async def test_a_workers_figures_are_for_who_has_a_key_as_the_servers_are(tmp_path: Path) -> None:
    key = "sk-boss-0123456789abcdef"
    cross, bearer = {"sec-fetch-site": "cross-site"}, {"authorization": f"Bearer {key}"}
    wrong, elsewhere = {"authorization": "Bearer wrong"}, {"host": "evil.example"}
    cases: dict[tuple[SecretStr, ...], list[tuple[dict[str, str], list[int]]]] = {
        (): [({}, [200, 200]), (cross, [200, 403]), (elsewhere, [400, 400])],
        (SecretStr(key),): [({}, [200, 401]), (wrong, [200, 401]), (bearer, [200, 200])],
    }
    chosen = Settings(data_dir=tmp_path, engine="fake", model_path="fake")
    async with open_runtime(chosen) as runtime:
        for keys, asked in cases.items():
            app = create_worker_app(chosen.model_copy(update={"api_keys": keys}))
            app.state.runtime = runtime
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                for headers, statuses in asked:
                    for path, status in zip(("/health", "/metrics"), statuses, strict=True):
                        answer = await http.get(path, headers=headers)
                        assert answer.status_code == status
                        assert answer.headers["x-request-id"]
                        assert status == 200 or answer.json()["error"]["message"]


async def test_an_api_node_says_that_no_worker_has_its_model(
    open_app: OpenApp, make_wav: MakeWav
) -> None:
    async with open_app() as client:
        runtime: Runtime = client.app.state.runtime  # type: ignore[attr-defined]
        runtime.ready = True  # as without an engine from the start
        assert (await client.get("/ready")).status_code == 200
        remote = RemoteModels(runtime.settings)
        remote.offered = lambda: {"medium"}
        runtime.store = remote
        files = {"file": ("a.wav", make_wav({0.5: 1}, 1))}
        answers = [await client.get("/ready")]
        for path in ("/v1/audio/transcriptions", "/v1/audio/transcriptions/async"):
            answers.append(await client.post(path, files=files))
        for answer in answers:
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "5"
            error = answer.json()["error"]
            assert error["code"] == "model_unavailable"
            assert "'fake'" in error["message"]
        assert answers[0].json()["status"] == "failed"


async def test_a_worker_without_a_shared_database_does_not_start(tmp_path: Path) -> None:
    app = create_worker_app(Settings(data_dir=tmp_path, engine="fake", model_path="fake"))
    with pytest.raises(SettingsError, match="database_url"):
        async with app.router.lifespan_context(app):
            raise AssertionError("started alone")
