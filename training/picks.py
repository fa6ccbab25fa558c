"""What is picked from the grammar, and how it is given to a synthesizer."""

from collections.abc import Callable

import numpy as np

from text import Phrase, phrase, random_phrase
from voices import Spoken

Utterance = tuple[Phrase, str, Spoken]
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
