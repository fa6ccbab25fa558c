"""Answers to OpenAI's clients: formats, translations, models, each with its contract's row."""

from __future__ import annotations

import asyncio
import json
import struct
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from tests.e2e.conftest import Server
from tests.e2e.openai_calls import (
    SRT,
    VTT,
    ask,
    connect,
    curl,
    error_of,
    translate,
)


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return connect(server)


@pytest.mark.row(1)
def test_json_by_curl(server: Server, speech: Path) -> None:
    answer = curl(server, speech)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["text"] == "marker-0042 marker-0043"
    assert answer.json()["usage"] == {"type": "duration", "seconds": 4}


@pytest.mark.row(2)
def test_json_by_client(client: OpenAI, wav: bytes) -> None:
    found = ask(client, wav)
    assert found.text == "marker-0042 marker-0043"
    assert found._request_id


@pytest.mark.row(3)
def test_text_by_curl(server: Server, speech: Path) -> None:
    answer = curl(server, speech, "response_format=text")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.content == b"marker-0042 marker-0043\n"


@pytest.mark.row(4)
def test_text_by_client(client: OpenAI, wav: bytes) -> None:
    found = ask(client, wav, response_format="text")
    assert found == "marker-0042 marker-0043\n"


@pytest.mark.row(5)
def test_srt(server: Server, speech: Path) -> None:
    answer = curl(server, speech, "response_format=srt")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert SRT.match(answer.text)
    assert answer.text.endswith("\n\n\n")
    cues = answer.text.removesuffix("\n").split("\n\n")
    assert [cue.split("\n")[0] for cue in cues if cue] == ["1", "2"]


@pytest.mark.row(6)
def test_vtt(server: Server, speech: Path) -> None:
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


@pytest.mark.row(7)
def test_verbose_json(client: OpenAI, wav: bytes) -> None:
    check_verbose(ask(client, wav, response_format="verbose_json"))


@pytest.mark.row(8)
def test_words(client: OpenAI, wav: bytes) -> None:
    granularities = ["word"]
    found = ask(client, wav, response_format="verbose_json", timestamp_granularities=granularities)
    assert "segments" not in found.to_dict()
    words = found.words
    assert [word.word for word in words] == ["marker-0042", "marker-0043"]
    times = [t for word in words for t in (word.start, word.end)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= found.duration


@pytest.mark.row(9)
def test_segment_granularity(client: OpenAI, wav: bytes) -> None:
    granularities = ["segment"]
    check_verbose(
        ask(client, wav, response_format="verbose_json", timestamp_granularities=granularities)
    )


@pytest.mark.row(10)
def test_both_granularities(client: OpenAI, wav: bytes) -> None:
    both = ["word", "segment"]
    found = ask(client, wav, response_format="verbose_json", timestamp_granularities=both)
    assert {"words", "segments"} <= found.to_dict().keys()


@pytest.mark.row(44)
def test_translation(client: OpenAI, wav: bytes) -> None:
    assert translate(client, wav).text == "marker-0042 marker-0043"


@pytest.mark.row(45)
def test_translation_formats(client: OpenAI, wav: bytes) -> None:
    assert translate(client, wav, response_format="text").endswith("marker-0043\n")
    assert SRT.match(translate(client, wav, response_format="srt"))
    assert VTT.match(translate(client, wav, response_format="vtt"))
    found = translate(client, wav, response_format="verbose_json").to_dict()
    assert (found["task"], found["language"]) == ("translate", "english")
    assert "usage" not in found


@pytest.mark.row(46)
def test_translation_diarized(server: Server, speech: Path) -> None:
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


@pytest.mark.row(47)
def test_models(client: OpenAI, server: Server) -> None:
    assert client.models.list().object == "list"
    put_model(server, "org/name")
    for name in ("whisper-1", "org/name"):
        found = client.models.retrieve(name)
        assert (found.id, found.object) == (name, "model")
        assert found.created == client.models.retrieve(name).created
    assert server.get("/v1/models/org/name").json()["owned_by"] == "org"


@pytest.mark.row(48)
def test_unknown_model(guarded: Server) -> None:
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
