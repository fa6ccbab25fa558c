"""Fields -> options: every value that is right, and a clear word for every one that is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whisper_api.api.options import AudioRequest, Fields, parse_request
from whisper_api.api.schemas import FIELDS
from whisper_api.config import Settings
from whisper_api.errors import InvalidOption

SETTINGS = Settings(language="ru", temperature=0.01)


def parse(**fields: Any) -> AudioRequest:
    values = {k: v if isinstance(v, list) else [v] for k, v in fields.items()}
    return parse_request(Fields(values), SETTINGS, "transcribe")


def refused(**fields: Any) -> tuple[str | None, str | None]:
    with pytest.raises(InvalidOption) as caught:
        parse(**fields)
    return caught.value.param, caught.value.code


def test_nothing_sent_is_the_settings() -> None:
    asked = parse()
    assert asked.format == "json"
    assert asked.options.language == "ru"
    assert asked.options.temperature == 0.0
    assert asked.options.vad.min_silence_ms == SETTINGS.vad_min_silence_ms
    assert (asked.stream, asked.logprobs, asked.return_timestamps) == (False, False, False)


def test_empty_text_is_not_sent() -> None:
    names = [*FIELDS, "known_speaker_names[]", "known_speaker_references[]"]
    assert parse(**dict.fromkeys(names, "")) == parse()
    assert parse(**dict.fromkeys(names, " ")) == parse()


def test_unknown_fields_pass() -> None:
    assert parse(vendor="1", **{"nested[a]": "b"}) == parse()


@pytest.mark.parametrize(
    ("given", "code"), [("en", "en"), ("English", "en"), ("auto", None), ("zh-cn", "zh")]
)
def test_language(given: str, code: str | None) -> None:
    assert parse(language=given).options.language == code


def test_languages_are_candidates_and_mean_detection() -> None:
    options = parse(**{"languages[]": ["en", "russian", "en"]}).options
    assert (options.language, options.languages) == (None, ("en", "ru"))


def test_lists_in_every_writing() -> None:
    for fields in (
        {"keywords[]": ["Kyiv", "Zürich"]},
        {"keywords": ["Kyiv", "Zürich"]},
        {"keywords[0]": "Kyiv", "keywords[1]": "Zürich"},
        {"keywords": '["Kyiv", "Zürich"]'},
    ):
        assert parse(**fields).options.keywords == ("Kyiv", "Zürich")
    assert parse(keywords="[laughs]").options.keywords == ("[laughs]",)


@pytest.mark.parametrize(
    "fields",
    [
        {"chunking_strategy": '{"type":"server_vad","threshold":0.4,"silence_duration_ms":300}'},
        {
            "chunking_strategy[type]": "server_vad",
            "chunking_strategy[threshold]": "0.4",
            "chunking_strategy[silence_duration_ms]": "300",
        },
    ],
)
def test_chunking_strategy_in_both_encodings(fields: dict[str, str]) -> None:
    vad = parse(**fields).options.vad
    assert (vad.enabled, vad.threshold, vad.min_silence_ms) == (True, 0.4, 300)


def test_chunking_auto_is_loudness_and_vad() -> None:
    options = parse(chunking_strategy="auto", vad_filter="false").options
    assert options.loudness
    assert options.vad.enabled
    assert not parse().options.loudness


def test_word_granularity_asks_for_words() -> None:
    for name in ("timestamp_granularities[]", "timestamp_granularities"):
        asked = parse(**{name: "word", "response_format": "verbose_json"})
        assert asked.granularities == ("word",)
        assert asked.options.word_timestamps
    assert not parse(response_format="verbose_json").options.word_timestamps


@pytest.mark.parametrize("text", ["0", "0.01", "0.009", "1e-3"])
def test_tiny_temperatures_are_the_ladder(text: str) -> None:
    assert parse(temperature=text).options.temperature == 0.0


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"language": "klingon"}, "language", "invalid_language_format"),
        ({"languages[]": ["en", "xx"]}, "languages[]", "invalid_language_format"),
        ({"languages[]": "en", "language": "ru"}, "languages[]", "invalid_value"),
        ({"response_format": "docx"}, "response_format", "invalid_value"),
        ({"response_format": "diarized_json"}, "response_format", "unsupported_value"),
        ({"temperature": "1.5"}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_value"),
        ({"temperature": "nan"}, "temperature", "invalid_value"),
        ({"temperature": "-1"}, "temperature", "invalid_value"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities[]", "invalid_value"),
        (
            {"timestamp_granularities[]": "char", "response_format": "verbose_json"},
            "timestamp_granularities[]",
            "invalid_value",
        ),
        ({"include[]": "usage"}, "include[]", "invalid_value"),
        ({"include[]": "logprobs", "response_format": "srt"}, "include[]", "unsupported_value"),
        ({"chunking_strategy": "sometimes"}, "chunking_strategy", "invalid_value"),
        ({"chunking_strategy": '{"type":"other"}'}, "chunking_strategy", "invalid_value"),
        ({"chunking_strategy": '{"type":"server_vad'}, "chunking_strategy", "invalid_value"),
        ({"chunking_strategy[threshold]": "0.5"}, "chunking_strategy", "invalid_value"),
        (
            {"chunking_strategy": '{"type":"server_vad","threshold":2}'},
            "chunking_strategy",
            "invalid_value",
        ),
        ({"known_speaker_names[]": list("abcde")}, "known_speaker_names[]", "invalid_value"),
        ({"known_speaker_names[]": ["a"]}, "known_speaker_names[]", "unsupported_value"),
        ({"stream": "maybe"}, "stream", "invalid_value"),
        ({"return_timestamps": "2"}, "return_timestamps", "invalid_value"),
        ({"beam_size": "0"}, "beam_size", "invalid_value"),
        ({"vad_threshold": "1"}, "vad_threshold", "invalid_value"),
        ({"keywords[]": ["x"] * 501}, "keywords[]", "invalid_value"),
    ],
)
def test_wrong_values(fields: dict[str, Any], param: str, code: str) -> None:
    assert refused(**fields) == (param, code)


def test_five_names_are_told_before_the_format() -> None:
    names = {"known_speaker_names[]": list("abcde"), "response_format": "diarized_json"}
    assert refused(**names)[0] == "known_speaker_names[]"


def test_json_values_mean_what_they_say() -> None:
    body = {"stream": True, "temperature": 0.5, "keywords": ["a", None], "language": None}
    asked = parse_request(Fields.from_json(body), SETTINGS, "translate")
    assert asked.stream
    assert asked.options.temperature == 0.5
    assert asked.options.keywords == ("a",)
    assert asked.options.task == "translate"


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    "value", [nested(2000, lambda x: [x]), nested(100_000, lambda x: {"a": x})], ids=["[", "{"]
)
def test_json_nested_too_deep_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match="nested") as caught:
        Fields.from_json({"keywords": value})
    assert caught.value.param == "keywords"


def test_a_refusal_never_names_half_a_character() -> None:
    with pytest.raises(InvalidOption, match="nested") as caught:
        Fields.from_json({"\ud83d": nested(2000, lambda x: [x])})
    assert caught.value.message.encode()
    assert caught.value.param == "\N{REPLACEMENT CHARACTER}"


def test_lists_nested_too_deep_in_a_form_are_refused() -> None:
    assert refused(keywords="[" * 600 + "]" * 600) == ("keywords", "invalid_value")


def test_every_documented_field_is_read() -> None:
    wrong = {
        name: refused(**{name: "\x00wrong"})
        for name in FIELDS
        if name not in ("model", "prompt", "keywords[]")
    }
    assert all(param == name for name, (param, _) in wrong.items())


# Drawing the first texts loads Unicode's tables, which is slow on a busy machine.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from([*FIELDS, "chunking_strategy[type]", "keywords[0]"]),
        st.lists(st.text(max_size=20) | st.floats().map(str) | st.just(json.dumps({"a": [1]}))),
    )
)
def test_any_fields_give_a_request_or_a_named_refusal(fields: dict[str, list[str]]) -> None:
    try:
        parse_request(Fields(fields), SETTINGS, "transcribe")
        named = "nothing refused"
    except InvalidOption as error:
        named = error.param or ""
    assert named
