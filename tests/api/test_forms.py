"""Multipart as official clients and hand-written ones send it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.api.test_transcriptions import URL, leftovers, problem
from tests.conftest import MakeWav

from whisper_api.runtime import Runtime

pytestmark = pytest.mark.asyncio(loop_scope="session")
B = "b=o'und"


@pytest.fixture(scope="module")
def wav(make_wav: MakeWav) -> bytes:
    return make_wav({0.5: 7}, 2)


def part(disposition: str, content: bytes, *headers: str) -> bytes:
    lines = [f"Content-Disposition: form-data; {disposition}", *headers]
    return f"--{B}\r\n".encode() + "\r\n".join(lines).encode() + b"\r\n\r\n" + content + b"\r\n"


async def send(client: httpx.AsyncClient, body: bytes, *, kind: str | None = None) -> Any:
    kind = kind or f'multipart/form-data; boundary="{B}"'
    return await client.post(URL, content=body, headers={"content-type": kind})


END = f"--{B}--\r\n".encode()


async def test_file_last_like_python(client: httpx.AsyncClient, wav: bytes) -> None:
    body = (
        part('name="model"', b"whisper-1")
        + part('name="prompt"', b"")
        + part('name="timestamp_granularities[]"', b"word")
        + part('name="timestamp_granularities[]"', b"segment")
        + part('name="response_format"', b"verbose_json")
        + part('name="file"; filename="upload"', wav, "Content-Type: application/octet-stream")
    )
    answer = await send(client, body + END)
    assert answer.status_code == 200, answer.text
    assert {"words", "segments"} <= set(answer.json())


async def test_file_first_like_dotnet(client: httpx.AsyncClient, wav: bytes) -> None:
    strange = "name=file; filename=\"C:\\dir/под\\rec.wav\"; filename*=utf-8''%D0%B7%D0%B2.wav"
    body = (
        part(strange, wav)
        + part("name=model", b"whisper-1", "Content-Type: text/plain; charset=utf-8")
        + part("name=response_format", b"text", "Content-Type: text/plain; charset=utf-8")
        + part("name=chunking_strategy", b'{"type":"server_vad","threshold":0.4}')
    )
    answer = await send(client, body + END)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("name", ["rec", "rec.wav", "", "../../etc/x.wav", 'q"uote.wav', "я.mp3"])
async def test_file_names(client: httpx.AsyncClient, wav: bytes, name: str) -> None:
    quoted = name.replace('"', "%22")
    answer = await send(client, part(f'name="file"; filename="{quoted}"', wav) + END)
    assert answer.status_code == 200, answer.text
    assert answer.json()["text"] == "marker-0007"


async def test_file_without_a_name(client: httpx.AsyncClient, wav: bytes) -> None:
    assert (await send(client, part('name="file"', wav) + END)).status_code == 200


async def test_preamble_epilogue_and_odd_chunks(client: httpx.AsyncClient, wav: bytes) -> None:
    body = part('name="file"; filename="a.wav"', wav) + part('name="x"', b"y") + END

    async def chunks() -> Any:
        for at in range(0, len(body), 997):
            yield body[at : at + 997]

    kind = f'multipart/form-data; boundary="{B}"'
    answer = await client.post(URL, content=chunks(), headers={"content-type": kind})
    assert answer.json()["text"] == "marker-0007"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (END, "file", "audio_missing"),
        (part('name="audio"; filename="a.wav"', b"x") + END, "file", "audio_missing"),
        (part('name="file"; filename="a.wav"', b"") + END, "file", "audio_missing"),
        (part('name="file"', b"1") + part('name="file"', b"2") + END, "file", "invalid_value"),
        (part('name="file"; filename="a.wav"', b"cut"), None, "invalid_multipart"),
        (part("filename=x", b"1") + END, None, "invalid_multipart"),
        (b"garbage", None, "invalid_multipart"),
        (b"", None, "invalid_multipart"),
        (part('name="prompt"', b"\xff\xfe") + END, "prompt", "invalid_value"),
        (part('name="prompt"', b"x" * (1 << 20) + b"x") + END, "prompt", "field_too_large"),
        (part('name="a"', b"1") * 1025 + END, None, "too_many"),
        (part('name="a"', b"x" * (1 << 20)) * 21 + END, None, "too_long"),
        (part('name="file"; filename="a.xyz"', b"RIFF") + END, "file", "unsupported_format"),
    ],
)
async def test_broken_forms(
    client: httpx.AsyncClient, runtime: Runtime, body: bytes, param: str | None, code: str
) -> None:
    answer = await send(client, body)
    assert answer.status_code == 400
    error = problem(answer)
    assert (error["param"], error["code"]) == (param, code)
    assert leftovers(runtime.settings.scratch_dir) == []


async def test_long_speaker_references_do_not_break_the_form(client: httpx.AsyncClient) -> None:
    clip = b"data:audio/wav;base64," + b"A" * (3 << 20)
    body = part('name="known_speaker_references[]"', clip)
    body += part('name="response_format"', b"diarized_json") + part('name="file"', b"x") + END
    error = problem(await send(client, body))
    assert (error["param"], error["code"]) == ("response_format", "unsupported_value")


@pytest.mark.parametrize(
    "kind", ["application/json", "application/x-www-form-urlencoded", "", "multipart/form-data"]
)
async def test_other_bodies(client: httpx.AsyncClient, kind: str) -> None:
    answer = await send(client, b'{"file": "x"}', kind=kind or "text/plain")
    assert answer.status_code == 400
    assert problem(answer)["param"] is None


async def test_announced_size_is_refused_unread(client: httpx.AsyncClient) -> None:
    read = 0

    async def body() -> Any:
        nonlocal read
        for _ in range(10):
            read += 1
            yield b"x" * 1000

    headers = {"content-type": "multipart/form-data; boundary=x", "content-length": str(3 << 30)}
    answer = await client.post(URL, content=body(), headers=headers)
    assert answer.status_code == 413
    assert problem(answer)["type"] == "server_error"
    assert str(2048 << 20) in answer.json()["error"]["message"]
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-should-retry"] == "false"


async def test_size_counts_while_bytes_arrive(open_app: Any, wav: bytes) -> None:
    small = {"file_validation": {"max_file_size_mb": 0.03}}
    async with open_app(**small) as client:
        answer = await client.post(URL, files={"file": ("a.wav", wav)})
        assert answer.status_code == 413
        assert problem(answer)["code"] == "file_too_large"
        assert leftovers(client.app.state.runtime.settings.scratch_dir) == []
