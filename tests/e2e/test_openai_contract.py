"""Rows 1 to 34 and 44 to 48 of the contract with OpenAI's clients: names end in the row's number.

The real ``openai`` client checks every answer strictly against its own types.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from tests.conftest import Encode, MakeWav
from tests.e2e.conftest import Server, StartServer

SRT = re.compile(r"1\n\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}\n")
VTT = re.compile(r"WEBVTT\n\n\d\d:\d\d:\d\d\.\d{3} --> \d\d:\d\d:\d\d\.\d{3}\n")


def connect(server: Server, **options: Any) -> OpenAI:
    settings = {"max_retries": 0, "api_key": server.key, **options}
    return OpenAI(base_url=server.base_url, _strict_response_validation=True, **settings)


@pytest.fixture(scope="module")
def wav(make_wav: MakeWav) -> bytes:
    return make_wav({0.5: 42, 2.0: 43}, 3.4)


@pytest.fixture(scope="module")
def speech(wav: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audio") / "s.wav"
    path.write_bytes(wav)
    return path


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return connect(server)


def ask(client: OpenAI, wav: bytes, **fields: Any) -> Any:
    fields = {"model": "whisper-1", "file": ("s.wav", wav), **fields}
    return client.audio.transcriptions.create(**fields)


def curl(server: Server, speech: Path, *fields: str, path: str = "transcriptions") -> Any:
    """Headers and body of a curl upload, as an httpx response."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = ["curl", "-s", "-D", "-", f"{server.base_url}/audio/{path}"]
    command += ["-H", f"Authorization: Bearer {server.key}", "-F", f"file=@{speech}"]
    for field in ("model=whisper-1", *fields):
        command += ["-F", field]
    raw = subprocess.run(command, check=True, capture_output=True, timeout=30).stdout
    return response(raw)


def response(raw: bytes) -> httpx.Response:
    head, _, body = raw.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 100"):
        head, _, body = body.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = [(line.partition(": ")[0], line.partition(": ")[2]) for line in lines]
    assert any(name.lower() == "x-request-id" for name, _ in headers)
    headers = [(name, value) for name, value in headers if name.lower() != "transfer-encoding"]
    return httpx.Response(int(status.split()[1]), headers=headers, content=body)


def error_of(answer: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def refused(client: OpenAI, wav: bytes, status: int = 400, **fields: Any) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, wav, **fields)
    assert caught.value.status_code == status
    assert caught.value.request_id
    assert isinstance(caught.value.body, dict)
    assert set(caught.value.body) == {"message", "type", "param", "code"}
    return caught.value


def test_json_by_curl_row_1(server: Server, speech: Path) -> None:
    answer = curl(server, speech)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["text"] == "marker-0042 marker-0043"
    assert answer.json()["usage"] == {"type": "duration", "seconds": 4}


def test_json_by_client_row_2(client: OpenAI, wav: bytes) -> None:
    found = ask(client, wav)
    assert found.text == "marker-0042 marker-0043"
    assert found._request_id


def test_text_by_curl_row_3(server: Server, speech: Path) -> None:
    answer = curl(server, speech, "response_format=text")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.content == b"marker-0042 marker-0043\n"


def test_text_by_client_row_4(client: OpenAI, wav: bytes) -> None:
    found = ask(client, wav, response_format="text")
    assert found == "marker-0042 marker-0043\n"


def test_srt_row_5(server: Server, speech: Path) -> None:
    answer = curl(server, speech, "response_format=srt")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert SRT.match(answer.text)
    assert answer.text.endswith("\n\n\n")
    cues = answer.text.removesuffix("\n").split("\n\n")
    assert [cue.split("\n")[0] for cue in cues if cue] == ["1", "2"]


def test_vtt_row_6(server: Server, speech: Path) -> None:
    answer = curl(server, speech, "response_format=vtt")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert VTT.match(answer.text)
    assert answer.text.endswith("\n\n")


