"""What the bundled model is taught to know: phrases of numbers, in English and Russian.

A phrase is a sequence of spoken words; each has an English twin, which is the target of
the translate task. The written form follows Whisper: a leading space, one capital, a full stop.
"""

from dataclasses import dataclass

import numpy as np

LANGUAGES = ("en", "ru")

EN_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
EN_TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()

RU_ONES = (
    "ноль один два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать "
    "тринадцать четырнадцать пятнадцать шестнадцать семнадцать восемнадцать девятнадцать"
).split()
RU_TENS = "_ _ двадцать тридцать сорок пятьдесят шестьдесят семьдесят восемьдесят девяносто".split()
RU_HUNDREDS = "_ сто двести триста четыреста пятьсот шестьсот семьсот восемьсот девятьсот".split()


@dataclass(frozen=True)
class Phrase:
    """Spoken words, and the same said in English."""

    lang: str
    words: tuple[str, ...]
    english: tuple[str, ...]


def english_number(n: int) -> list[str]:
    """0..9999 in words: no "and", no hyphens."""
    words: list[str] = []
    if n >= 1000:
        words += [EN_ONES[n // 1000], "thousand"]
        n %= 1000
    if n >= 100:
        words += [EN_ONES[n // 100], "hundred"]
        n %= 100
    if n >= 20:
        words.append(EN_TENS[n // 10])
        n %= 10
    if n or not words:
        words.append(EN_ONES[n])
    return words


def russian_number(n: int) -> list[str]:
    """0..9999 in words; one thousand is said without "одна"."""
    words: list[str] = []
    if n >= 1000:
        thousands = n // 1000
        if thousands > 1:
            words.append("две" if thousands == 2 else RU_ONES[thousands])
        words.append("тысяча" if thousands == 1 else "тысячи" if thousands < 5 else "тысяч")
        n %= 1000
    if n >= 100:
        words.append(RU_HUNDREDS[n // 100])
        n %= 100
    if n >= 20:
        words.append(RU_TENS[n // 10])
        n %= 10
    if n or not words:
        words.append(RU_ONES[n])
    return words


def phrase(lang: str, values: list[int]) -> Phrase:
    """The phrase that says these numbers one after another."""
    say = english_number if lang == "en" else russian_number
    words = tuple(w for v in values for w in say(v))
    return Phrase(lang, words, tuple(w for v in values for w in english_number(v)))


def random_number(rng: np.random.Generator) -> int:
    """10..9999, every size equally likely, so that rare words are met often."""
    kind = int(rng.integers(0, 5))
    if kind == 0:
        return int(rng.integers(10, 20))
    if kind == 1:
        return int(rng.integers(2, 10)) * 10 + int(rng.integers(0, 10))
    if kind == 2:
        return int(rng.integers(100, 1000))
    if kind == 3:
        return int(rng.integers(1, 10)) * 1000 + int(rng.integers(0, 100))
    return int(rng.integers(1000, 10000))


def random_phrase(rng: np.random.Generator, lang: str) -> Phrase:
    """A single digit (25 %), a digit string (45 %), a number (20 %) or two numbers (10 %)."""
    kind = rng.random()
    if kind < 0.25:
        return phrase(lang, [int(rng.integers(0, 10))])
    if kind < 0.70:
        length = int(rng.choice([2, 3, 4, 5, 6, 7, 8], p=[0.2, 0.25, 0.2, 0.12, 0.09, 0.07, 0.07]))
        return phrase(lang, [int(v) for v in rng.integers(0, 10, length)])
    if kind < 0.90:
        return phrase(lang, [random_number(rng)])
    return phrase(lang, [random_number(rng), random_number(rng)])


def written(words: tuple[str, ...] | list[str]) -> str:
    """The words as Whisper would write them: " Four zero four."."""
    return " " + (" ".join(words)).capitalize() + "."


def vocabulary() -> dict[str, list[str]]:
    """Every word that can be spoken, by language."""
    english = set(EN_ONES) | set(EN_TENS) | {"hundred", "thousand"}
    russian = set(RU_ONES) | set(RU_TENS) | set(RU_HUNDREDS) | {"две", "тысяча", "тысячи", "тысяч"}
    return {"en": sorted(english - {"_"}), "ru": sorted(russian - {"_"})}


def normalise(text: str) -> list[str]:
    """Lower-case words without punctuation, for word error rates."""
    kept = "".join(c if c.isalnum() else " " for c in text.lower())
    return kept.split()
