"""Tokens: special ids, prompts, text, and the cut at timestamps."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.checkpoints import whisper_tokenizer
from tokenizers import Tokenizer

from whisper_api.errors import ModelBroken
from whisper_api.tokens import PROMPT_LIMIT, WhisperTokenizer

FOLDER = Path(str(files("whisper_api"))) / "assets" / "bundled"
TOKENIZER = WhisperTokenizer.from_file(FOLDER / "tokenizer.json", 51_865)
BEGIN = 50_364


def at(seconds: float) -> int:
    return BEGIN + round(seconds / 0.02)


def text(words: str) -> list[int]:
    return list(TOKENIZER.encode(words))


def pieces(tokens: list[int], duration: float = 30.0) -> list[tuple[float, float, str]]:
    return [
        (span.start, span.end, TOKENIZER.decode(span.tokens))
        for span in TOKENIZER.split_pieces(tokens, duration)
    ]


def test_special_ids_are_whispers() -> None:
    assert (TOKENIZER.eot, TOKENIZER.sot, TOKENIZER.sot_prev) == (50_257, 50_258, 50_361)
    assert (TOKENIZER.no_timestamps, TOKENIZER.timestamp_begin) == (50_363, BEGIN)
    assert TOKENIZER.multilingual
    assert len(TOKENIZER.languages) == 99
    assert (TOKENIZER.languages["en"], TOKENIZER.languages["ru"]) == (50_259, 50_263)


def test_large_v3_has_cantonese_and_shifted_ids() -> None:
    tokenizer = WhisperTokenizer(whisper_tokenizer(51_866), 51_866)
    assert tokenizer.languages["yue"] == 50_358
    assert (tokenizer.timestamp_begin, tokenizer.sot_prev) == (50_365, 50_362)
    assert tokenizer.prompt((), "yue", "translate") == [50_258, 50_358, 50_359]


def test_an_english_model_has_neither_language_nor_task() -> None:
    tokenizer = WhisperTokenizer(whisper_tokenizer(51_864), 51_864)
    assert not tokenizer.multilingual
    assert tokenizer.languages == {}
    assert tokenizer.prompt((5, 6), "en", "transcribe") == [tokenizer.sot_prev, 5, 6, tokenizer.sot]


def test_prompts() -> None:
    assert TOKENIZER.prompt((), "en", "transcribe") == [50_258, 50_259, 50_359]
    assert TOKENIZER.prompt((), "ru", "translate") == [50_258, 50_263, 50_358]
    long = tuple(range(300))
    prompt = TOKENIZER.prompt(long, "en", "transcribe")
    assert prompt == [50_361, *range(300 - PROMPT_LIMIT, 300), 50_258, 50_259, 50_359]


def test_a_language_without_a_token_is_an_error() -> None:
    with pytest.raises(ModelBroken, match="yue"):
        TOKENIZER.prompt((), "yue", "transcribe")


def test_suppressed_holds_what_never_belongs_into_a_result() -> None:
    assert {50_258, 50_259, 50_357, 50_358, 50_359, 50_361} <= set(TOKENIZER.suppressed)
    assert not {50_257, 50_363, BEGIN} & set(TOKENIZER.suppressed)


@given(st.text(max_size=60))
def test_text_survives_the_way_to_ids_and_back(words: str) -> None:
    ids = TOKENIZER.encode(words)
    assert all(number < TOKENIZER.eot for number in ids)
    if "<|" not in words:
        assert TOKENIZER.decode(ids) == words
        assert b"".join(map(TOKENIZER.token_bytes, ids)).decode() == words


def test_special_tokens_spelt_out_in_a_prompt_do_nothing() -> None:
    assert TOKENIZER.encode("a<|endoftext|>b<|translate|>") == (*text("a"), *text("b"))


def test_special_tokens_have_no_text() -> None:
    assert TOKENIZER.decode([50_258, 50_259, at(1.0), *text(" one"), 50_257]) == " one"


def test_broken_utf8_is_replaced_not_raised() -> None:
    half = next(token for token in text("😀") if len(TOKENIZER.token_bytes(token)) < 4)
    assert "\ufffd" in TOKENIZER.decode([half])


def test_closed_pieces() -> None:
    tokens = [at(0.5), *text(" one"), at(1.0), at(1.5), *text(" two"), at(2.0), at(2.0)]
    assert pieces(tokens) == [(0.5, 1.0, " one"), (1.5, 2.0, " two")]


def test_a_single_timestamp_at_the_end_closes_the_last_piece() -> None:
    tokens = [at(0.5), *text(" one"), at(1.0), at(1.5), *text(" two"), at(2.5)]
    assert pieces(tokens) == [(0.5, 1.0, " one"), (1.5, 2.5, " two")]


def test_text_after_the_last_closed_piece_is_kept_to_the_windows_end() -> None:
    tokens = [at(0.0), *text(" one"), at(1.0), at(1.0), *text(" two three")]
    assert pieces(tokens, 9.3) == [(0.0, 1.0, " one"), (1.0, 9.3, " two three")]


def test_text_without_any_timestamp_fills_the_window() -> None:
    assert pieces(text(" one two"), 4.2) == [(0.0, 4.2, " one two")]


def test_one_piece_keeps_its_own_times() -> None:
    assert pieces([at(1.2), *text(" one"), at(2.4)]) == [(1.2, 2.4, " one")]


def test_pieces_without_text_vanish() -> None:
    assert pieces([]) == []
    assert pieces([at(0.0)]) == []
    assert pieces([at(0.0), at(3.0), at(3.0), *text(" one"), at(4.0)]) == [(3.0, 4.0, " one")]


def test_times_beyond_the_real_window_are_clamped() -> None:
    tokens = [at(0.0), *text(" one"), at(3.0), at(3.0), *text(" two"), at(30.0)]
    assert pieces(tokens, 2.5) == [(0.0, 2.5, " one"), (2.5, 2.5, " two")]


def test_an_instantaneous_piece_keeps_its_text() -> None:
    assert pieces([at(1.0), *text(" one"), at(1.0)]) == [(1.0, 1.02, " one")]


_PART = st.one_of(st.integers(BEGIN, BEGIN + 1500), st.sampled_from(text(" one two three")))


@given(st.lists(_PART, max_size=40), st.floats(0.1, 30.0))
def test_no_text_is_lost_and_times_ascend_whatever_the_tokens(
    tokens: list[int], duration: float
) -> None:
    spans = TOKENIZER.split_pieces(tokens, duration)
    kept = [token for span in spans for token in TOKENIZER.text_tokens(span.tokens)]
    assert kept == TOKENIZER.text_tokens(tokens)
    times = [time for span in spans for time in (span.start, span.end)]
    assert times == sorted(times)
    assert all(0.0 <= time <= duration for time in times)


def test_a_missing_or_broken_file_is_a_broken_model(tmp_path: Path) -> None:
    with pytest.raises(ModelBroken, match=r"tokenizer\.json is missing"):
        WhisperTokenizer.from_file(tmp_path / "tokenizer.json", 51_865)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelBroken, match="cannot be read"):
        WhisperTokenizer.from_file(tmp_path / "tokenizer.json", 51_865)


def test_another_models_tokenizer_is_refused() -> None:
    data = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    data["added_tokens"] = []
    with pytest.raises(ModelBroken, match="not Whisper's"):
        WhisperTokenizer(Tokenizer.from_str(json.dumps(data)), 51_865)
