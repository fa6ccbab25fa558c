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
from tests.e2e.openai_calls import SRT, VTT, ask, connect

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


@pytest.mark.row(2)
def test_json(client: OpenAI, sample: bytes, text: str) -> None:
    assert ask(client, sample).text == text


@pytest.mark.row(3)
def test_text(client: OpenAI, sample: bytes, text: str) -> None:
    assert ask(client, sample, response_format="text") == f"{text}\n"


@pytest.mark.row(5)
@pytest.mark.row(6)
def test_subtitles(client: OpenAI, sample: bytes, text: str) -> None:
    for shape, pattern in (("srt", SRT), ("vtt", VTT)):
        found = ask(client, sample, response_format=shape)
        assert pattern.match(found)
        lines = [line for line in found.splitlines() if line and not line[0].isdigit()]
        assert " ".join(line for line in lines if line != "WEBVTT") == text


@pytest.mark.row(10)
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


@pytest.mark.row(36)
def test_stream(client: OpenAI, sample: bytes, text: str) -> None:
    *deltas, done = list(ask(client, sample, stream=True))
    assert "".join(event.delta for event in deltas) == done.text == text


@pytest.mark.row(17)
def test_logprobs(client: OpenAI, sample: bytes, text: str) -> None:
    found = ask(client, sample, include=["logprobs"])
    spelled = b"".join(bytes(map(int, entry.bytes)) for entry in found.logprobs).decode()
    assert spelled.strip() == text
    assert all(entry.logprob <= 0 for entry in found.logprobs)


@pytest.mark.row(1)
def test_curl(server: Server, text: str) -> None:
    url = f"{server.base_url}/audio/transcriptions"
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = ["curl", "-s", url, "-F", f"file=@{ASSETS / 'sample.wav'}"]
    found = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    assert json.loads(found)["text"] == text


@pytest.mark.parametrize("ending", ["mp3", "m4a", "ogg", "flac", "webm"])
@pytest.mark.row(25)
def test_containers(client: OpenAI, sample: bytes, text: str, encode: Encode, ending: str) -> None:
    assert ask(client, sample, file=(f"s.{ending}", encode(sample, ending))).text == text


@pytest.mark.parametrize("chunking", ["auto", {"type": "server_vad", "threshold": 0.4}])
@pytest.mark.row(18)
def test_chunking_strategies(client: OpenAI, sample: bytes, text: str, chunking: Any) -> None:
    assert ask(client, sample, chunking_strategy=chunking).text == text


def test_the_same_input_gives_the_same_text(client: OpenAI, sample: bytes) -> None:
    anew = {"cache-control": "no-store"}
    fields = {"response_format": "verbose_json", "temperature": 0.8, "extra_headers": anew}
    first = ask(client, sample, **fields).to_dict()
    assert first == ask(client, sample, **fields).to_dict()


SPEECH = Path(__file__).parents[1] / "data" / "speech"
ENGLISH = {
    "ru-523": {"five hundred twenty three", "five hundred and twenty three", "523"},
    "ru-1-to-5": {"one two three four five", "1 2 3 4 5", "12345"},
}
"""Ways to write what the Russian recordings say."""


def russian(name: str) -> tuple[str, bytes]:
    return (f"{name}.ogg", (SPEECH / f"{name}.ogg").read_bytes())


def plain(text: str) -> str:
    """Words alone, in lower case."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


@pytest.mark.row(4)
def test_other_letters_than_latin_arrive_whole(client: OpenAI, sample: bytes) -> None:
    found = ask(client, sample, file=russian("ru-523"), response_format="text")
    assert plain(found) == "пятьсот двадцать три"
    assert found.endswith("\n")
    assert not found.startswith('"')
    *deltas, done = list(ask(client, sample, file=russian("ru-523"), stream=True))
    assert "".join(event.delta for event in deltas) == done.text == found.strip()


@pytest.mark.row(44)
@pytest.mark.parametrize("name", ENGLISH)
def test_russian_numbers_are_translated_into_english(client: OpenAI, name: str) -> None:
    found = client.audio.translations.create(model="whisper-1", file=russian(name))
    assert plain(found.text) in ENGLISH[name]


@pytest.mark.row(45)
def test_translated_speech_in_the_other_formats(client: OpenAI) -> None:
    def translate(shape: Any) -> Any:
        return client.audio.translations.create(
            model="whisper-1", file=russian("ru-523"), response_format=shape
        )

    verbose = translate("verbose_json").to_dict()
    assert (verbose["task"], verbose["language"]) == ("translate", "english")
    assert plain(verbose["text"]) in ENGLISH["ru-523"]
    assert translate("text") == f"{verbose['text']}\n"
    for shape, pattern in (("srt", SRT), ("vtt", VTT)):
        assert pattern.match(translate(shape))
        assert verbose["text"] in translate(shape)
