"""Words of a text as the full-text index has them, and queries for it.

Kept is each different word once, and its stem in the word's own language, so that ``meetings``
finds ``meeting`` and ``совещания`` finds ``совещание``, on every database alike. Scripts that do
not part their words are indexed by pairs of characters.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import snowballstemmer

MOST_CHARACTERS = 400_000
"""Different words of one text that are indexed, in characters: more than a day of speech has."""
MOST_TERMS = 16
_LONGEST = 60
_WORD = re.compile(r"[^\W_]+")
_UNPARTED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]+")
_stemmers = threading.local()
_CYRILLIC = re.compile("[\u0400-\u04ff]")


@dataclass(frozen=True, slots=True)
class Term:
    """One word that must be there: as the head of a word, or by its stem."""

    word: str
    stem: str


def index_words(*texts: str) -> str:
    """The different words and stems of ``texts``, between single spaces."""
    found: dict[str, None] = {}
    room = MOST_CHARACTERS
    for word in (word for text in texts for word in _words(text)):
        if word not in found:
            for entry in dict.fromkeys((word, _stem(word))):
                if entry not in found:
                    found[entry] = None
                    room -= len(entry)
        if room < 0:
            break
    return " ".join(found)


def terms(query: str) -> list[Term]:
    """What a query asks for; empty where it holds no word."""
    words = list(dict.fromkeys(_words(query)))[:MOST_TERMS]
    return [Term(word, _stem(word)) for word in words]


def fts5_query(wanted: list[Term]) -> str:
    """The terms in SQLite's language; words hold letters and digits only."""
    return " AND ".join(f'("{term.word}"* OR "{term.stem}")' for term in wanted)


def tsquery(wanted: list[Term]) -> str:
    """The terms in PostgreSQL's language."""
    return " & ".join(f"('{term.word}':* | '{term.stem}')" for term in wanted)


def excerpt(text: str, wanted: list[Term], around: int = 90) -> str:
    """The part of ``text`` around the first word that was asked for; its head where none is."""
    for word in _WORD.finditer(text):
        if _meets(_folded(word.group()), wanted):
            return _cut(text, word.start() - around, word.end() + around)
    return _cut(text, 0, 2 * around)


def _meets(word: str, wanted: list[Term]) -> bool:
    """Whether a folded word is one of those; in scripts without spaces it is a whole phrase."""
    if _UNPARTED.search(word):
        return any(term.word in word for term in wanted)
    return any(word.startswith(term.word) or _stem(word) == term.stem for term in wanted)


def _cut(text: str, start: int, stop: int) -> str:
    """``text`` from about ``start`` to about ``stop``, whole words, with marks of what is left."""
    start, stop = max(0, start), min(len(text), stop)
    if start:
        start = text.find(" ", start, start + 25) + 1 or start
    if stop < len(text):
        space = text.rfind(" ", max(start, stop - 25), stop)
        stop = space if space > 0 else stop
    middle = " ".join(text[start:stop].split())
    return f"{'… ' if start else ''}{middle}{' …' if stop < len(text) else ''}"


def _words(text: str) -> Iterator[str]:
    for run in _WORD.findall(_folded(text)):
        at = 0
        for unparted in _UNPARTED.finditer(run):
            if unparted.start() > at:
                yield run[at : unparted.start()][:_LONGEST]
            yield from _pairs(unparted.group())
            at = unparted.end()
        if at < len(run):
            yield run[at:][:_LONGEST]


def _pairs(run: str) -> Iterator[str]:
    yield from (run[i : i + 2] for i in range(max(1, len(run) - 1)))


def _folded(text: str) -> str:
    """Lower case, Latin letters without accents, and the Russian yo as ye, as people write it."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("\u0451", "\u0435")
    parted = unicodedata.normalize("NFD", plain)
    kept = (
        char
        for i, char in enumerate(parted)
        if not unicodedata.combining(char) or not "a" <= parted[i - 1] <= "z"
    )
    return unicodedata.normalize("NFC", "".join(kept))


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    if word.isascii():
        return str(_stemmer("english").stemWord(word)) or word
    if _CYRILLIC.match(word):
        return str(_stemmer("russian").stemWord(word)) or word
    return word


def _stemmer(language: str) -> Any:
    """This thread's own stemmer: one holds the word that it works on."""
    found = getattr(_stemmers, language, None)
    if found is None:
        found = snowballstemmer.stemmer(language)
        setattr(_stemmers, language, found)
    return found
