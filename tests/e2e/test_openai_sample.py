"""The packaged sample through the bundled model: real speech by every format and container."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from tests.conftest import Encode
from tests.e2e.conftest import Server, StartServer
from tests.e2e.test_openai_contract import SRT, VTT, ask, connect

ASSETS = Path(str(files("whisper_api"))) / "assets"


@pytest.fixture(scope="module")
def sample() -> bytes:
    path = ASSETS / "sample.wav"
    if not path.is_file():
        pytest.skip("this build has no sample")
    return path.read_bytes()


@pytest.fixture(scope="module")
def text() -> str:
    manifest: dict[str, Any] = json.loads((ASSETS / "MANIFEST.json").read_text("utf-8"))
    return str(manifest["sample"]["text"])


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server(engine="auto", model_path="bundled", vad=True)


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return connect(server)


def test_json(client: OpenAI, sample: bytes, text: str) -> None:
    assert ask(client, sample).text == text


def test_text(client: OpenAI, sample: bytes, text: str) -> None:
    assert ask(client, sample, response_format="text") == f"{text}\n"


def test_subtitles(client: OpenAI, sample: bytes, text: str) -> None:
    for shape, pattern in (("srt", SRT), ("vtt", VTT)):
        found = ask(client, sample, response_format=shape)
        assert pattern.match(found)
        lines = [line for line in found.splitlines() if line and not line[0].isdigit()]
        assert " ".join(line for line in lines if line != "WEBVTT") == text


def test_verbose_json_with_words(client: OpenAI, sample: bytes, text: str) -> None:
    both = ["word", "segment"]
    found = ask(client, sample, response_format="verbose_json", timestamp_granularities=both)
    assert found.text == text
    assert found.language == "english"
    assert "".join(segment.text for segment in found.segments).strip() == text
    assert len(found.words) == len(text.split())
    times = [time for word in found.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[-1] <= found.duration
    for segment in found.segments:
        assert segment.avg_logprob < 0
        assert 0 <= segment.no_speech_prob <= 1
        assert segment.compression_ratio > 0
        assert len(segment.tokens) >= 3


def test_stream(client: OpenAI, sample: bytes, text: str) -> None:
    *deltas, done = list(ask(client, sample, stream=True))
    assert "".join(event.delta for event in deltas) == done.text == text


def test_logprobs(client: OpenAI, sample: bytes, text: str) -> None:
    found = ask(client, sample, include=["logprobs"])
    spelled = b"".join(bytes(map(int, entry.bytes)) for entry in found.logprobs).decode()
    assert spelled.strip() == text
    assert all(entry.logprob <= 0 for entry in found.logprobs)


def test_curl(server: Server, text: str) -> None:
    url = f"{server.base_url}/audio/transcriptions"
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = ["curl", "-s", url, "-F", f"file=@{ASSETS / 'sample.wav'}"]
    found = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    assert json.loads(found)["text"] == text


@pytest.mark.parametrize("ending", ["mp3", "m4a", "ogg", "flac", "webm"])
def test_containers(client: OpenAI, sample: bytes, text: str, encode: Encode, ending: str) -> None:
    assert ask(client, sample, file=(f"s.{ending}", encode(sample, ending))).text == text


@pytest.mark.parametrize("chunking", ["auto", {"type": "server_vad", "threshold": 0.4}])
def test_chunking_strategies(client: OpenAI, sample: bytes, text: str, chunking: Any) -> None:
    assert ask(client, sample, chunking_strategy=chunking).text == text


def test_the_same_input_gives_the_same_text(client: OpenAI, sample: bytes) -> None:
    anew = {"cache-control": "no-store"}
    fields = {"response_format": "verbose_json", "temperature": 0.8, "extra_headers": anew}
    first = ask(client, sample, **fields).to_dict()
    assert first == ask(client, sample, **fields).to_dict()
