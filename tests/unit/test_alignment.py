"""Words: splitting, times out of an alignment, fitting them into their pieces."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_tokens import TOKENIZER

from whisper_api.alignment import (
    AlignedWord,
    place_words,
    split_words,
    spread_words,
    time_words,
)


def split(words: str, language: str = "en") -> list[tuple[str, int]]:
    return split_words(TOKENIZER.encode(words), TOKENIZER.token_bytes, language)


def word(text: str, start: float, end: float, tokens: int = 1) -> AlignedWord:
    return AlignedWord(text, tokens, start, end, 0.5)


def times(placed: list[list[AlignedWord]]) -> list[list[tuple[str, float, float]]]:
    return [[(w.text, round(w.start, 3), round(w.end, 3)) for w in part] for part in placed]


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        (" Hello, unbelievable world!", "en", [" Hello", ",", " unbelievable", " world", "!"]),
        (" Съешь ещё", "ru", [" Съешь", " ещё"]),
        ("你好，世界", "zh", ["你", "好", "，", "世", "界"]),
        ("", "en", []),
    ],
)
def test_words_are_split_at_spaces_or_characters(
    text: str, language: str, words: list[str]
) -> None:
    found = split(text, language)
    if language == "zh":
        # A token may hold two characters; what counts is that nothing is split inside one.
        assert "".join(part for part, _ in found) == text
        assert len(found) >= 3
    else:
        assert [part for part, _ in found] == words
    assert sum(count for _, count in found) == len(TOKENIZER.encode(text))


@given(st.text(max_size=40), st.sampled_from(["en", "ja"]))
def test_no_text_and_no_token_is_lost(text: str, language: str) -> None:
    tokens = [token for token in TOKENIZER.encode(text) if TOKENIZER.token_bytes(token)]
    found = split_words(tokens, TOKENIZER.token_bytes, language)
    assert sum(count for _, count in found) == len(tokens)
    assert "".join(part for part, _ in found) == TOKENIZER.decode(tokens)


def test_broken_utf8_ends_instead_of_swallowing_the_rest() -> None:
    half = [token for token in TOKENIZER.encode("😀") if len(TOKENIZER.token_bytes(token)) < 4][:1]
    found = split_words([*half, *TOKENIZER.encode(" two three")], TOKENIZER.token_bytes, "en")
    assert [part for part, _ in found][-1] == " three"
    assert "\ufffd" in found[0][0]


def test_times_come_from_where_the_path_reaches_a_token() -> None:
    path = [(0, 10), (0, 20), (1, 30), (1, 31), (2, 50), (3, 75)]
    found = time_words([(" one", 1), (" twenty", 2)], path, [0.5, 0.8, 0.6])
    assert [(w.text, w.start, w.end) for w in found] == [(" one", 0.2, 0.6), (" twenty", 0.6, 1.5)]
    assert [w.probability for w in found] == pytest.approx([0.5, 0.7])


def test_a_path_that_ends_early_gives_nothing() -> None:
    assert time_words([(" one", 1), (" two", 1)], [(0, 0), (1, 5)], [0.5, 0.5]) == []


def test_punctuation_joins_its_neighbour() -> None:
    words = [word(' "', 0.0, 0.1), word("One", 0.1, 0.5), word(",", 0.5, 0.9), word(" two", 1, 1.4)]
    placed = place_words(words, [(4, 0.0, 2.0)])
    assert times(placed) == [[(' "One,', 0.1, 0.5), (" two", 1.0, 1.4)]]
    assert [w.tokens for w in placed[0]] == [3, 1]


def test_words_go_to_their_pieces_by_tokens() -> None:
    words = [word(" one", 0.1, 0.5), word(" two", 0.6, 1.0, 2), word(" three", 2.1, 2.5)]
    placed = place_words(words, [(3, 0.0, 1.0), (1, 2.0, 3.0)])
    assert times(placed) == [
        [(" one", 0.1, 0.5), (" two", 0.6, 1.0)],
        [(" three", 2.1, 2.5)],
    ]


def test_a_first_word_that_swallowed_the_pause_is_cut() -> None:
    words = [word(" one", 0.0, 5.0), word(" two", 5.0, 5.3), word(" three", 5.3, 5.6)]
    first = place_words(words, [(3, 4.8, 5.6)])[0][0]
    assert first.start >= 4.8
    assert first.end == pytest.approx(5.0)


def test_a_word_after_a_full_stop_does_not_begin_in_the_pause() -> None:
    words = [
        word(" one", 0, 0.3),
        word(".", 0.3, 0.35),
        word(" two", 0.35, 3.0),
        word(" x", 3, 3.3),
    ]
    placed = place_words(words, [(4, 0.0, 3.5)])[0]
    assert [w.text for w in placed] == [" one.", " two", " x"]
    assert placed[1].end - placed[1].start < 1.5


def test_words_aligned_elsewhere_are_spread_over_their_piece() -> None:
    placed = place_words([word(" ab", 9.0, 9.2), word(" cd", 9.2, 9.5)], [(2, 1.0, 2.0)])
    assert times(placed) == [[(" ab", 1.0, 1.5), (" cd", 1.5, 2.0)]]
    assert {w.probability for w in placed[0]} == {0.5}


def test_spreading_follows_the_length_of_words() -> None:
    found = spread_words([(" a", 1), (" abcde", 1)], 1.0, 3.0)
    assert [(w.start, w.end) for w in found] == [(1.0, 1.5), (1.5, 3.0)]


_TIMES = st.floats(0, 30, allow_nan=False)


@given(
    st.lists(
        st.tuples(st.sampled_from([" a", "b", ".", ' "', " long"]), _TIMES, _TIMES), max_size=12
    ),
    st.lists(st.integers(0, 4), min_size=1, max_size=5),
)
def test_words_always_ascend_inside_their_pieces(
    raw: list[tuple[str, float, float]], counts: list[int]
) -> None:
    words = [word(text, min(a, b), max(a, b)) for text, a, b in raw]
    edges = [30.0 * i / len(counts) for i in range(len(counts) + 1)]
    counts[-1] += max(0, len(words) - sum(counts))
    pieces = [(count, edges[i], edges[i + 1]) for i, count in enumerate(counts)]
    placed = place_words(words, pieces)
    for (_, start, end), part in zip(pieces, placed, strict=True):
        values = [value for w in part for value in (w.start, w.end)]
        assert values == sorted(values)
        assert all(start - 1e-9 <= value <= end + 1e-9 for value in values)
    assert sum(w.tokens for part in placed for w in part) == len(words)
    assert "".join(w.text for part in placed for w in part) == "".join(w.text for w in words)


def test_the_module_needs_no_model() -> None:
    source = Path(split_words.__code__.co_filename).read_text(encoding="utf-8")
    assert "ctranslate2" not in source
