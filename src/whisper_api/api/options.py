"""Fields of a request -> checked options. Empty strings mean unset; unknown fields pass by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from whisper_api.config import Settings
from whisper_api.errors import InvalidOption
from whisper_api.formats import FORMATS, Format, Granularity
from whisper_api.languages import parse_language
from whisper_api.model_names import split_profile
from whisper_api.types import Options, Task, VadOptions

_TRUE = frozenset({"true", "1", "yes", "y", "t", "on"})
_FALSE = frozenset({"false", "0", "no", "n", "f", "off", "null", "none"})
_SPEAKER_FIELDS = ("known_speaker_names", "known_speaker_references")
MAX_KEYWORDS = 500
MAX_PROMPT = 20_000
"""Characters of a prompt that are looked at; Whisper uses its last 223 tokens."""


@dataclass(frozen=True, slots=True)
class AudioRequest:
    """One request for a transcript, parsed."""

    options: Options
    model: str | None
    format: Format
    granularities: tuple[Granularity, ...]
    return_timestamps: bool
    logprobs: bool
    stream: bool


class Fields:
    """Form fields or a JSON object behind one face: text, lists, and nested objects."""

    def __init__(self, values: Mapping[str, Sequence[str]]) -> None:
        self._values = values

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Fields:
        """A JSON body's members as the form fields they stand for."""
        return cls({k: _flat(k, value) for k, value in content.items() if value is not None})

    def text(self, name: str) -> str | None:
        """The last non-empty value; None where there is none."""
        for value in reversed(self._values.get(name, ())):
            if value.strip():
                return value.strip()
        return None

    def list(self, name: str) -> tuple[str, ...]:
        """All values of ``name[]``, ``name`` and ``name[0]``…, split where one is a JSON list."""
        found: list[str] = []
        for key, values in self._values.items():
            if key == name or (key.startswith(f"{name}[") and key.endswith("]")):
                for value in values:
                    parsed = _json(value) if value.lstrip().startswith("[") else None
                    found += _flat(name, parsed) if isinstance(parsed, list) else [value]
        return tuple(item.strip() for item in found if item.strip())

    def object(self, name: str) -> dict[str, str]:
        """The members sent as ``name[key]``."""
        start = f"{name}["
        return {
            key[len(start) : -1]: value
            for key in self._values
            if key.startswith(start) and key.endswith("]") and key != f"{name}[]"
            if (value := self.text(key)) is not None
        }

    @property
    def names(self) -> set[str]:
        """The names of fields that have a value, without brackets."""
        return {key.partition("[")[0] for key in self._said()}

    def over(self, below: Fields) -> Fields:
        """These fields, and those of ``below`` that they leave open.

        A field that only makes sense beside another one goes with it.
        """
        taken = self.names
        for together in _TOGETHER:
            if taken & together:
                taken = taken | together
        kept = {k: v for k, v in below._values.items() if k.partition("[")[0] not in taken}
        return Fields({**kept, **self._said()})

    def _said(self) -> dict[str, Sequence[str]]:
        return {k: v for k, v in self._values.items() if any(value.strip() for value in v)}


_TOGETHER = (
    frozenset({"language", "languages"}),
    frozenset({"response_format", "timestamp_granularities", "include"}),
)


def parse_request(fields: Fields, settings: Settings, task: Task) -> AudioRequest:
    """Every field of OpenAI's contract and ours, those of the model's profile below them.

    Raises:
        InvalidOption: with the field's name in ``param``.
    """
    _, profile = split_profile(fields.text("model") or "", settings.profiles)
    if profile is not None:
        fields = fields.over(Fields.from_json(settings.profiles[profile]))
    _count_speakers(fields)
    shape = _format(fields)
    granularities = _granularities(fields, shape)
    logprobs = _include(fields, shape)
    _refuse_speakers(fields)
    options = Options(
        task=task,
        language=_language(fields, settings),
        languages=_languages(fields),
        prompt=(fields.text("prompt") or "")[-MAX_PROMPT:],
        keywords=_keywords(fields),
        temperature=_temperature(fields, settings),
        beam_size=int(_number(fields, "beam_size", 1, 20, settings.beam_size)),
        max_new_tokens=settings.max_new_tokens,
        word_timestamps="word" in granularities,
        logprobs=logprobs,
        vad=_vad(fields, settings),
        chunk_length_s=_number(fields, "chunk_length_s", 1, 30, settings.chunk_length_s),
    )
    return AudioRequest(
        options=_chunking(fields, options),
        model=fields.text("model"),
        format=shape,
        granularities=granularities,
        return_timestamps=_bool(fields, "return_timestamps", settings.return_timestamps),
        logprobs=logprobs,
        stream=_bool(fields, "stream", False),
    )


def read_format(text: str) -> Format:
    """A ``response_format`` by name.

    Raises:
        InvalidOption: there is no such one here.
    """
    return _format(Fields({"response_format": [text]}))


def _format(fields: Fields) -> Format:
    asked = fields.text("response_format") or "json"
    for known in FORMATS:
        if asked == known:
            return known
    code = "unsupported_value" if asked == "diarized_json" else "invalid_value"
    raise InvalidOption(
        f"response_format {asked[:40]!r} is not available; use one of {', '.join(FORMATS)}.",
        param="response_format",
        code=code,
    )


def _granularities(fields: Fields, shape: Format) -> tuple[Granularity, ...]:
    param = "timestamp_granularities[]"
    found: dict[Granularity, None] = {}
    for text in fields.list("timestamp_granularities"):
        for value in text.split(","):
            if value.strip() == "word":
                found["word"] = None
            elif value.strip() == "segment":
                found["segment"] = None
            else:
                raise InvalidOption(
                    f"{param} is 'word' or 'segment', not {value[:40]!r}.", param=param
                )
    if found and shape != "verbose_json":
        raise InvalidOption(f"{param} needs response_format 'verbose_json'.", param=param)
    return tuple(found) or ("segment",)