def check_verbose(found: Any) -> None:
    raw = found.to_dict()
    assert raw["task"] == "transcribe"
    assert found.language == "english"
    assert isinstance(found.duration, float)
    assert set(raw["segments"][0]) == {
        "id",
        "seek",
        "start",
        "end",
        "text",
        "tokens",
        "temperature",
        "avg_logprob",
        "compression_ratio",
        "no_speech_prob",
    }
    assert raw["segments"][0]["text"].startswith(" ")
    assert "words" not in raw


def test_verbose_json_row_7(client: OpenAI, wav: bytes) -> None:
    check_verbose(ask(client, wav, response_format="verbose_json"))


def test_words_row_8(client: OpenAI, wav: bytes) -> None:
    granularities = ["word"]
    found = ask(client, wav, response_format="verbose_json", timestamp_granularities=granularities)
    assert "segments" not in found.to_dict()
    words = found.words
    assert [word.word for word in words] == ["marker-0042", "marker-0043"]
    times = [t for word in words for t in (word.start, word.end)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= found.duration


def test_segment_granularity_row_9(client: OpenAI, wav: bytes) -> None:
    granularities = ["segment"]
    check_verbose(
        ask(client, wav, response_format="verbose_json", timestamp_granularities=granularities)
    )


def test_both_granularities_row_10(client: OpenAI, wav: bytes) -> None:
    both = ["word", "segment"]
    found = ask(client, wav, response_format="verbose_json", timestamp_granularities=both)
    assert {"words", "segments"} <= found.to_dict().keys()


def test_bare_list_name_row_11(server: Server, speech: Path) -> None:
    answer = curl(server, speech, "timestamp_granularities=word", "response_format=verbose_json")
    assert len(answer.json()["words"]) == 2


def test_words_without_verbose_json_row_12(client: OpenAI, wav: bytes) -> None:
    assert refused(client, wav, timestamp_granularities=["word"]).param == (
        "timestamp_granularities[]"
    )


def test_unknown_granularity_row_13(server: Server, speech: Path) -> None:
    answer = curl(server, speech, "timestamp_granularities[]=char", "response_format=verbose_json")
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "timestamp_granularities[]"


def test_diarized_json_row_14(client: OpenAI, wav: bytes) -> None:
    error = refused(client, wav, response_format="diarized_json", chunking_strategy="auto")
    assert (error.param, error.code) == ("response_format", "unsupported_value")


def test_speaker_references_row_15(client: OpenAI, wav: bytes) -> None:
    clip = "data:audio/wav;base64," + "A" * (2_700_000)
    error = refused(
        client,
        wav,
        response_format="diarized_json",
        chunking_strategy="auto",
        known_speaker_names=["agent"],
        known_speaker_references=[clip],
    )
    assert (error.param, error.code) == ("response_format", "unsupported_value")


def test_five_speakers_row_16(client: OpenAI, wav: bytes) -> None:
    error = refused(
        client,
        wav,
        response_format="diarized_json",
        chunking_strategy="auto",
        known_speaker_names=list("abcde"),
    )
    assert error.param == "known_speaker_names[]"


def test_logprobs_row_17(client: OpenAI, wav: bytes) -> None:
    found = ask(client, wav, include=["logprobs"])
    assert [entry.token for entry in found.logprobs][:2] == [" marker", "-0042"]


def test_server_vad_in_brackets_row_18(client: OpenAI, wav: bytes) -> None:
    chunking = {"type": "server_vad", "threshold": 0.4}
    assert isinstance(ask(client, wav, chunking_strategy=chunking).text, str)


def test_server_vad_as_json_row_19(server: Server, speech: Path) -> None:
    chunking = 'chunking_strategy={"type":"server_vad","silence_duration_ms":300}'
    assert curl(server, speech, chunking).status_code == 200


def test_unknown_chunking_row_20(server: Server, speech: Path) -> None:
    error = error_of(curl(server, speech, "chunking_strategy=sometimes"))
    assert (error["param"], error["code"]) == ("chunking_strategy", "invalid_value")


def test_empty_prompt_row_21(client: OpenAI, wav: bytes) -> None:
    assert ask(client, wav, language="en", prompt="", temperature=0).text


def test_unknown_language_row_22(server: Server, speech: Path) -> None:
    answer = curl(server, speech, "language=klingon")
    assert answer.status_code == 400
    error = error_of(answer)
    assert (error["param"], error["code"]) == ("language", "invalid_language_format")


@pytest.mark.parametrize("value", ["1.5", "hot"])
def test_wrong_temperature_row_23(server: Server, speech: Path, value: str) -> None:
    answer = curl(server, speech, f"temperature={value}")
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "temperature"


def test_nameless_files_row_24(client: OpenAI, wav: bytes) -> None:
    assert ask(client, wav, file=wav).text == "marker-0042 marker-0043"
    assert ask(client, wav, file=io.BytesIO(wav)).text == "marker-0042 marker-0043"


@pytest.mark.parametrize("ending", ["mp3", "m4a", "webm", "flac", "ogg"])
def test_containers_row_25(client: OpenAI, wav: bytes, encode: Encode, ending: str) -> None:
    found = ask(client, wav, file=(f"x.{ending}", encode(wav, ending)))
    assert found.text == "marker-0042 marker-0043"


def raw_request(server: Server, head: list[str], body: bytes) -> httpx.Response:
    lines = [*head, f"Host: 127.0.0.1:{server.port}", f"Content-Length: {len(body)}"]
    with socket.create_connection(("127.0.0.1", server.port), 20) as link:
        link.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
        received = b""
        while data := link.recv(65_536):
            received += data
    return response(received)


def test_dotnet_upload_row_26(server: Server, wav: bytes) -> None:
    edge = "=_0123=abc"
    parts = [
        b'Content-Disposition: form-data; name=file; filename="C:\\dir/s.wav"; '
        b"filename*=utf-8''s.wav\r\n\r\n" + wav,
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Disposition: form-data; name=model\r\n\r\nwhisper-1",
    ]
    body = b"".join(b"--" + edge.encode() + b"\r\n" + part + b"\r\n" for part in parts)
    body += b"--" + edge.encode() + b"--\r\n"
    head = [
        "POST /v1/audio/transcriptions HTTP/1.1",
        f'Content-Type: multipart/form-data; boundary="{edge}"',
    ]
    answer = raw_request(server, head, body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["text"] == "marker-0042 marker-0043"


def test_not_audio_row_27(server: Server, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Not audio")
    answer = curl(server, readme)
    assert answer.status_code == 400
    assert "flac" in error_of(answer)["message"]


def test_empty_and_short_row_28(client: OpenAI, wav: bytes, make_wav: MakeWav) -> None:
    assert refused(client, wav, file=("s.wav", b"")).param == "file"
    error = refused(client, wav, file=("s.wav", make_wav({}, 0.05)))
    assert (error.param, error.code) == ("file", "audio_too_short")


def test_too_large_row_29(start_server: StartServer) -> None:
    server = start_server(file_validation={"max_file_size_mb": 1})
    sent: list[httpx.Request] = []
    http = httpx.Client(event_hooks={"request": [sent.append]}, timeout=30)
    client = connect(server, http_client=http, max_retries=2)
    error = refused(client, b"", 413, file=("s.wav", b"\0" * (30 << 20)))
    assert type(error) is openai.APIStatusError
    assert error.type == "server_error"
    assert len(sent) == 1
    # A body of which nothing was announced is counted.
    content = (b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\n", *[b"\0" * 65_536] * 400)
    headers = {"content-type": "multipart/form-data; boundary=x"}
    url = f"{server.base_url}/audio/transcriptions"
    answer = httpx.post(url, content=iter(content), headers=headers, timeout=30)
    assert answer.status_code == 413
    server.wait_until_idle(2)


def test_missing_file_and_model_row_30(server: Server, client: OpenAI, wav: bytes) -> None:
    url = f"{server.base_url}/audio/transcriptions"
    answer = httpx.post(url, data={"model": "whisper-1"}, files={"other": b""}, timeout=10)
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "file"
    assert ask(client, wav, model="").text == "marker-0042 marker-0043"
    answer = httpx.post(url, files={"file": ("s.wav", wav)}, timeout=30)
    assert answer.json()["text"] == "marker-0042 marker-0043"


def test_json_body_row_31(server: Server) -> None:
    url = f"{server.base_url}/audio/transcriptions"
    answer = httpx.post(url, json={"file": "x", "model": "whisper-1"}, timeout=10)
    assert answer.status_code == 400
    assert "multipart/form-data" in error_of(answer)["message"]


@pytest.fixture(scope="module")
def guarded(start_server: StartServer) -> Server:
    """A server with keys."""
    return start_server(api_keys=["sk-right"])


def test_unknown_model_row_32(guarded: Server, wav: bytes) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(connect(guarded), wav, model="nope")
    assert caught.value.code == "model_not_found"


def test_keys_row_33(guarded: Server, wav: bytes) -> None:
    answer = httpx.post(f"{guarded.base_url}/audio/transcriptions", timeout=10)
    assert answer.status_code == 401
    assert error_of(answer)["code"] is None
    with pytest.raises(openai.AuthenticationError) as caught:
        ask(connect(guarded, api_key="sk-wrong"), wav)
    assert caught.value.code == "invalid_api_key"


def test_wrong_method_and_path_row_34(server: Server) -> None:
    for path, status in (("/v1/audio/transcriptions", 405), ("/v1/none", 404)):
        answer = server.get(path)
        assert answer.status_code == status
        error_of(answer)


def translate(client: OpenAI, wav: bytes, **fields: Any) -> Any:
    fields = {"model": "whisper-1", "file": ("s.wav", wav), **fields}
    return client.audio.translations.create(**fields)


def test_translation_row_44(client: OpenAI, wav: bytes) -> None:
    assert translate(client, wav).text == "marker-0042 marker-0043"


def test_translation_formats_row_45(client: OpenAI, wav: bytes) -> None:
    assert translate(client, wav, response_format="text").endswith("marker-0043\n")
    assert SRT.match(translate(client, wav, response_format="srt"))
    assert VTT.match(translate(client, wav, response_format="vtt"))
    found = translate(client, wav, response_format="verbose_json").to_dict()
    assert (found["task"], found["language"]) == ("translate", "english")
    assert "usage" not in found


def test_translation_diarized_row_46(server: Server, speech: Path) -> None:
    answer = curl(server, speech, "response_format=diarized_json", path="translations")
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "response_format"


def put_model(server: Server, name: str) -> None:
    """The least that counts as a model in the server's store."""
    folder = server.data_dir / "models" / name.replace("/", "--")
    folder.mkdir(parents=True)
    kind = b"WhisperSpec\0"
    (folder / "model.bin").write_bytes(struct.pack("<IH", 6, len(kind)) + kind)
    (folder / "vocabulary.json").write_text('["a"]')
    (folder / "ORIGIN.json").write_text(json.dumps({"name": name}))
    for file in ("config.json", "tokenizer.json"):
        (folder / file).write_text("{}")


def test_models_row_47(client: OpenAI, server: Server) -> None:
    assert client.models.list().object == "list"
    put_model(server, "org/name")
    for name in ("whisper-1", "org/name"):
        found = client.models.retrieve(name)
        assert (found.id, found.object) == (name, "model")
        assert found.created == client.models.retrieve(name).created
    assert server.get("/v1/models/org/name").json()["owned_by"] == "org"


def test_unknown_model_row_48(guarded: Server) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        connect(guarded).models.retrieve("nope")
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


def test_async_client(server: Server, wav: bytes) -> None:
    async def several() -> list[str]:
        async with openai.AsyncOpenAI(
            base_url=server.base_url, api_key="x", _strict_response_validation=True
        ) as client:
            calls = [
                client.audio.transcriptions.create(file=("s.wav", wav), model="whisper-1")
                for _ in range(8)
            ]
            return [found.text for found in await asyncio.gather(*calls)]

    assert asyncio.run(several()) == ["marker-0042 marker-0043"] * 8
