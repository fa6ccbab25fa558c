"""Synthesise the utterances and keep them as shards: NAME.i16 (samples) and NAME.json (what they say).

python data.py --out data --part 0 --parts 2      # one of two processes
"""

import argparse
import json
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from diphones import BRITONS, HELD, SPEAKERS, Speaker, arrange, sounds, speak
from foreign import ENGLISH_ACCENTS, ENGLISH_DIGITS, ENGLISH_NEIGHBOURS, RUSSIAN_DIGITS
from picks import (
    Pick,
    Utterance,
    few_digits,
    one_digit,
    one_word,
    read_out,
    respelt,
    single_digit,
)
from recorded import pico_foreigners, pico_utterances, rhvoice_utterances
from rhvoice import ENGLISH, NEIGHBOURS, RUSSIAN
from speakers import BREATHY, NAMES, data_folder
from text import phrase, random_phrase, spelled
from voices import RATE, Espeak, Flite, festival, trim, whispered

EN_ACCENTS = (
    "en-us",
    "en-us",
    "en-us",
    "en-gb",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-029",
    "en-us-nyc",
)
RU_ACCENTS = ("ru", "ru", "ru", "ru-lv")
VARIANTS = (
    "Alex Alicia Andrea Andy AnxiousAndy Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario Mike Mr Nguyen "
    "RicishayMax RicishayMax2 RicishayMax3 Storm Tweaky adam anika announcer antonio aunty belinda benjamin boris "
    "caleb david ed edward edward2 f1 f2 f3 f4 fast grandma grandpa gustave iven iven2 iven3 iven4 john kaukovalta "
    "klatt klatt2 klatt3 klatt4 klatt6 linda m1 m2 m3 m4 m5 m6 m8 marcelo max michel miguel norbert pablo paul pedro "
    "quincy rob robert robosoft robosoft5 sandro shelby steph steph2 steph3 travis victor zac"
).split()
# Never trained on: the model is measured on these.
HELD_VARIANTS = "Michael Annie Denis f5 m7 klatt5 whisper".split()
HELD_ACCENT = "en-gb-scotland"
HELD_FLITE = "rms"


def espeak_utterances(
    lang: str, count: int, rng: np.random.Generator, held: bool, pick: Pick = random_phrase
) -> Iterator[Utterance]:
    """espeak-ng in many variants and accents, half of them speakers of our own, at any speed and pitch."""
    engine = Espeak(data_folder())
    accents = EN_ACCENTS if lang == "en" else RU_ACCENTS
    for _ in range(count):
        accent = str(rng.choice(accents))
        named = HELD_VARIANTS if held else VARIANTS if rng.random() < 0.5 else NAMES
        variant = str(rng.choice(named))
        if held and lang == "en" and rng.random() < 0.2:
            accent, variant = HELD_ACCENT, str(rng.choice(VARIANTS))
        voice = accent if not held and rng.random() < 0.06 else f"{accent}+{variant}"
        item = pick(rng, lang)
        gap = int(rng.integers(1, 18)) if rng.random() < 0.25 else 0
        rate, pitch, spread = (
            int(rng.integers(105, 260)),
            int(rng.integers(15, 90)),
            int(rng.integers(10, 95)),
        )
        spoken = engine.say(read_out(rng, item), voice, rate, pitch, spread, gap)
        if spoken is not None:
            yield item, f"espeak:{voice}", spoken


def foreign_utterances(lang: str, count: int, rng: np.random.Generator) -> Iterator[Utterance]:
    """Digits in the mouths of other languages' espeak voices."""
    engine = Espeak(data_folder())
    table = ENGLISH_DIGITS if lang == "en" else RUSSIAN_DIGITS
    for _ in range(count):
        mouth = str(rng.choice(list(table)))
        spelt = table[mouth].split()
        size = 1 if rng.random() < 0.6 else int(rng.integers(2, 5))
        digits = [int(v) for v in rng.integers(0, 10, size)]
        voice = f"{mouth}+{rng.choice(NAMES if rng.random() < 0.6 else VARIANTS)}"
        rate, pitch = int(rng.integers(105, 230)), int(rng.integers(15, 90))
        spoken = engine.say(
            [spelt[d] for d in digits], voice, rate, pitch, 50, int(rng.integers(0, 10))
        )
        if spoken is not None:
            kind = "digit" if size == 1 else "string"
            yield phrase(lang, digits, kind), f"foreign:{voice}", spoken