def _include(fields: Fields, shape: Format) -> bool:
    asked = fields.list("include")
    if any(value != "logprobs" for value in asked):
        raise InvalidOption("include[] can only hold 'logprobs'.", param="include[]")
    if asked and shape != "json":
        raise InvalidOption(
            "include[]=logprobs needs response_format 'json'.",
            param="include[]",
            code="unsupported_value",
        )
    return bool(asked)


def _count_speakers(fields: Fields) -> None:
    for name in _SPEAKER_FIELDS:
        if len(fields.list(name)) > 4:
            raise InvalidOption(f"{name}[] takes at most 4 items.", param=f"{name}[]")


def _refuse_speakers(fields: Fields) -> None:
    for name in _SPEAKER_FIELDS:
        if fields.list(name):
            raise InvalidOption(
                f"{name}[] has no use here: this server does not tell speakers apart.",
                param=f"{name}[]",
                code="unsupported_value",
            )


def _language(fields: Fields, settings: Settings) -> str | None:
    given = fields.text("language")
    if given is None:
        # Candidates for detection are a request to detect.
        return None if fields.list("languages") else parse_language(settings.language)
    return parse_language(given)


def _languages(fields: Fields) -> tuple[str, ...]:
    given = fields.list("languages")
    if given and fields.text("language") is not None:
        raise InvalidOption(
            "Send language, or languages[] as candidates for detection, not both.",
            param="languages[]",
        )
    codes = [parse_language(value, param="languages[]") for value in given]
    return tuple(dict.fromkeys(code for code in codes if code is not None))


def _keywords(fields: Fields) -> tuple[str, ...]:
    words = fields.list("keywords")
    if len(words) > MAX_KEYWORDS or any(len(word) > 200 for word in words):
        raise InvalidOption(
            f"keywords[] takes at most {MAX_KEYWORDS} items of at most 200 characters.",
            param="keywords[]",
        )
    return words


def _temperature(fields: Fields, settings: Settings) -> float:
    value = _number(fields, "temperature", 0, 1, settings.temperature)
    return 0.0 if value <= 0.01 else value


def _vad(fields: Fields, settings: Settings) -> VadOptions:
    def whole(name: str, low: int, high: int, default: int) -> int:
        return int(_number(fields, name, low, high, default))

    return VadOptions(
        enabled=_bool(fields, "vad_filter", settings.vad),
        threshold=_number(fields, "vad_threshold", 0.05, 0.95, settings.vad_threshold),
        faint=settings.vad_faint,
        min_speech_ms=whole("vad_min_speech_ms", 0, 10_000, settings.vad_min_speech_ms),
        min_silence_ms=whole("vad_min_silence_ms", 32, 10_000, settings.vad_min_silence_ms),
        speech_pad_ms=whole("vad_speech_pad_ms", 0, 5_000, settings.vad_speech_pad_ms),
    )


def _chunking(fields: Fields, options: Options) -> Options:
    """``auto`` = loudness, then VAD; an object with ``server_vad``'s figures; or nothing."""
    param = "chunking_strategy"
    text = fields.text(param)
    if text == "auto":
        return replace(options, loudness=True, vad=replace(options.vad, enabled=True))
    if text in ("null", "none"):
        return options
    parts: Any = fields.object(param) if text is None else _json(text)
    if text is None and not parts:
        return options
    if not isinstance(parts, dict) or parts.get("type") != "server_vad":
        raise InvalidOption(f"{param} is 'auto' or an object with type 'server_vad'.", param=param)
    return replace(options, vad=_server_vad(parts, options.vad))


def _server_vad(parts: Mapping[str, Any], vad: VadOptions) -> VadOptions:
    inner = Fields.from_json({k: v for k, v in parts.items() if not isinstance(v, dict | list)})

    def number(name: str, high: float, default: float) -> float:
        return _number(inner, name, 0, high, default, "chunking_strategy")

    return replace(
        vad,
        enabled=True,
        # The ends of OpenAI's range would call everything speech, or nothing.
        threshold=min(max(number("threshold", 1, vad.threshold), 0.05), 0.95),
        min_silence_ms=int(number("silence_duration_ms", 10_000, vad.min_silence_ms)),
        speech_pad_ms=int(number("prefix_padding_ms", 5_000, vad.speech_pad_ms)),
    )


def _number(
    fields: Fields, name: str, low: float, high: float, default: float, param: str | None = None
) -> float:
    text = fields.text(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise InvalidOption(
            f"{name} is a number from {low:g} to {high:g}, not {text[:40]!r}.", param=param or name
        )
    return value


def _bool(fields: Fields, name: str, default: bool) -> bool:
    text = (fields.text(name) or "").lower()
    if not text:
        return default
    if text not in _TRUE | _FALSE:
        raise InvalidOption(f"{name} is true or false, not {text[:40]!r}.", param=name)
    return text in _TRUE


def _flat(name: str, value: Any) -> list[str]:
    try:
        return _texts(value)
    except RecursionError:
        name = whole(name)
        raise InvalidOption(f"{name[:40]} is nested too deep.", param=name) from None


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, dict):
        return [json.dumps(value)]
    return [whole(str(value))]


def whole(text: str) -> str:
    """``text`` with U+FFFD for halves of surrogate pairs, which no encoding can write.

    JSON can hold them: programs whose texts are UTF-16 cut emojis in two.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _json(text: str) -> Any:
    """``text`` parsed; None where it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
