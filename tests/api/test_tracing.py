"""Spans of real requests through the application, caught in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tests.api.conftest import running
from tests.conftest import MakeWav
from tests.waiting import until

from whisper_api import tracing as module
from whisper_api.api.app import create_app
from whisper_api.config import Settings
from whisper_api.errors import SettingsError
from whisper_api.tracing import OFF, OtelTracing, open_tracing

URL = "/v1/audio/transcriptions"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Traced:
    """An application and what it traced."""

    def __init__(self, client: httpx.AsyncClient, exporter: InMemorySpanExporter) -> None:
        self.client = client
        self._exporter = exporter

    def spans(self, name: str = "") -> list[ReadableSpan]:
        """Finished spans, of one name or all."""
        return [s for s in self._exporter.get_finished_spans() if name in ("", s.name)]


@asynccontextmanager
async def traced(folder: Path, **settings: Any) -> AsyncIterator[Traced]:
    exporter = InMemorySpanExporter()
    tracing = OtelTracing(exporter, SimpleSpanProcessor)
    async with running(folder, tracing, **settings) as client:
        yield Traced(client, exporter)


def ids(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


async def test_a_request_and_its_stages_belong_to_the_callers_trace(
    tmp_path: Path, make_wav: MakeWav
) -> None:
    async with traced(tmp_path, vad=True) as app:
        answer = await app.client.post(
            URL,
            files={"file": ("secret-name.wav", make_wav({0.5: 1}, 2))},
            headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "req_mine"},
        )
        assert answer.status_code == 200
        (server,) = app.spans(f"POST {URL}")
        stages = ["receive", "decode", "vad", "language", "queue", "infer", "format"]
        children = [app.spans(name)[0] for name in [*stages, "engine.decode"] if app.spans(name)]
    assert server.kind is SpanKind.SERVER
    assert server.parent is not None
    assert server.parent.span_id == int(PARENT, 16)
    assert ids(server)[0] == int(TRACE, 16)
    assert server.attributes is not None
    assert server.attributes["whisper.request_id"] == "req_mine"
    assert server.attributes["http.route"] == URL
    assert server.attributes["http.response.status_code"] == 200
    inner = {s.name for s in children if s.parent and s.parent.span_id == ids(server)[1]}
    assert inner >= {"receive", "decode", "vad", "language", "format"}


async def test_a_batch_is_linked_with_the_requests_it_serves(
    tmp_path: Path, make_wav: MakeWav
) -> None:
    async with traced(tmp_path) as app:
        for number in (1, 2):
            wav = make_wav({0.5: number}, 2)
            form = {"language": "en"}
            await app.client.post(URL, files={"file": ("a.wav", wav)}, data=form)
        servers = app.spans(f"POST {URL}")
        calls = [span for span in app.spans("engine.decode") if span.parent is None]
        parts = [span for span in app.spans("engine.decode") if span.parent is not None]
        waits = app.spans("queue")
    assert len(servers) == len(calls) == len(parts) == len(waits) == 2
    assert {ids(s)[0] for s in servers}.isdisjoint({ids(call)[0] for call in calls})
    for server, call, part, wait in zip(servers, calls, parts, waits, strict=True):
        assert [link.context.span_id for link in call.links] == [ids(server)[1]]
        assert [link.context.span_id for link in part.links] == [ids(call)[1]]
        assert part.parent is not None
        assert wait.parent is not None
        assert part.parent.span_id == wait.parent.span_id == ids(server)[1]
        assert call.attributes is not None
        assert call.attributes["whisper.batch.windows"] == 1
        assert wait.end_time == part.start_time


async def test_failures_name_a_code_and_no_words(tmp_path: Path) -> None:
    async with traced(tmp_path) as app:
        junk = {"file": ("secret-name.wav", b"RIFF no audio at all" * 99)}
        answer = await app.client.post(URL, files=junk)
        assert answer.status_code == 400
        await app.client.get("/no/such/path")
        (server,) = app.spans(f"POST {URL}")
        (unknown,) = app.spans("GET other")
    assert server.status.status_code is StatusCode.UNSET  # the caller's fault, not the server's
    assert server.attributes is not None
    assert server.attributes["http.response.status_code"] == 400
    assert unknown.parent is None


async def test_spans_hold_nothing_private(tmp_path: Path, make_wav: MakeWav) -> None:
    async with traced(tmp_path, api_keys=("sk-private",)) as app:
        wav = make_wav({0.5: 4242}, 2)
        headers = {"authorization": "Bearer sk-private"}
        form = {"prompt": "private-prompt", "response_format": "verbose_json"}
        files = {"file": ("private-name.wav", wav)}
        answer = await app.client.post(f"{URL}?private=1", files=files, data=form, headers=headers)
        assert "marker-4242" in answer.text
        body = {"url": "http://private.invalid/a.wav"}
        await app.client.post(f"{URL}/url", json=body, headers=headers)
        everything = "".join(span.to_json() for span in app.spans())
    assert len(everything) > 1000
    for private in ("private", "marker-4242", "a.wav"):
        assert private not in everything


async def test_a_tasks_steps_are_traces_of_their_own(tmp_path: Path, make_wav: MakeWav) -> None:
    async with traced(tmp_path) as app:
        wav = make_wav({0.5: 1}, 2)
        answer = await app.client.post(f"{URL}/async", files={"file": ("a.wav", wav)})
        task = answer.json()["id"]
        async with app.client.stream("GET", f"/v1/tasks/{task}/events") as events:
            async for _ in events.aiter_lines():
                pass
        # The last step tells that the task is done before it has ended itself.
        await until(lambda: app.spans("task.merge"))
        steps = [span for span in app.spans() if span.name.startswith("task.")]
    assert [span.name for span in steps] == ["task.plan", "task.batch", "task.merge"]
    assert all(span.attributes == {"whisper.task_id": task} for span in steps)
    assert all(span.parent is None for span in steps)


async def test_probes_are_not_traced(tmp_path: Path) -> None:
    async with traced(tmp_path) as app:
        await app.client.get("/health")
        assert app.spans() == []


def test_the_standard_variables_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    def service() -> object:
        exporter = InMemorySpanExporter()
        tracing = OtelTracing(exporter, SimpleSpanProcessor)
        with tracing.step("one", {}):
            pass
        return json.loads(exporter.get_finished_spans()[0].to_json())["resource"]["attributes"]

    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    assert "'service.name': 'whisper-api-server'" in str(service())
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    assert "'service.name': 'mine'" in str(service())


def test_the_endpoint_is_a_setting_or_a_standard_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.exporter.otlp.proto.http import trace_exporter

    asked: list[str | None] = []

    class Exporter(InMemorySpanExporter):
        def __init__(self, endpoint: str | None = None) -> None:
            super().__init__()
            asked.append(endpoint)

    monkeypatch.setattr(trace_exporter, "OTLPSpanExporter", Exporter)
    for endpoint in ("http://collector:4318/", None):
        open_tracing(Settings(tracing=True, tracing_endpoint=endpoint)).close()
    assert asked == ["http://collector:4318/v1/traces", None]


def test_tracing_without_its_packages_is_a_settings_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        __import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None
    )
    with pytest.raises(SettingsError, match=r"whisper-api-server\[otel\]"):
        create_app(Settings(engine="fake", model_path="fake", tracing=True))


def test_nothing_is_made_while_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OtelTracing", None)
    assert open_tracing(Settings()) is OFF
    assert OFF.here() is None
    assert OFF.span("a") is OFF.span("b")