def flite_utterances(
    count: int, rng: np.random.Generator, held: bool, pick: Pick = random_phrase
) -> Iterator[Utterance]:
    """flite's CMU voices."""
    engine = Flite()
    voices = [HELD_FLITE] if held else [v for v in Flite.VOICES if v != HELD_FLITE]
    for _ in range(count):
        voice, item = str(rng.choice(voices)), pick(rng, "en")
        spoken = engine.say(read_out(rng, item), voice, float(rng.uniform(0.7, 1.4)))
        if spoken is not None:
            yield item, f"flite:{voice}", spoken


def festival_utterances(
    voice: str, lang: str, count: int, rng: np.random.Generator
) -> Iterator[Utterance]:
    """festival's voices."""
    items = [random_phrase(rng, lang) for _ in range(count)]
    stretches = [float(rng.uniform(0.75, 1.3)) for _ in items]
    texts = [read_out(rng, item) for item in items]
    for item, spoken in zip(items, festival(voice, texts, stretches), strict=True):
        if spoken is not None:
            yield item, f"festival:{voice}", spoken


def speaker_utterances(
    speaker: Speaker, lang: str, count: int, rng: np.random.Generator, pick: Pick = random_phrase
) -> Iterator[Utterance]:
    """A recorded speaker of another language."""
    engine = Espeak(data_folder())
    for begun in range(0, count, 200):
        items, lines = [], []
        for _ in range(min(200, count - begun)):
            item = pick(rng, lang)
            accent = "ru" if lang == "ru" else str(rng.choice(["en-us", "en", "en-gb-x-rp"]))
            rate, rhotic = int(rng.integers(105, 235)), rng.random() < speaker.rhotic
            said = sounds(engine, lang, read_out(rng, item), accent, rate, rhotic)
            line = arrange(rng, speaker, said) if said is not None else None
            if line is not None and len(line.words) == len(item.words):
                items.append(item)
                lines.append(line)
        for item, spoken in zip(items, speak(speaker, lines), strict=True):
            if spoken is not None:
                yield item, f"diphones:{speaker.voice}", spoken


def breathy_utterances(
    lang: str, count: int, rng: np.random.Generator, pick: Pick = random_phrase
) -> Iterator[Utterance]:
    """espeak-ng's voices nearly without a tone."""
    engine = Espeak(data_folder())
    for _ in range(count):
        item = pick(rng, lang)
        voice = f"{rng.choice(['en-us', 'en', 'en-gb-x-rp']) if lang == 'en' else 'ru'}+{rng.choice(BREATHY)}"
        rate, pitch = int(rng.integers(105, 240)), int(rng.integers(15, 90))
        spoken = engine.say(read_out(rng, item), voice, rate, pitch, 50, int(rng.integers(0, 8)))
        if spoken is not None:
            yield item, f"espeak:{voice}", spoken


def whispers(some: Iterator[Utterance], rng: np.random.Generator) -> Iterator[Utterance]:
    """The same utterances, whispered."""
    for item, voice, spoken in some:
        yield item, f"whispered:{voice}", whispered(spoken, rng)


def write_shard(out: Path, name: str, utterances: Iterator[Utterance]) -> None:
    """Trim, level, and store; the json appears last, so a shard with one is whole."""
    records, position = [], 0
    with Path(out, f"{name}.i16").open("wb") as samples:
        for item, voice, spoken in utterances:
            cut = trim(spoken)
            if cut is None or len(cut.audio) > 9 * RATE:
                continue
            audio = cut.audio / max(float(np.abs(cut.audio).max()), 1e-3) * 0.7
            samples.write((audio * 32767).astype(np.int16).tobytes())
            times = [[round(s, 3), round(e, 3)] for s, e in cut.times]
            records.append(
                [
                    position,
                    len(audio),
                    item.lang,
                    list(item.words),
                    list(item.english),
                    times,
                    voice,
                    item.kind,
                ]
            )
            position += len(audio)
    Path(out, f"{name}.json").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    print(f"{name}: {len(records)} utterances, {position / RATE / 3600:.2f} h", flush=True)


Job = tuple[str, Callable[[np.random.Generator], Iterator[Utterance]]]
MSU = "voice_msu_ru_nsh_clunits"


