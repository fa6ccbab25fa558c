"""Streaming: frames, deltas that add up, errors, keep-alives, callers who leave."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest
from starlette.requests import ClientDisconnect
from tests.api.test_transcriptions import URL, leftovers, problem
from tests.conftest import MakeWav

from whisper_api.api import sse
from whisper_api.api.options import Fields, parse_request
from whisper_api.config import Settings
from whisper_api.pipeline import Update
from whisper_api.types import Segment, Transcript

pytestmark = pytest.mark.asyncio(loop_scope="session")


def events(raw: bytes) -> list[dict[str, Any]]:
    """The events of a stream whose framing is exactly right."""
    assert raw.endswith(b"\r\n\r\n")
    frames = raw.decode().split("\r\n\r\n")[:-1]
    assert all(frame.startswith("data: ") or frame.startswith(":") for frame in frames)
    assert not any("\n" in frame for frame in frames)
    data = [frame[6:] for frame in frames if frame.startswith("data: ")]
    assert data[-1] == "[DONE]" or "error" in json.loads(data[-1])
    return [json.loads(text) for text in data if text != "[DONE]"]


async def stream(client: httpx.AsyncClient, wav: bytes, **data: Any) -> list[dict[str, Any]]:
    answer = await client.post(URL, files={"file": ("a.wav", wav)}, data={"stream": "true", **data})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    return events(answer.content)


@pytest.fixture(scope="module")
def wav(make_wav: MakeWav) -> bytes:
    return make_wav({1.0: 42, 40.0: 43, 70.0: 44}, 80)


@pytest.mark.parametrize("shape", ["json", "text", "verbose_json", "srt", "vtt"])
async def test_deltas_add_up_in_every_format(
    client: httpx.AsyncClient, wav: bytes, shape: str
) -> None:
    *deltas, done = await stream(client, wav, response_format=shape)
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert done["type"] == "transcript.text.done"
    assert "".join(event["delta"] for event in deltas) == done["text"]
    assert "usage" not in done
    plain = await client.post(URL, files={"file": ("a.wav", wav)}, data={"response_format": shape})
    if shape in ("srt", "vtt"):
        assert done["text"] == plain.text
    elif shape == "text":
        assert done["text"] + "\n" == plain.text
    else:
        assert done["text"] == plain.json()["text"]
    if shape == "verbose_json":
        assert done["segments"] == plain.json()["segments"]
        assert [s for event in deltas for s in event["segments"]] == done["segments"]


async def test_first_delta_has_no_leading_space(client: httpx.AsyncClient, wav: bytes) -> None:
    first, second, *_ = await stream(client, wav)
    assert first["delta"] == "marker-0042"
    assert second["delta"] == " marker-0043"


async def test_logprobs_go_with_their_deltas(client: httpx.AsyncClient, wav: bytes) -> None:
    *deltas, done = await stream(client, wav, **{"include[]": "logprobs"})
    assert [entry["token"] for entry in deltas[0]["logprobs"]] == [" marker", "-0042"]
    assert len(done["logprobs"]) == 6


async def test_silence_streams_an_empty_done(client: httpx.AsyncClient, make_wav: MakeWav) -> None:
    found = await stream(client, make_wav({}, 2))
    assert [event["type"] for event in found] == ["transcript.text.done"]
    assert found[0]["text"] == ""
    *cues, done = await stream(client, make_wav({}, 2), response_format="vtt")
    assert "".join(cue["delta"] for cue in cues) == done["text"] == "WEBVTT\n\n"


async def test_early_errors_have_a_status(client: httpx.AsyncClient, wav: bytes) -> None:
    answer = await client.post(URL, files={"file": ("a.wav", b"no")}, data={"stream": "true"})
    assert answer.status_code == 400
    problem(answer)


async def test_late_errors_come_as_one_frame(open_app: Any, wav: bytes) -> None:
    settings = {"model_path": "fake:fail_on=2", "batch_size": 1}
    async with open_app(**settings) as client:
        found = await stream(client, wav, language="en")
    assert [event.get("type") for event in found[:-1]] == ["transcript.text.delta"]
    assert set(found[-1]["error"]) == {"message", "type", "param", "code"}
    assert found[-1]["error"]["type"] == "server_error"


async def test_slow_work_sends_keep_alives(
    open_app: Any, wav: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.02)
    async with open_app(model_path="fake:delay=0.4") as client:
        answer = await client.post(
            URL, files={"file": ("a.wav", wav)}, data={"stream": "true", "language": "en"}
        )
    assert answer.content.startswith(sse.KEEP_ALIVE)
    assert events(answer.content)[-1]["text"] == "marker-0042 marker-0043 marker-0044"


@pytest.mark.row(37)
async def test_openais_client_passes_over_keep_alives(
    open_app: Any, wav: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.05)
    async with open_app(model_path="fake:delay=0.3") as http:
        client = openai.AsyncOpenAI(
            base_url="http://localhost/v1",
            api_key="x",
            http_client=http,
            _strict_response_validation=True,
        )
        stream = await client.audio.transcriptions.create(
            file=("a.wav", wav), model="whisper-1", stream=True, language="en"
        )
        found = [event.to_dict() async for event in stream]
    *deltas, done = found
    assert "".join(str(event["delta"]) for event in deltas) == done["text"]
    assert done["type"] == "transcript.text.done"


def segment(number: int, text: str) -> Segment:
    return Segment(number, 0, number, number + 1, text, (), 0.0, 0.0, 0.0, 0.0)


def joined(shape: str, texts: list[str]) -> tuple[str, str]:
    asked = parse_request(Fields({"response_format": [shape]}), Settings(), "transcribe")
    writer = sse.EventWriter(asked)
    segments = tuple(segment(i, text) for i, text in enumerate(texts))
    transcript = Transcript("transcribe", "en", 1.0, 9.0, segments, "m")
    found = [event for s in segments for event in writer.events(Update((s,), 1, 9))]
    found += writer.events(Update((), 9, 9, transcript))
    return "".join(event["delta"] for event in found[:-1]), found[-1]["text"]


@pytest.mark.parametrize("shape", ["json", "srt", "vtt"])
@pytest.mark.parametrize(
    "texts",
    [
        [" Hello,", " world! "],
        ["  ", " a", "", " ", " b\n", "  "],
        ["", " "],
        [],
        ["\u3000漢字", "です。"],
        ["a --> b", " <c>&"],
    ],
)
async def test_deltas_add_up_with_odd_spaces(shape: str, texts: list[str]) -> None:
    deltas, done = joined(shape, texts)
    assert deltas == done


async def test_leaving_cancels_the_work() -> None:
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async def receive() -> Any:
        await asyncio.sleep(0.02)
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        await sse.while_connected(receive, work())
    assert cancelled.is_set()


async def test_requests_have_an_end(open_app: Any, wav: bytes) -> None:
    settings = {"model_path": "fake:delay=3", "request_timeout_s": 1}
    async with open_app(**settings) as client:
        answer = await client.post(URL, files={"file": ("a.wav", wav)}, data={"language": "en"})
        assert answer.status_code == 504
        assert problem(answer)["code"] == "timeout"
        assert answer.headers["x-should-retry"] == "false"
        assert leftovers(client.app.state.runtime.settings.scratch_dir) == []
