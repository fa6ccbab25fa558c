"""What is picked from the grammar, and how it is given to a synthesizer."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from text import Phrase, phrase, random_phrase, say
from voices import Spoken

Utterance = tuple[Phrase, str, Spoken]
_DIGITS = {lang: [say(value, lang) for value in range(10)] for lang in ("en", "ru")}
Pick = Callable[[np.random.Generator, str], Phrase]


def one_digit(rng: np.random.Generator, lang: str) -> Phrase:
    """A digit alone, or two of them."""
    count = 1 if rng.random() < 0.85 else 2
    return phrase(lang, [int(v) for v in rng.integers(0, 10, count)], "digit")


def few_digits(rng: np.random.Generator, lang: str) -> Phrase:
    """A digit alone, or up to four of them."""
    count = 1 if rng.random() < 0.6 else int(rng.integers(2, 5))
    digits = [int(v) for v in rng.integers(0, 10, count)]
    return phrase(lang, digits, "digit" if count == 1 else "string")


def single_digit(rng: np.random.Generator, lang: str) -> Phrase:
    """A digit alone."""
    return phrase(lang, [int(rng.integers(0, 10))], "digit")


def respelt(rows: Iterable[str], pick: Pick) -> Pick:
    """Digits spelt for a synthesizer by one of the rows of ten, so that it reads them with an accent."""
    tables = [row.split() for row in rows]

    def picked(rng: np.random.Generator, lang: str) -> Phrase:
        item, table = pick(rng, lang), tables[int(rng.integers(len(tables)))]
        plain = [word.strip(".").lower() for word in item.words]
        return replace(item, spoken=tuple(table[_DIGITS[lang].index(word)] for word in plain))

    return picked


def one_word(rng: np.random.Generator, lang: str) -> Phrase:
    """A number or phrase of one word; digits are the rarer half."""
    while True:
        item = random_phrase(rng, lang)
        if len(item.words) == 1 and (item.kind != "digit" or rng.random() < 0.1):
            return item


def read_out(rng: np.random.Generator, item: Phrase) -> list[str]:
    """What a synthesizer is given: half the time without the last full stop, which changes the tune."""
    words = list(item.spoken or item.words)
    if rng.random() < 0.5:
        words[-1] = words[-1].rstrip(".")
    return words
