"""The doors: every way in, every format out, on the fake engine."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter
from tests.conftest import Encode, MakeWav

from whisper_api.runtime import Runtime

pytestmark = pytest.mark.asyncio(loop_scope="session")
URL = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def wav(make_wav: MakeWav) -> bytes:
    return make_wav({1.0: 42, 40.0: 43}, 70)


async def post(client: httpx.AsyncClient, wav: bytes, path: str = URL, **data: Any) -> Any:
    return await client.post(path, files={"file": ("speech.wav", wav)}, data=data)


def problem(answer: httpx.Response) -> dict[str, Any]:
    """The error object, after a look at its shape."""
    assert answer.headers["content-type"] == "application/json"
    error = TypeAdapter(dict[str, Any]).validate_python(answer.json()["error"])
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


async def test_json_is_openais_and_the_old_extras(client: httpx.AsyncClient, wav: bytes) -> None:
    body = (await post(client, wav)).json()
    assert body["text"] == "marker-0042 marker-0043"
    assert body["usage"] == {"type": "duration", "seconds": 70}
    assert body["duration_seconds"] == 70
    assert body["response_size_bytes"] == 23
    assert body["model"] == "fake"
    assert body["processing_time"] > 0
    assert "segments" not in body


@pytest.mark.parametrize("yes", ["true", "True", "yes", "1", "t"])
async def test_return_timestamps(client: httpx.AsyncClient, wav: bytes, yes: str) -> None:
    body = (await post(client, wav, return_timestamps=yes)).json()
    assert body["segments"][1] == {
        "start_time_ms": 40_000,
        "end_time_ms": 40_250,
        "text": "marker-0043",
    }


async def test_settings_never_change_the_other_formats(
    client: httpx.AsyncClient, wav: bytes
) -> None:
    plain = await post(client, wav, response_format="verbose_json")
    old = await post(client, wav, response_format="verbose_json", return_timestamps="true")
    assert "start_time_ms" not in plain.json()["segments"][0]
    assert old.json()["segments"][0]["start_time_ms"] == 1000
    assert {"processing_time", "model"}.isdisjoint(plain.json())


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("text", "marker-0042 marker-0043\n"),
        (
            "srt",
            "1\n00:00:01,000 --> 00:00:01,250\nmarker-0042\n\n"
            "2\n00:00:40,000 --> 00:00:40,250\nmarker-0043\n\n\n",
        ),
        (
            "vtt",
            "WEBVTT\n\n00:00:01.000 --> 00:00:01.250\nmarker-0042\n\n"
            "00:00:40.000 --> 00:00:40.250\nmarker-0043\n\n",
        ),
    ],
)
async def test_plain_formats(
    client: httpx.AsyncClient, wav: bytes, shape: str, expected: str
) -> None:
    answer = await post(client, wav, response_format=shape)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == expected


async def test_every_door_gives_the_same_text(
    client: httpx.AsyncClient, wav: bytes, runtime: Runtime
) -> None:
    local = runtime.settings.allowed_directories[0] / "speech.wav"
    local.write_bytes(wav)
    coded = base64.b64encode(wav).decode()
    answers = [
        await post(client, wav),
        await post(client, wav, f"{URL}/multipart"),
        await post(client, wav, "/v1/audio/translations"),
        await client.post(f"{URL}/base64", json={"file": coded}),
        await client.post(f"{URL}/base64", json={"file": f"data:audio/wav;base64,{coded}"}),
        await client.post("/local/transcriptions", json={"file_path": str(local)}),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert answer.json()["text"] == "marker-0042 marker-0043"


async def test_json_doors_take_the_same_options(client: httpx.AsyncClient, wav: bytes) -> None:
    body = {
        "file": base64.b64encode(wav).decode(),
        "response_format": "verbose_json",
        "timestamp_granularities": ["word"],
        "temperature": 0,
        "language": "english",
        "prompt": None,
        "stream": False,
        "chunking_strategy": None,
        "something_else": {"a": 1},
    }
    answer = await client.post(f"{URL}/base64", json=body)
    assert answer.status_code == 200, answer.text
    assert [word["word"] for word in answer.json()["words"]] == ["marker-0042", "marker-0043"]
    assert "segments" not in answer.json()


async def test_base64_with_escapes_and_the_file_in_the_middle(
    client: httpx.AsyncClient, wav: bytes
) -> None:
    coded = base64.b64encode(wav).decode()
    escaped = coded.replace("/", "\\/").replace("+", "\\u002B")
    body = f'{{"response_format": "text", "file": "{escaped}", "nested": {{"file": "x"}}}}'
    answer = await client.post(f"{URL}/base64", content=body.encode())
    assert answer.text == "marker-0042 marker-0043\n"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b'{"file": "@@@@"}', "invalid_base64"),
        (b'{"file": ""}', "audio_missing"),
        (b'{"file": 5}', "audio_missing"),
        (b'{"model": "x"}', "audio_missing"),
        (b'{"file": "AAAA"', "invalid_json"),
        (b"[1]", "invalid_json"),
        (b"", "invalid_json"),
        (b'{"file": "AAAA", "file": "AAAA"}', None),
    ],
)
async def test_bad_base64_bodies(client: httpx.AsyncClient, content: bytes, code: str) -> None:
    answer = await client.post(f"{URL}/base64", content=content)
    assert answer.status_code == 400
    assert problem(answer)["code"] in ({code} if code else {None})


@pytest.mark.parametrize("path", ["/etc/passwd", "{local}/../secret.wav", "{local}/none.wav", ""])
async def test_local_paths_outside_are_refused(
    client: httpx.AsyncClient, runtime: Runtime, path: str
) -> None:
    local = runtime.settings.allowed_directories[0]
    (local.parent / "secret.wav").write_bytes(b"x")
    answer = await client.post(
        "/local/transcriptions", json={"file_path": path.format(local=local)}
    )
    assert answer.status_code == (403 if path else 400)
    assert problem(answer)["param"] == "file_path"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a.wav", "file:///etc/passwd", "nonsense"])
async def test_urls_that_may_not_be_fetched(client: httpx.AsyncClient, url: str) -> None:
    answer = await client.post(f"{URL}/url", json={"url": url})
    assert answer.status_code == 400
    assert problem(answer)["param"] == "url"


@pytest.mark.parametrize("ending", ["mp3", "m4a", "webm", "flac", "ogg"])
async def test_other_containers(
    client: httpx.AsyncClient, wav: bytes, encode: Encode, ending: str
) -> None:
    answer = await client.post(URL, files={"file": (f"speech.{ending}", encode(wav, ending))})
    assert answer.status_code == 200, answer.text
    assert answer.json()["text"] == "marker-0042 marker-0043"


async def test_options_are_judged_before_the_audio(client: httpx.AsyncClient) -> None:
    answer = await post(client, b"not audio", response_format="docx")
    assert problem(answer)["param"] == "response_format"


async def test_silence_is_no_error(client: httpx.AsyncClient, make_wav: MakeWav) -> None:
    body = (await post(client, make_wav({}, 3.5))).json()
    assert body["text"] == ""
    assert body["duration_seconds"] == 3.5
    assert (await post(client, make_wav({}, 3.5), response_format="text")).text == "\n"


async def test_nothing_is_left_in_scratch(
    client: httpx.AsyncClient, wav: bytes, runtime: Runtime
) -> None:
    await post(client, wav)
    await post(client, wav, stream="true")
    await post(client, b"broken")
    assert leftovers(runtime.settings.scratch_dir) == []


def leftovers(scratch: Path) -> list[Path]:
    """Request folders and files that are still there."""
    return [path for path in scratch.rglob("*") if path.name.startswith("request-")]


async def test_logprobs(client: httpx.AsyncClient, wav: bytes) -> None:
    answer = await client.post(
        URL, files={"file": ("a.wav", wav)}, data={"include[]": ["logprobs"]}
    )
    found = answer.json()["logprobs"]
    assert json.dumps(found[0]) == json.dumps(
        {"token": " marker", "logprob": -0.1, "bytes": list(b" marker")}
    )


async def test_a_detected_language_is_told_in_json(
    client: httpx.AsyncClient, wav: bytes, make_wav: MakeWav
) -> None:
    assert (await post(client, wav)).json()["languages"] == [{"code": "en"}]
    assert "languages" not in (await post(client, wav, language="en")).json()
    silence = await post(client, make_wav({}, 2), vad_filter="true")
    assert silence.json()["languages"] == []


async def test_keywords_that_do_not_fit_are_told_in_every_format(
    client: httpx.AsyncClient, wav: bytes
) -> None:
    words = [f"слово{n}" for n in range(300)]

    async def ask(shape: str, keywords: list[str]) -> httpx.Response:
        data = {"response_format": shape, "keywords[]": keywords}
        return await client.post(URL, files={"file": ("a.wav", wav)}, data=data)

    for shape in ("json", "verbose_json"):
        answer = await ask(shape, words)
        (warning,) = answer.json()["warnings"]
        assert warning.startswith("keywords left out for lack of room: слово")
    answer = await ask("text", words[:226])
    assert "слово225" in json.loads(answer.headers["x-warnings"])[0]
    answer = await ask("srt", words)
    assert "1 warnings" in json.loads(answer.headers["x-warnings"])[0]
    assert "x-warnings" not in (await post(client, wav, response_format="text")).headers
