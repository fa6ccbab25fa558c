"""Fields as official clients send them, each with its row of the contract."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from openai import OpenAI
from tests.conftest import Encode
from tests.e2e.conftest import Server
from tests.e2e.openai_calls import (
    ask,
    connect,
    curl,
    error_of,
    raw_request,
    refused,
)

SPEAKERS = "`response_format=diarized_json`: 400 `unsupported_value`, speakers are not told apart"


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return connect(server)


@pytest.mark.row(11)
def test_bare_list_name(server: Server, speech: Path) -> None:
    answer = curl(server, speech, "timestamp_granularities=word", "response_format=verbose_json")
    assert len(answer.json()["words"]) == 2


@pytest.mark.row(12)
def test_words_without_verbose_json(client: OpenAI, wav: bytes) -> None:
    assert refused(client, wav, timestamp_granularities=["word"]).param == (
        "timestamp_granularities[]"
    )


@pytest.mark.row(13)
def test_unknown_granularity(server: Server, speech: Path) -> None:
    answer = curl(server, speech, "timestamp_granularities[]=char", "response_format=verbose_json")
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "timestamp_granularities[]"


@pytest.mark.row(14, refused=SPEAKERS)
def test_diarized_json(client: OpenAI, wav: bytes) -> None:
    error = refused(client, wav, response_format="diarized_json", chunking_strategy="auto")
    assert (error.param, error.code) == ("response_format", "unsupported_value")


@pytest.mark.row(15, refused=SPEAKERS)
def test_speaker_references(client: OpenAI, wav: bytes) -> None:
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


@pytest.mark.row(16)
def test_five_speakers(client: OpenAI, wav: bytes) -> None:
    error = refused(
        client,
        wav,
        response_format="diarized_json",
        chunking_strategy="auto",
        known_speaker_names=list("abcde"),
    )
    assert error.param == "known_speaker_names[]"


@pytest.mark.row(17)
def test_logprobs(client: OpenAI, wav: bytes) -> None:
    found = ask(client, wav, include=["logprobs"])
    assert [entry.token for entry in found.logprobs][:2] == [" marker", "-0042"]


@pytest.mark.row(18)
def test_server_vad_in_brackets(client: OpenAI, wav: bytes) -> None:
    chunking = {"type": "server_vad", "threshold": 0.4}
    assert isinstance(ask(client, wav, chunking_strategy=chunking).text, str)


@pytest.mark.row(19)
def test_server_vad_as_json(server: Server, speech: Path) -> None:
    chunking = 'chunking_strategy={"type":"server_vad","silence_duration_ms":300}'
    assert curl(server, speech, chunking).status_code == 200


@pytest.mark.row(20)
def test_unknown_chunking(server: Server, speech: Path) -> None:
    error = error_of(curl(server, speech, "chunking_strategy=sometimes"))
    assert (error["param"], error["code"]) == ("chunking_strategy", "invalid_value")


@pytest.mark.row(21)
def test_empty_prompt(client: OpenAI, wav: bytes) -> None:
    assert ask(client, wav, language="en", prompt="", temperature=0).text


@pytest.mark.row(22)
def test_unknown_language(server: Server, speech: Path) -> None:
    answer = curl(server, speech, "language=klingon")
    assert answer.status_code == 400
    error = error_of(answer)
    assert (error["param"], error["code"]) == ("language", "invalid_language_format")


@pytest.mark.row(23)
@pytest.mark.parametrize("value", ["1.5", "hot"])
def test_wrong_temperature(server: Server, speech: Path, value: str) -> None:
    answer = curl(server, speech, f"temperature={value}")
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "temperature"


@pytest.mark.row(24)
def test_nameless_files(client: OpenAI, wav: bytes) -> None:
    assert ask(client, wav, file=wav).text == "marker-0042 marker-0043"
    assert ask(client, wav, file=io.BytesIO(wav)).text == "marker-0042 marker-0043"


@pytest.mark.row(25)
@pytest.mark.parametrize("ending", ["mp3", "m4a", "webm", "flac", "ogg"])
def test_containers(client: OpenAI, wav: bytes, encode: Encode, ending: str) -> None:
    found = ask(client, wav, file=(f"x.{ending}", encode(wav, ending)))
    assert found.text == "marker-0042 marker-0043"


@pytest.mark.row(26)
def test_dotnet_upload(server: Server, wav: bytes) -> None:
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
