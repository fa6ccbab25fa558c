"""Rows of the contract by whatever ``openai`` is installed, so that older ones can be asked too.

    python sdk_rows.py BASE_URL KEY SPEECH.wav MP3

Needs nothing but that package. Prints one JSON object: what was asked -> null, or what went wrong.
Each row is asked with the plain and with the asynchronous client, answers are checked strictly.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai

SAID = "marker-0042 marker-0043"
"""What the fake engine hears in the speech."""


class Plain:
    """The plain client."""

    kind = "sync"
    client_class: Any = openai.OpenAI

    def __init__(self, base_url: str, key: str, speech: bytes, mp3: bytes) -> None:
        self.speech = speech
        self.mp3 = mp3
        self._options: dict[str, Any] = {
            "base_url": base_url,
            "api_key": key,
            "max_retries": 0,
            "_strict_response_validation": True,
        }
        self._clients: dict[str | None, Any] = {}

    def call(self, path: str, *args: Any, key: str | None = None, **fields: Any) -> Any:
        """``audio.transcriptions.create`` and the like; events come as a list."""
        found = self._method(path, key)(*args, **fields)
        return list(found) if fields.get("stream") or path == "models.list" else found

    def transcribe(self, **fields: Any) -> Any:
        """A transcription of the speech, if no other file is given."""
        fields = {"file": ("s.wav", self.speech), "model": "whisper-1", **fields}
        return self.call("audio.transcriptions.create", **fields)

    def translate(self, **fields: Any) -> Any:
        """The same as a translation."""
        fields = {"file": ("s.wav", self.speech), "model": "whisper-1", **fields}
        return self.call("audio.translations.create", **fields)

    def refused(self, kind: str, status: int, **fields: Any) -> Any:
        """The exception of class ``kind`` that a transcription ends with."""
        return self.caught(kind, status, self.transcribe, **fields)

    def caught(
        self, kind: str, status: int, call: Callable[..., Any], *args: Any, **fields: Any
    ) -> Any:
        """The exception of class ``kind`` that ``call`` ends with."""
        caught: Any = None
        try:
            call(*args, **fields)
        except openai.APIStatusError as error:
            caught = error
        assert type(caught).__name__ == kind, caught
        assert caught.status_code == status, caught
        assert caught.request_id, "no request id"
        assert set(caught.body) == {"message", "type", "param", "code"}, caught.body
        return caught

    def _method(self, path: str, key: str | None) -> Any:
        if key not in self._clients:
            more = {"api_key": key} if key else {}
            self._clients[key] = self.client_class(**{**self._options, **more})
        found = self._clients[key]
        for name in path.split("."):
            found = getattr(found, name)
        return found


class Async(Plain):
    """The asynchronous client."""

    kind = "async"
    client_class = openai.AsyncOpenAI
    runner = asyncio.Runner()

    def call(self, path: str, *args: Any, key: str | None = None, **fields: Any) -> Any:
        """As the plain one."""

        async def ask() -> Any:
            if path == "models.list":
                return [model async for model in self._method(path, key)()]
            found = await self._method(path, key)(*args, **fields)
            return [event async for event in found] if fields.get("stream") else found

        return self.runner.run(ask())


Check = Callable[[Plain], None]
ROWS: dict[int, Check] = {}


def row(number: int) -> Callable[[Check], Check]:
    """Register a check of one row."""

    def register(check: Check) -> Check:
        ROWS[number] = check
        return check

    return register


@row(2)
def _json(ask: Plain) -> None:
    found = ask.transcribe()
    assert found.text == SAID, found
    assert found._request_id


@row(3)
def _text(ask: Plain) -> None:
    assert ask.transcribe(response_format="text") == SAID + "\n"


@row(5)
def _srt(ask: Plain) -> None:
    found = ask.transcribe(response_format="srt")
    assert found.startswith("1\n00:00:00,500 --> 00:00:00,750\nmarker-0042\n\n2\n"), found
    assert found.endswith("\n\n\n")


@row(6)
def _vtt(ask: Plain) -> None:
    found = ask.transcribe(response_format="vtt")
    assert found.startswith("WEBVTT\n\n00:00:00.500 --> 00:00:00.750\nmarker-0042\n\n"), found


def _verbose(ask: Plain, *granularities: str) -> dict[str, Any]:
    fields = {"timestamp_granularities": list(granularities)} if granularities else {}
    found = ask.transcribe(response_format="verbose_json", **fields)
    assert float(found.duration) == 3.4  # a text in the first types of 1.x
    assert found.language == "english"
    return dict(found.to_dict())


@row(7)
def _verbose_json(ask: Plain) -> None:
    found = _verbose(ask)
    assert found["task"] == "transcribe"
    assert "words" not in found
    assert len(found["segments"]) == 2
    assert len(found["segments"][0]) == 10, found["segments"][0]


@row(8)
def _words(ask: Plain) -> None:
    found = _verbose(ask, "word")
    assert [word["word"] for word in found["words"]] == SAID.split()
    assert "segments" not in found


@row(9)
def _segments(ask: Plain) -> None:
    assert _verbose(ask, "segment").keys() == _verbose(ask).keys()


@row(10)
def _words_and_segments(ask: Plain) -> None:
    assert {"words", "segments"} <= _verbose(ask, "word", "segment").keys()


@row(12)
def _words_need_verbose_json(ask: Plain) -> None:
    error = ask.refused("BadRequestError", 400, timestamp_granularities=["word"])
    assert error.param == "timestamp_granularities[]"


@row(14)
def _diarized(ask: Plain) -> None:
    fields = {"response_format": "diarized_json", "chunking_strategy": "auto"}
    error = ask.refused("BadRequestError", 400, **fields)
    assert (error.param, error.code) == ("response_format", "unsupported_value")


@row(16)
def _five_speakers(ask: Plain) -> None:
    extra = {"known_speaker_names": list("abcde")}
    error = ask.refused("BadRequestError", 400, extra_body=extra)
    assert error.param == "known_speaker_names[]"


@row(17)
def _logprobs(ask: Plain) -> None:
    found = ask.transcribe(include=["logprobs"])
    assert [entry.token for entry in found.logprobs][:2] == [" marker", "-0042"]


@row(18)
def _server_vad(ask: Plain) -> None:
    chunking = {"type": "server_vad", "threshold": 0.4}
    assert isinstance(ask.transcribe(chunking_strategy=chunking).text, str)


@row(21)
def _empty_prompt(ask: Plain) -> None:
    assert ask.transcribe(language="en", prompt="", temperature=0).text == SAID


@row(22)
def _unknown_language(ask: Plain) -> None:
    error = ask.refused("BadRequestError", 400, language="klingon")
    assert (error.param, error.code) == ("language", "invalid_language_format")


@row(23)
def _wrong_temperature(ask: Plain) -> None:
    assert ask.refused("BadRequestError", 400, temperature=1.5).param == "temperature"


@row(24)
def _nameless_files(ask: Plain) -> None:
    assert ask.transcribe(file=ask.speech).text == SAID
    assert ask.transcribe(file=io.BytesIO(ask.speech)).text == SAID


@row(25)
def _mp3(ask: Plain) -> None:
    assert ask.transcribe(file=("x.mp3", ask.mp3)).text == SAID


@row(27)
def _not_audio(ask: Plain) -> None:
    error = ask.refused("BadRequestError", 400, file=("README.md", b"# Not audio"))
    assert "flac" in error.message


@row(28)
def _empty_file(ask: Plain) -> None:
    assert ask.refused("BadRequestError", 400, file=("s.wav", b"")).param == "file"


@row(32)
def _unknown_model(ask: Plain) -> None:
    error = ask.refused("NotFoundError", 404, model="nope")
    assert error.code == "model_not_found"


@row(33)
def _wrong_key(ask: Plain) -> None:
    error = ask.refused("AuthenticationError", 401, key="sk-wrong")
    assert error.code == "invalid_api_key"


@row(36)
def _stream(ask: Plain) -> None:
    *deltas, done = ask.transcribe(stream=True)
    assert type(done).__name__ == "TranscriptionTextDoneEvent"
    assert len(deltas) >= 2
    assert "".join(event.delta for event in deltas) == done.text == SAID


@row(38)
def _streams_of_formats(ask: Plain) -> None:
    for shape in ("text", "srt", "vtt", "verbose_json"):
        *deltas, done = ask.transcribe(stream=True, response_format=shape)
        assert "".join(event.delta for event in deltas) == done.text, shape


@row(39)
def _diarized_stream(ask: Plain) -> None:
    fields = {"response_format": "diarized_json", "stream": True}
    assert ask.refused("BadRequestError", 400, **fields).param == "response_format"


@row(40)
def _broken_stream(ask: Plain) -> None:
    ask.refused("BadRequestError", 400, stream=True, file=("s.wav", b"broken"))


@row(44)
def _translation(ask: Plain) -> None:
    assert ask.translate().text == SAID


@row(45)
def _translated_formats(ask: Plain) -> None:
    assert ask.translate(response_format="text") == SAID + "\n"
    assert ask.translate(response_format="srt").startswith("1\n")
    assert ask.translate(response_format="vtt").startswith("WEBVTT\n\n")
    found = ask.translate(response_format="verbose_json").to_dict()
    assert (found["task"], found["language"]) == ("translate", "english")


@row(46)
def _diarized_translation(ask: Plain) -> None:
    # Through ``extra_body``, as 1.109 breaks over the name of this format itself.
    extra = {"response_format": "diarized_json"}
    error = ask.caught("BadRequestError", 400, ask.translate, extra_body=extra)
    assert error.param == "response_format"


@row(47)
def _models(ask: Plain) -> None:
    assert "whisper-1" in [model.id for model in ask.call("models.list")]
    assert ask.call("models.retrieve", "whisper-1").object == "model"


@row(48)
def _no_such_model(ask: Plain) -> None:
    error = ask.caught("NotFoundError", 404, ask.call, "models.retrieve", "nope")
    assert (error.param, error.code) == ("model", "model_not_found")


def main(base_url: str, key: str, speech: str, mp3: str) -> None:
    """Ask everything."""
    warnings.simplefilter("ignore")
    found: dict[str, str | None] = {}
    for client in (Plain, Async):
        ask = client(base_url, key, Path(speech).read_bytes(), Path(mp3).read_bytes())
        for number, check in ROWS.items():
            try:
                check(ask)
                found[f"{number} {ask.kind}"] = None
            except Exception:
                found[f"{number} {ask.kind}"] = traceback.format_exc()
    print(json.dumps({"version": openai.__version__, "found": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
