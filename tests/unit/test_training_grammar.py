"""What the bundled model is taught to say: the grammar of ``training/``, which needs no torch."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

TRAINING = Path(__file__).parents[2] / "training"
MODULES = ("text", "dates", "phrases", "foreign")
LATIN, CYRILLIC = re.compile(r"[A-Za-z'-]+[.,?]?"), re.compile(r"[А-Яа-яЁё-]+[.,?]?")


@pytest.fixture(scope="module")
def training() -> Iterator[SimpleNamespace]:
    """Its modules, which call each other by their short names."""
    before = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    sys.path.insert(0, str(TRAINING))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    finally:
        sys.path.remove(str(TRAINING))
        for name in MODULES:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def test_every_number_is_said_in_its_own_words(training: SimpleNamespace) -> None:
    """Read back by addition: what stands before a thousand or a hundred multiplies it."""
    text = training.text
    ones = {word: n for n, word in enumerate(text.EN_ONES)}
    tens = {word: 10 * n for n, word in enumerate(text.EN_TENS)}
    for n in range(10_000):
        total = last = 0
        for word in text.english_number(n):
            if word in ("thousand", "hundred"):
                total += last * {"thousand": 1000, "hundred": 100}[word] - last
                continue
            last = ones.get(word, tens.get(word, -99_999))
            total += last
        assert total == n


def test_every_russian_number_is_said_in_its_own_words(training: SimpleNamespace) -> None:
    text = training.text
    parts = {word: n for n, word in enumerate(text.RU_ONES)} | {"две": 2}
    parts |= {word: 10 * n for n, word in enumerate(text.RU_TENS)}
    parts |= {word: 100 * n for n, word in enumerate(text.RU_HUNDREDS)}
    for n in range(10_000):
        words = text.russian_number(n)
        thousands = [word for word in words if word.startswith("тысяч")]
        assert len(thousands) == (n >= 1000)
        at = words.index(thousands[0]) if thousands else 0
        many = sum(parts[word] for word in words[:at]) or len(thousands)
        assert many * 1000 + sum(parts[word] for word in words[at + len(thousands) :]) == n


def test_spelt_digits_are_ten_in_every_mouth(training: SimpleNamespace) -> None:
    foreign = training.foreign
    tables = (foreign.ENGLISH_DIGITS, foreign.ENGLISH_ACCENTS, foreign.ENGLISH_NEIGHBOURS)
    for table in (*tables, foreign.RUSSIAN_DIGITS):
        assert {name: len(row.split()) for name, row in table.items()} == dict.fromkeys(table, 10)


@pytest.mark.parametrize("lang", ["en", "ru"])
def test_phrases_are_sentences_with_an_english_twin(training: SimpleNamespace, lang: str) -> None:
    rng, kinds = np.random.default_rng(3), set()
    for _ in range(1500):
        item = training.text.random_phrase(rng, lang)
        kinds.add(item.kind)
        assert item.lang == lang
        for words, letters in (
            (item.words, LATIN if lang == "en" else CYRILLIC),
            (item.english, LATIN),
        ):
            assert all(letters.fullmatch(word) for word in words), words
            assert words[0][0].isupper()
            assert words[-1][-1] in ".?"
        assert not item.spoken or len(item.spoken) == len(item.words)
    assert kinds == {"digit", "string", "number", "date", "time", "phone", "letters", "everyday"}