def british_utterances(count: int, rng: np.random.Generator) -> Iterator[Utterance]:
    """espeak-ng's British English."""
    engine = Espeak(data_folder())
    for _ in range(count):
        item = random_phrase(rng, "en")
        voice = f"en+{rng.choice(VARIANTS if rng.random() < 0.5 else NAMES)}"
        rate, pitch, spread = rng.integers(105, 260), rng.integers(15, 90), rng.integers(10, 95)
        spoken = engine.say(read_out(rng, item), voice, int(rate), int(pitch), int(spread))
        if spoken is not None:
            yield item, f"espeak:{voice}", spoken


def jobs(scale: float) -> list[Job]:
    """All shards, in the order in which they should be made (training may start on the first ones)."""

    def n(count: int) -> int:
        return max(8, int(count * scale))

    plan: list[Job] = [
        ("held-espeak-en", lambda r: espeak_utterances("en", n(1100), r, True)),
        ("held-espeak-ru", lambda r: espeak_utterances("ru", n(1500), r, True)),
        ("held-flite", lambda r: flite_utterances(n(500), r, True)),
    ]
    for block in range(6):
        plan += [
            (f"espeak-en-{block}", lambda r: espeak_utterances("en", n(4000), r, False)),
            (f"espeak-ru-{block}", lambda r: espeak_utterances("ru", n(5000), r, False)),
        ]
        if block % 2 == 0:
            plan += [
                (f"flite-{block}", lambda r: flite_utterances(n(2500), r, False)),
                (
                    f"digits-en-{block}",
                    lambda r: espeak_utterances("en", n(4000), r, False, one_digit),
                ),
                (
                    f"digits-ru-{block}",
                    lambda r: espeak_utterances("ru", n(2000), r, False, one_digit),
                ),
                (f"digits-flite-{block}", lambda r: flite_utterances(n(800), r, False, one_digit)),
                (f"foreign-en-{block}", lambda r: foreign_utterances("en", n(3000), r)),
                (f"foreign-ru-{block}", lambda r: foreign_utterances("ru", n(1000), r)),
            ]
        if block >= 4:
            continue
        for voice in ("voice_cmu_us_slt_arctic_hts", "voice_kal_diphone", "voice_ked_diphone"):
            plan.append(
                (f"{voice}-{block}", lambda r, v=voice: festival_utterances(v, "en", n(400), r))
            )
        plan.append((f"{MSU}-{block}", partial(festival_utterances, MSU, "ru", n(1300))))
    return plan + more_jobs(n) + late_jobs(n) + accent_jobs(n)


def more_jobs(n: Callable[[int], int]) -> list[Job]:
    """Recorded speakers of other languages, whispers, and what was short of examples."""
    plan: list[Job] = [
        (f"heldspeakers-{lang}", partial(held_speakers, lang, n(300))) for lang in ("en", "ru")
    ]
    for lang in ("ru", "en"):
        plan += [
            (f"breathy-{lang}", partial(breathy_utterances, lang, n(3000))),
            (
                f"whispered-{lang}",
                lambda r, o=lang: whispers(espeak_utterances(o, n(2500), r, False), r),
            ),
            (f"letters-{lang}", lambda r, o=lang: espeak_utterances(o, n(1600), r, False, spelled)),
        ]
    for name, speaker in SPEAKERS.items():
        for lang in speaker.languages if name not in HELD else ():
            say, digits = partial(speaker_utterances, speaker, lang), 1200 if lang == "en" else 400
            plan += [
                (f"{name}-{lang}", partial(say, n(1400))),
                (f"{name}-digits-{lang}", partial(say, n(digits), pick=one_digit)),
                (f"{name}-letters-{lang}", partial(say, n(200), pick=spelled)),
            ]
    return [
        *plan,
        ("espeak-gb", partial(british_utterances, n(2500))),
        ("letters-flite", lambda r: flite_utterances(n(700), r, False, spelled)),
        ("whispered-flite", lambda r: whispers(flite_utterances(n(1500), r, False), r)),
        ("whispered-msu", lambda r: whispers(festival_utterances(MSU, "ru", n(1000), r), r)),
        (f"{MSU}-4", partial(festival_utterances, MSU, "ru", n(1300))),
    ]


