"""Profiles by model name: the server's options for clients that can send nothing but a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.api.test_transcriptions import URL, problem
from tests.conftest import MakeWav

from whisper_api.api.app import create_app
from whisper_api.api.options import AudioRequest, Fields, parse_request
from whisper_api.config import Settings, load_settings
from whisper_api.errors import SettingsError

pytestmark = pytest.mark.asyncio(loop_scope="session")
MEETING: dict[str, Any] = {
    "language": "russian",
    "prompt": "Повестка дня.",
    "temperature": 0.4,
    "response_format": "verbose_json",
    "timestamp_granularities": ["word", "segment"],
    "keywords": ["квота", "смета"],
    "chunking_strategy": {"type": "server_vad", "threshold": 0.4},
}
SETTINGS: dict[str, Any] = {
    "profiles": {"meeting": MEETING, "subtitles": {"response_format": "srt"}}
}


def parse(**fields: str) -> AudioRequest:
    values = {name: [value] for name, value in fields.items()}
    return parse_request(Fields(values), Settings(**SETTINGS), "transcribe")


async def test_a_profile_gives_what_the_request_leaves_open() -> None:
    asked = parse(model="whisper-1:meeting")
    assert asked.options.language == "ru"
    assert asked.options.prompt == "Повестка дня."
    assert asked.options.temperature == 0.4
    assert asked.options.keywords == ("квота", "смета")
    assert asked.options.vad.threshold == 0.4
    assert (asked.format, asked.granularities) == ("verbose_json", ("word", "segment"))
    assert asked.model == "whisper-1:meeting"


async def test_what_the_request_says_wins_with_what_belongs_to_it() -> None:
    asked = parse(
        model="whisper-1:meeting",
        response_format="text",
        chunking_strategy="auto",
        **{"languages[]": "en", "temperature": "", "keywords[]": "budget"},
    )
    assert (asked.format, asked.granularities) == ("text", ("segment",))
    assert (asked.options.language, asked.options.languages) == (None, ("en",))
    assert asked.options.temperature == 0.4
    assert asked.options.keywords == ("budget",)
    assert asked.options.loudness
    assert asked.options.vad.threshold == Settings().vad_threshold


async def test_a_profile_by_its_name_alone() -> None:
    assert parse(model=":subtitles").format == "srt"
    assert parse(model="whisper-1").format == "json"


async def test_profiles_over_http(open_app: Any, make_wav: MakeWav) -> None:
    wav = make_wav({1.0: 7}, 3)
    # With voice detection nothing would be left of the fake engine's tones.
    meeting = {**MEETING, "chunking_strategy": None}
    async with open_app(profiles={**SETTINGS["profiles"], "meeting": meeting}) as client:

        async def post(model: str) -> httpx.Response:
            files = {"file": ("a.wav", wav)}
            answer: httpx.Response = await client.post(URL, files=files, data={"model": model})
            return answer

        assert (await post("whisper-1:subtitles")).text.startswith("1\n00:00:01,000 --> ")
        assert [word["word"] for word in (await post("gpt-transcribe:meeting")).json()["words"]]
        listed = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
        assert {"fake:meeting", "fake:subtitles"} <= set(listed)
        assert (await client.get("/v1/models/whisper-1:meeting")).json()["id"] == (
            "whisper-1:meeting"
        )
        unknown = await post("whisper-1:nothing")
        assert unknown.status_code == 404
        assert "meeting, subtitles" in problem(unknown)["message"]


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ({"temperature": 3}, "profiles.p: temperature is a number from 0 to 1"),
        ({"langauge": "en"}, "'langauge' is no field that a profile may have; did you mean 'lang"),
        ({"model": "small"}, "'model' is no field"),
        ({"stream": True}, "'stream' is no field"),
        ({"response_format": "docx"}, "profiles.p: response_format 'docx'"),
        ({"timestamp_granularities": ["word"]}, "needs response_format 'verbose_json'"),
        ({"language": "klingon"}, "profiles.p: "),
    ],
)
async def test_wrong_profiles_stop_the_start(profile: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        create_app(Settings(profiles={"p": profile}))
    assert said in caught.value.message


async def test_profiles_and_aliases_from_the_environment_and_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"profiles": {"a": {"language": "en"}}, "model_aliases": {"x": "small"}}')
    monkeypatch.setenv("WHISPER_API_PROFILES", '{"b": {"prompt": "hello"}}')
    monkeypatch.setenv("WHISPER_API_MODEL_ALIASES", '{"y": "tiny"}')
    settings = load_settings(path)
    assert settings.model_aliases["y"] == "tiny"
    assert settings.profiles["b"] == {"prompt": "hello"}
    for wrong in ("nonsense", '{"c": 5}', "[1]"):
        monkeypatch.setenv("WHISPER_API_PROFILES", wrong)
        with pytest.raises(SettingsError, match=r"profiles: .* is not allowed"):
            load_settings(path)
