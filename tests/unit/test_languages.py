"""Languages: Whisper's table, and the spellings callers use."""

from __future__ import annotations

import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES

from whisper_api.errors import InvalidOption
from whisper_api.languages import ALIASES, LANGUAGES, UNSPACED, english_name, parse_language


def test_the_table_holds_whispers_hundred_languages() -> None:
    assert set(LANGUAGES) == set(_LANGUAGE_CODES)
    assert len(LANGUAGES) == 100
    assert len(set(LANGUAGES.values())) == 100


def test_the_order_is_that_of_the_language_tokens() -> None:
    order = list(LANGUAGES)
    # Anchors: <|en|> 50259, <|ru|> 50263, <|su|> 50357, <|yue|> 50358 of large-v3's tokenizer.
    assert [50259 + order.index(code) for code in ("en", "ru", "su", "yue")] == [
        50259,
        50263,
        50357,
        50358,
    ]


def test_aliases_point_at_known_codes_and_hide_none() -> None:
    assert set(ALIASES.values()) <= set(LANGUAGES)
    assert all(ALIASES[key] == key for key in set(ALIASES) & set(LANGUAGES))
    assert set(LANGUAGES) >= UNSPACED


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("en", "en"),
        ("EN", "en"),
        (" Russian ", "ru"),
        ("russian", "ru"),
        ("rus", "ru"),
        ("pt-BR", "pt"),
        ("pt_br", "pt"),
        ("zh-cn", "zh"),
        ("zh-Hant-TW", "zh"),
        ("zh-yue", "yue"),
        ("yue", "yue"),
        ("jv", "jw"),
        ("haw", "haw"),
        ("Haitian Creole", "ht"),
        ("haitian", "ht"),
        ("castilian", "es"),
        ("ger", "de"),
    ],
)
def test_spellings(text: str, code: str) -> None:
    assert parse_language(text) == code


@pytest.mark.parametrize("text", [None, "", "  ", "auto", "AUTO"])
def test_no_language_means_detection(text: str | None) -> None:
    assert parse_language(text) is None


@pytest.mark.parametrize("text", ["klingon", "xx", "e", "english please", "-", "русский" * 50])
def test_unknown_languages_are_refused_as_openai_does(text: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        parse_language(text)
    assert caught.value.param == "language"
    assert caught.value.code == "invalid_language_format"
    assert "ISO 639-1" in caught.value.message
    assert len(caught.value.message) < 300


def test_a_slip_gets_a_hint_and_the_fields_name() -> None:
    with pytest.raises(InvalidOption, match="Did you mean 'russian'") as caught:
        parse_language("rusian", param="languages[]")
    assert caught.value.param == "languages[]"


def test_english_names() -> None:
    assert english_name("en") == "english"
    assert english_name("ht") == "haitian creole"
    assert english_name("tlh") == "tlh"
