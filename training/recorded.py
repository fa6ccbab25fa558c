"""Utterances of recorded speakers whose synthesizers Debian has outside main: RHVoice and SVOX Pico."""

from collections.abc import Iterator

import numpy as np

from foreign import ENGLISH_DIGITS
from picks import Pick, Utterance, read_out, respelt, single_digit
from pico import VOICES, Pico
from rhvoice import RHVoice
from text import random_phrase


def rhvoice_utterances(
    lang: str,
    voices: tuple[str, ...],
    count: int,
    rng: np.random.Generator,
    pick: Pick = random_phrase,
) -> Iterator[Utterance]:
    """RHVoice's speakers."""
    engine = RHVoice()
    for _ in range(count):
        item, voice = pick(rng, lang), str(rng.choice(voices))
        words = read_out(rng, item)
        rate, pitch = np.exp(rng.uniform([-0.36, -0.32], [0.41, 0.32]))
        rate *= 0.7 if item.kind == "letters" else 1.0  # people name letters slowly
        spoken = engine.say(words, voice, float(rate), float(pitch))
        if spoken is not None:
            yield item, f"rhvoice:{voice}", spoken


def pico_utterances(count: int, rng: np.random.Generator, pick: Pick) -> Iterator[Utterance]:
    """Pico's American and British women, a word at a time."""
    women = {language: Pico(language) for language in VOICES if language.startswith("en")}
    for _ in range(count):
        item, language = pick(rng, "en"), str(rng.choice(list(women)))
        spoken = women[language].say(read_out(rng, item)[0], *_manner(rng))
        yield item, f"pico:{language}", spoken


def pico_foreigners(count: int, rng: np.random.Generator) -> Iterator[Utterance]:
    """English digits by Pico's German, Spanish, French and Italian women."""
    women = {language: Pico(language) for language in VOICES if not language.startswith("en")}
    for _ in range(count):
        language = str(rng.choice(list(women)))
        item = respelt([ENGLISH_DIGITS[language[:2]]], single_digit)(rng, "en")
        yield item, f"pico:{language}", women[language].say(item.spoken[0], *_manner(rng))


def _manner(rng: np.random.Generator) -> tuple[int, int]:
    """Speed and pitch in hundredths."""
    speed, pitch = 100 * np.exp(rng.uniform([-0.45, -0.4], [0.5, 0.3]))
    return int(speed), int(pitch)
