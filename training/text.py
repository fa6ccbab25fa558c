"""What the bundled model is taught to know, in English and Russian: a closed grammar.

Digits, digit strings and numbers; dates, times, telephone numbers and spelled letters; everyday
phrases. Each has an English twin, which is the target of the translate task. Words are kept as
Whisper writes them, capitals and punctuation included.
"""

import re
from dataclasses import dataclass

import numpy as np

import dates
from phrases import SLOTS, pairs

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
    """Written words, the same in English, its part of the grammar, and what a synthesizer reads."""

    lang: str
    words: tuple[str, ...]
    english: tuple[str, ...]
    kind: str = "digit"
    spoken: tuple[str, ...] = ()


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


def _sentence(text: str) -> tuple[str, ...]:
    """Words with a capital at the front."""
    return tuple((text[0].upper() + text[1:]).split())


def phrase(lang: str, values: list[int], kind: str = "string") -> Phrase:
    """The phrase that says these numbers one after another."""
    text = " ".join(say(v, lang) for v in values) + "."
    english = " ".join(say(v, "en") for v in values) + "."
    return Phrase(lang, _sentence(text), _sentence(english), kind)


def say(value: int, lang: str) -> str:
    """A number in words."""
    return " ".join((english_number if lang == "en" else russian_number)(value))


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


def _string(rng: np.random.Generator) -> list[int]:
    """Two to eight digits; now and then with one of them repeated, which is easily miscounted."""
    length = int(rng.choice([2, 3, 4, 5, 6, 7, 8], p=[0.2, 0.23, 0.19, 0.13, 0.1, 0.08, 0.07]))
    digits = [int(v) for v in rng.integers(0, 10, length)]
    if rng.random() < 0.15:
        at = int(rng.integers(length))
        digits[at : at + int(rng.integers(2, 5))] = [digits[at]] * int(rng.integers(2, 5))
    return digits[:8]


def _everyday(rng: np.random.Generator, lang: str) -> Phrase:
    """A command or sentence of the list, its slots filled."""
    every = _TEMPLATES
    ru, en = every[int(rng.integers(len(every)))]
    used: set[str] = set()
    for slot in dict.fromkeys(re.findall(r"{(\w+)}", ru)):
        if slot == "n":
            value = int(rng.choice(_COUNTS))
            filled = (say(value, "ru"), say(value, "en"))
        elif slot == "time":
            filled = dates.clock(rng, say)
        else:
            choices = [c for c in SLOTS[slot.rstrip("2")] if c[0] not in used]
            filled = choices[int(rng.integers(len(choices)))]
            used.add(filled[0])
        ru, en = (t.replace("{" + slot + "}", f) for t, f in zip((ru, en), filled, strict=True))
    return _pair(ru, en, lang, "everyday")


_TEMPLATES = pairs()
# Russian nouns after these numbers all stand in the genitive plural.
_COUNTS = [n for n in range(5, 100) if n % 10 in (0, 5, 6, 7, 8, 9) or 10 < n < 15]


def _pair(ru: str, en: str, lang: str, kind: str) -> Phrase:
    english = _sentence(en)
    return Phrase(lang, _sentence(ru) if lang == "ru" else english, english, kind)


def _dated(rng: np.random.Generator, lang: str) -> Phrase:
    """A date, a time, or a telephone number."""
    kind = rng.random()
    if kind < 0.4:
        return _pair(*dates.date(rng), lang, "date")
    if kind < 0.72:
        return _pair(*dates.time_phrase(rng, say), lang, "time")
    russian, english = dates.phone(rng, say)
    return _pair(*(russian if lang == "ru" else english), lang, "phone")


def spelled(rng: np.random.Generator, lang: str) -> Phrase:
    """Letters; the synthesizers read their names. Translating them means writing them as they sound."""
    table = dates.EN_LETTERS if lang == "en" else dates.RU_LETTERS
    sounds = dates.EN_LETTER_SOUNDS if lang == "en" else dates.RU_LETTER_SOUNDS
    places = [int(v) for v in rng.integers(0, len(table), int(rng.integers(2, 6)))]
    words = tuple(" ".join(table[p] for p in places).split())
    words = (*words[:-1], words[-1] + ".")
    english = words if lang == "en" else tuple(dates.LATIN[p] for p in places)
    if lang == "ru":
        english = (*english[:-1], english[-1] + ".")
    return Phrase(lang, words, english, "letters", tuple(sounds[p] for p in places))


def random_phrase(rng: np.random.Generator, lang: str) -> Phrase:
    """Digits 20 %, strings 24 %, numbers 14 %, dates, times and phones 12 %, letters 3 %, phrases 27 %."""
    kind = rng.random()
    if kind < 0.20:
        return phrase(lang, [int(rng.integers(0, 10))], "digit")
    if kind < 0.44:
        return phrase(lang, _string(rng))
    if kind < 0.53:
        return phrase(lang, [random_number(rng)], "number")
    if kind < 0.58:
        return phrase(lang, [random_number(rng), random_number(rng)], "number")
    if kind < 0.70:
        return _dated(rng, lang)
    if kind < 0.73:
        return spelled(rng, lang)
    return _everyday(rng, lang)


def written(words: tuple[str, ...] | list[str]) -> str:
    """The words as Whisper writes them: " Four zero four."."""
    return " " + " ".join(words)


def vocabulary() -> dict[str, list[str]]:
    """Every written word without its punctuation, by language; drawn from the grammar itself."""
    rng = np.random.default_rng(1)
    found: dict[str, set[str]] = {"en": set(), "ru": set()}
    for lang in LANGUAGES:
        for _ in range(30_000):
            item = random_phrase(rng, lang)
            found[lang] |= {w.strip(".,?") for w in item.words}
            found["en"] |= {w.strip(".,?") for w in item.english}
    return {lang: sorted(words) for lang, words in found.items()}


def normalise(text: str) -> list[str]:
    """Lower-case words without punctuation, for word error rates."""
    kept = "".join(c if c.isalnum() else " " for c in text.lower())
    return kept.split()