def late_jobs(n: Callable[[int], int]) -> list[Job]:
    """Speakers from outside Debian's main."""
    plan: list[Job] = []
    for lang, own, other, spelt in (
        ("en", ENGLISH, RUSSIAN, ENGLISH_DIGITS["ru"]),
        ("ru", RUSSIAN, ENGLISH, RUSSIAN_DIGITS["en-us"]),
    ):
        english = lang == "en"
        say = partial(rhvoice_utterances, lang, own)
        accent = partial(rhvoice_utterances, lang, other)
        plan += [
            (f"rhvoice-digits-{lang}-{part}", partial(say, n(2500), pick=few_digits))
            for part in range(2 if english else 1)
        ]
        spell = partial(accent, n(2000 if english else 1000), pick=respelt([spelt], few_digits))
        plan.append((f"rhvoice-respelt-{lang}", spell))
        if english:  # Russian voices read English, too
            plan.append(("rhvoice-accent-digits-en", partial(accent, n(2000), pick=few_digits)))
            plan.append(("rhvoice-accent-en", partial(accent, n(3000))))
        plan += [
            (f"rhvoice-{lang}-{part}", partial(say, n(3000))) for part in range(4 if english else 3)
        ]
        plan.append((f"rhvoice-letters-{lang}", partial(say, n(800), pick=spelled)))
        for name, speaker in BRITONS.items():
            say, digits = partial(speaker_utterances, speaker, lang), 1800 if english else 400
            plan += [
                (f"{name}-{lang}", partial(say, n(2500 if english else 1200))),
                (f"{name}-digits-{lang}", partial(say, n(digits), pick=few_digits)),
            ]
            if english:
                plan.append((f"{name}-letters-en", partial(say, n(300), pick=spelled)))
    return [
        *plan,
        ("pico-digits-en", partial(pico_utterances, n(2400), pick=single_digit)),
        ("pico-words-en", partial(pico_utterances, n(1000), pick=one_word)),
        ("pico-foreign-en", partial(pico_foreigners, n(2400))),
    ]


def accent_jobs(n: Callable[[int], int]) -> list[Job]:
    """RHVoice's speakers of neighbouring languages, and digits with accents by the English voices."""
    plan: list[Job] = []
    for code, voices in NEIGHBOURS.items():
        say = partial(rhvoice_utterances, "en", voices)
        spell = respelt([ENGLISH_NEIGHBOURS[code]], few_digits)
        plan.append((f"rhvoice-{code}-respelt-en", partial(say, n(600 * len(voices)), pick=spell)))
        if code != "eo":  # which has no table for English words
            plan.append((f"rhvoice-{code}-en", partial(say, n(900 * len(voices)), pick=few_digits)))
        spell = respelt([RUSSIAN_DIGITS[code]], few_digits)
        say = partial(rhvoice_utterances, "ru", voices)
        plan.append((f"rhvoice-{code}-respelt-ru", partial(say, n(400 * len(voices)), pick=spell)))
    accents = list(ENGLISH_ACCENTS.values())
    few, single = respelt(accents, few_digits), respelt(accents, single_digit)
    plan += [
        (
            f"rhvoice-accents-en-{part}",
            partial(rhvoice_utterances, "en", ENGLISH, n(2500), pick=few),
        )
        for part in range(2)
    ]
    plan += [
        (f"{name}-accents-en", partial(speaker_utterances, speaker, "en", n(1500), pick=few))
        for name, speaker in BRITONS.items()
    ]
    return [
        *plan,
        ("pico-accents-en", partial(pico_utterances, n(2400), pick=single)),
        ("espeak-accents-en", lambda r: espeak_utterances("en", n(3000), r, False, few)),
        ("flite-accents", lambda r: flite_utterances(n(1500), r, False, few)),
    ]


def held_speakers(lang: str, count: int, rng: np.random.Generator) -> Iterator[Utterance]:
    """The recorded speakers that are only listened to."""
    for name in HELD:
        yield from speaker_utterances(SPEAKERS[name], lang, count, rng)


def main() -> None:
    """Write this process's share of the shards, skipping those already there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data")
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="a smaller number makes a smaller set"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, make in jobs(arguments.scale)[arguments.part :: arguments.parts]:
        if not Path(arguments.out, f"{name}.json").exists():
            write_shard(arguments.out, name, make(np.random.default_rng(zlib.crc32(name.encode()))))


if __name__ == "__main__":
    main()
