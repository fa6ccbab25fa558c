"""Words as the index has them."""

from __future__ import annotations

import threading

import pytest

from whisper_api.search import (
    MOST_CHARACTERS,
    MOST_TERMS,
    excerpt,
    fts5_query,
    index_words,
    terms,
    tsquery,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Meetings, MEETINGS! meeting", "meetings meet meeting"),
        ("Ёлки и ЕЛКИ", "елки елк и"),
        ("Café ÉTÉ naïve", "cafe ete naiv naive"),
        ("йод", "йод"),
        ("東京都", "東京 京都"),
        ("a_b 1,5 v2", "a b 1 5 v2"),
        ("ﬁnal ½", "final 1 2"),
        ("", ""),
        ("—«»…", ""),
    ],
)
def test_words_are_folded_parted_and_stemmed(text: str, words: str) -> None:
    assert sorted(index_words(text).split()) == sorted(words.split())


def test_an_index_stays_within_its_bounds() -> None:
    text = " ".join(f"слово{n}" for n in range(40_000))
    assert MOST_CHARACTERS / 2 < len(index_words(text)) < 2 * MOST_CHARACTERS
    assert max(map(len, index_words("x" * 10_000).split())) <= 60
    assert len(terms("a b c d e f g h i j k l m n o p q r s t")) == MOST_TERMS


def test_queries_hold_nothing_but_words() -> None:
    wanted = terms("""o'Brien" OR * NEAR(x) :* \\ %""")
    assert fts5_query(wanted[:1]) == '("o"* OR "o")'
    for query in (fts5_query(wanted), tsquery(wanted)):
        assert "\\" not in query
        assert "%" not in query
    assert tsquery(terms("meetings")) == "('meetings':* | 'meet')"


def test_an_excerpt_shows_the_first_hit_with_whole_words_around() -> None:
    text = "alpha " * 50 + "Совещания прошли. " + "omega " * 50
    found = excerpt(text, terms("совещание"), around=30)
    assert found == "… alpha alpha alpha alpha Совещания прошли. omega omega omega …"
    assert excerpt("short text", terms("nothing")) == "short text"
    assert "東京" in excerpt("今日は" * 100 + "東京都" + "です" * 100, terms("東京"))


def test_stems_are_right_in_many_threads_at_once() -> None:
    words = " ".join(f"совещания{n} meetings{n}" for n in range(1000))
    expected, found = index_words(words), []
    threads = [
        threading.Thread(target=lambda: found.append(index_words(words + " "))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4
