"""Recorded speakers, most of other languages, led phone by phone through English and Russian.

espeak-ng turns a text into phones with durations. A table of the speaker's language says which of
its sounds stands for each, as people with an accent do, and festival joins the speaker's recorded
diphones at those times. So the time of every word is known.
"""

import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile

from voices import Espeak, Spoken, to_rate

VOICES = Path("/usr/share/festival/voices")
UNPACKED = Path("/usr/local/share/festival/voices")  # Britons, without the lexicon they ask for
Sound = tuple[str, float]  # a phone of ours and its seconds; "_" is silence, "|" begins a word

# espeak-ng's phones as ours: one sign a sound, ' for palatalised, + for an r that not everybody says.
ENGLISH = {
    "i:": "i", "i": "i", "I": "I", "I2": "I", "I#": "I", "E": "E", "E2": "E", "a": "{", "aa": "{", "0": "O",
    "O:": "O", "O2": "O", "A:": "A", "A": "A", "V": "V", "U": "U", "u:": "u", "u": "u", "3:": "3 +", "3": "@ +",
    "@": "@", "@2": "@", "@5": "@", "a#": "@", "@-": "@", "@L": "@ l", "aI": "a I", "aI2": "a I", "eI": "e I",
    "oU": "o U", "aU": "a U", "OI": "O I", "i@": "I @", "i@3": "I @ +", "o@": "O +", "O@": "O +", "A@": "A +",
    "e@": "E +", "U@": "U +", "aI@": "a I @", "aI3": "a I @ +", "IR": "@ +", "VR": "@ +", "t#": "t", "t2": "t",
    "r-": "r", "w#": "w", "l#": "l", "n-": "n", "@L#": "@ l",
} | {c: c for c in "p b t d k g f v T D s z S Z h tS dZ m n N l r j w".split()}  # fmt: skip
RUSSIAN = {
    "A": "a", "a": "a", "V": "a", "a#": "@", "@": "@", "@-": "@", "i": "i", "I": "i", "y": "y", "o": "o",
    "8": "o", "e": "e", "E": "e", "E#": "e", "u": "u", "u\"": "u", "u#": "u", "ja": "j a", "ju": "j u",
    "tS;": "tS'", "dZ;": "dZ'", "S;": "S'", "n_": "n", "x": "x", "ts": "ts", "j": "j",
} | {c: c for c in "p b t d k g f v s z S Z m n l r".split()}  # fmt: skip
RUSSIAN |= {c + ";": c + "'" for c in "p b t d k g f v s z m n l r x".split()}

# Ours as a speaker's: alternatives between bars; what is missing is the same.
CZECH = {
    "i": "i:|i", "I": "i|e", "E": "e", "{": "e|a|e:", "a": "a|a:", "A": "a:|a", "O": "o|o:", "o": "o|o:|o u",
    "u": "u:|u", "U": "u", "@": "e|a", "V": "a", "3": "e:|e", "y": "i|e", "T": "t|s|f", "D": "d|z", "S": "s~",
    "Z": "z~", "tS": "c~", "dZ": "dz~", "ts": "c", "x": "ch", "h": "h|ch", "w": "v|u", "N": "n*|n",
    "t'": "t~", "d'": "d~", "n'": "n~", "S'": "s~|s~ c~", "tS'": "c~", "dZ'": "dz~", "x'": "ch",
}  # fmt: skip
ITALIAN = {
    "i": "i1|i", "I": "i|i1|j", "e": "e1|e", "E": "E1|e1|e", "{": "E1|a1|a", "a": "a1|a", "A": "a1|a",
    "O": "O1|o1|o", "o": "o1|o", "u": "u1|u", "U": "u|u1|w", "@": "e|a|e1", "V": "a1|a", "3": "e1|E1", "y": "i1|i",
    "T": "t|f|s", "D": "d|z", "h": "|k", "x": "k", "N": "ng|n", "w": "w|u", "n'": "J|n j", "l'": "L|l j|l",
    "S'": "S", "tS'": "tS", "dZ'": "dZ", "x'": "k", "Z": "dZ|S|Z",
}  # fmt: skip
FINNISH = {
    "i": "i:|i", "I": "i|e|j", "E": "e|@", "{": "@|@:|e", "A": "a:|a", "O": "o|o:", "u": "u:|u", "U": "u|v",
    "@": "7|e|a", "V": "a|7", "3": "7:|7", "y": "i|y", "T": "t|s", "D": "d|t", "z": "s", "S": "S|s", "Z": "S|s",
    "tS": "t S|t s", "dZ": "d S|t s|d s", "ts": "t s", "x": "h", "w": "v|w", "b": "b|p", "g": "g|k", "f": "f|v",
    "S'": "S|s", "tS'": "t S|t s", "dZ'": "d S|t s", "x'": "h",
}  # fmt: skip
HINDI = {
    "i": "iy|ih", "I": "ih|iy|y", "e": "ee|eh", "E": "eh|ee", "{": "eh|aa", "a": "aa|a", "A": "aa", "O": "oh|aw|oo",
    "o": "oh|oo", "u": "uw|uh", "U": "uh|v|uw", "@": "a|aa", "V": "a|aa", "3": "a|aa", "y": "ih|iy", "t": "T|th",
    "d": "D|dh", "T": "th|tth", "D": "dh|ddh", "z": "j|s", "S": "sh", "Z": "zh|sh|j", "x": "kh|h", "tS": "ch",
    "dZ": "j", "ts": "th s|T s", "N": "n|n g", "j": "y", "w": "v|w", "S'": "sh", "tS'": "ch", "dZ'": "j",
    "x'": "kh|h", "t'": "th y|th|T", "d'": "dh y|dh|D",
}  # fmt: skip
AMERICAN = {
    "i": "iy", "I": "ih", "e": "ey|eh", "E": "eh", "{": "ae", "a": "aa|ah", "A": "aa", "O": "ao", "o": "ow|ao",
    "u": "uw", "U": "uh", "@": "ax|ah", "V": "ah", "3": "er", "y": "ih|iy", "T": "th", "D": "dh", "S": "sh",
    "Z": "zh|sh", "x": "hh|k", "h": "hh", "tS": "ch", "dZ": "jh", "ts": "t s", "N": "ng", "j": "y",
    "S'": "sh", "tS'": "ch", "dZ'": "jh", "x'": "hh|k",
}  # fmt: skip
# Two names before a colon are one recorded sound.
ROGER = {
    "i": "ii|i", "I": "i|ii", "e": "e|ei", "E": "e", "{": "a", "a": "a|aa|uh", "A": "aa|a", "O": "oo|o", "o": "oo|o|ou",
    "u": "uu|u", "U": "u", "@": "@|uh", "V": "uh|@", "3": "@@", "y": "i|ii", "T": "th", "D": "dh", "S": "sh",
    "Z": "zh", "x": "h|k", "tS": "ch", "dZ": "jh", "ts": "t s", "N": "ng", "j": "y", "S'": "sh", "tS'": "ch",
    "dZ'": "jh", "x'": "h|k", "a I": "ai", "e I": "ei", "o U": "ou", "a U": "au", "O I": "oi", "I @": "i@",
    "U @": "u@",
}  # fmt: skip
DONOVAN = ROGER | {
    "i": "ee|i", "I": "i|ee", "e": "e|ai", "E": "e", "{": "aa", "a": "aa|ar|u", "A": "ar|aa", "O": "aw|o",
    "o": "aw|o|oa", "u": "uu|oo", "U": "oo", "@": "a|u", "V": "u|a", "3": "er", "y": "i|ee", "dZ": "j", "dZ'": "j",
    "a I": "ie", "e I": "ai", "o U": "oa", "a U": "ou", "I @": "eer", "U @": "oor",
}  # fmt: skip
RAB_GROUP = "english/rab_diphone/group/rablpc16k.group"
DON_INDEX = "english/don_diphone/diphlocs.txt"
# Their own definitions load a lexicon that is not free.
ROGER_SETUP = f"""(voice_reset) (require 'mrpa_phones) (require_module 'UniSyn)
(Parameter.set 'PhoneSet 'mrpa) (PhoneSet.select 'mrpa) (set! after_synth_hooks nil) (set! UniSyn_module_hooks nil)
(set! us_abs_offset 0.0) (set! us_rel_offset 0.0) (set! window_factor 1.0) (set! us_gain 0.9)
(Parameter.set 'Synth_Method 'UniSyn) (Parameter.set 'us_sigpr 'lpc)
(us_db_select (us_diphone_init (list '(name "rab") '(grouped "true") '(default_diphone @-@@)
'(alternates_left ((i ii) (u uu) (i@ ii) (uh @) (a aa) (u@ uu) (o oo) (e@ ei) (e ei) (y ii) (r @)))
(list 'index_file "{UNPACKED / RAB_GROUP}"))))"""
DONOVAN_SETUP = f"""(voice_reset) (require 'holmes_phones) (require_module 'donovan)
(Parameter.set 'PhoneSet 'holmes) (PhoneSet.select 'holmes) (set! after_synth_hooks nil)
(Donovan_Init (list (list 'index_file "{UNPACKED / DON_INDEX}")
(list 'diphone_file "{UNPACKED / DON_INDEX.replace("diphlocs.txt", "lpcdiphs.bin")}")))
(Parameter.set 'Synth_Method 'Donovan_Synthesize)"""


@dataclass(frozen=True)
class Speaker:
    """A recorded speaker: festival's name for the voice, where its diphones lie, table, pitch in hertz.

    `setup` takes the place of festival's own definition of the voice.
    """

    voice: str
    group: str
    table: dict[str, str]
    pitch: float
    silence: str = "#"
    languages: tuple[str, ...] = ("en", "ru")
    setup: str = ""
    rhotic: float = 0.6  # how often it says every written r
    glides: bool = True  # whether a j may follow a palatalised consonant where no vowel does


SPEAKERS = {
    "dita": Speaker("czech_dita", "czech/czech_dita/group/dita.group", CZECH, 190),
    "krb": Speaker("czech_krb", "czech/czech_krb/group/krb.group", CZECH, 190),
    "machac": Speaker("czech_machac", "czech/czech_machac/group/machac.group", CZECH, 105),
    "ph": Speaker("czech_ph", "czech/czech_ph/group/ph.group", CZECH, 105),
    "lp": Speaker("lp_diphone", "italian/lp_diphone/group/lp_diphone.group", ITALIAN, 190),
    "pc": Speaker("pc_diphone", "italian/pc_diphone/group/pc_diphone.group", ITALIAN, 115),
    "lj": Speaker("suo_fi_lj_diphone", "finnish/suo_fi_lj_diphone/group/ljlpc.group", FINNISH, 185),
    "mv": Speaker("hy_fi_mv_diphone", "finnish/hy_fi_mv_diphone/group/mvlpc.group", FINNISH, 105),
    "nsk": Speaker(
        "hindi_NSK_diphone", "hindi/hindi_NSK_diphone/group/NSKlpc.group", HINDI, 120, "pau"
    ),
    "kal": Speaker(
        "kal_diphone",
        "english/kal_diphone/group/kallpc16k.group",
        AMERICAN,
        105,
        "pau",
        ("ru",),
    ),
    "ked": Speaker(
        "ked_diphone",
        "english/ked_diphone/group/kedlpc16k.group",
        AMERICAN,
        105,
        "pau",
        ("ru",),
    ),
}
BRITONS = {
    "rab": Speaker("rab_diphone", RAB_GROUP, ROGER, 115, setup=ROGER_SETUP, rhotic=0, glides=False),
    "don": Speaker(
        "don_diphone", DON_INDEX, DONOVAN, 125, setup=DONOVAN_SETUP, rhotic=0, glides=False
    ),
}
VOICELESS = {
    "b": "p", "d": "t", "g": "k", "v": "f", "z": "s", "z~": "s~", "d~": "t~", "dz": "c", "dz~": "c~", "n*": "n",
    "Z": "S", "dZ": "tS",
}  # fmt: skip
LEAD, GAP = 0.12, 0.015  # seconds of silence around a phrase, and where a joint is missing
VOWELS = "iIeE{aAOouU@V3y"
HELD = ("krb", "mv")  # two men who are never trained on


@lru_cache
def joints(group: str) -> frozenset[str]:
    """The names of all diphones that a voice has."""
    folder = VOICES if Path(VOICES, group).exists() else UNPACKED
    head, mark, rest = Path(folder, group).read_bytes().partition(b"EST_Header_End\n")
    if not mark:  # a plain list
        return frozenset(line.split()[0].decode("ascii") for line in head.splitlines())
    count = next(int(line.split()[1]) for line in head.split(b"\n") if b"NumEntries" in line)
    return frozenset(line.split()[0].decode("ascii") for line in rest.split(b"\n", count)[:count])


def sounds(
    engine: Espeak, lang: str, words: list[str], voice: str, rate: int, rhotic: bool
) -> list[Sound] | None:
    """What espeak-ng would say, as our phones; None when it has one that no table knows."""
    if engine.say(words, voice, rate, 50, 50) is None:
        return None
    places = {0, *np.cumsum([len(word) + 1 for word in words[:-1]]).tolist()}
    if not places <= {position for position, _ in engine.words}:
        return None  # words run together: their times are not known
    table, found = ENGLISH if lang == "en" else RUSSIAN, list[Sound]()
    heard = engine.phones
    for (name, start), (_, end) in pairwise([*heard, ("_", heard[-1][1])]):
        if name.startswith("|"):
            if int(name[1:]) in places:
                found.append(("|", 0.0))
        elif name == ";":
            _soften(found, lang, end - start)
        elif name in ("_", "_:"):
            found += [("_", end - start)] if end > start else []
        elif name in table:
            signs = [s for s in table[name].split() if s != "+" or rhotic]
            found += [("r" if s == "+" else s, (end - start) / len(signs)) for s in signs]
        else:
            return None
    return found


def glided(table: dict[str, str], said: list[Sound]) -> list[Sound]:
    """Put together the pairs that the table has as one sound."""
    found: list[Sound] = []
    for name, seconds in said:
        pair = f"{found[-1][0]} {name}" if found else ""
        if pair in table:
            found[-1] = (pair, found[-1][1] + seconds)
        else:
            found.append((name, seconds))
    return found


def _soften(found: list[Sound], lang: str, seconds: float) -> None:
    """The sign behind a phone: in Russian it is palatalised, in English it lasts longer."""
    if found and found[-1][0] != "|":
        last, length = found[-1]
        soft = lang == "ru" and last != "_" and not last.endswith("'") and last not in "aeiouy@"
        found[-1] = (last + "'" * soft, length + seconds)


@dataclass
class Line:
    """What one speaker is to say: (phone, seconds, hertz or 0), and each word's first and last moment."""

    segments: list[tuple[str, float, float]]
    words: list[tuple[float, float]]

    def stretch(self, end: float) -> None:
        """The last word lasts until then."""
        self.words[-1] = (self.words[-1][0], end)

    def end(self, has: frozenset[str], quiet: str, seconds: float) -> None:
        """A silence, before which few voices have voiced consonants."""
        name, length, hertz = self.segments[-1]
        if name == quiet and f"{quiet}-{quiet}" not in has:  # festival would put a vowel there
            self.segments[-1] = (quiet, length + seconds, 0)
            return
        if f"{name}-{quiet}" not in has:
            self.segments[-1] = (VOICELESS.get(name, name), length, hertz)
        self.segments.append((quiet, seconds, 0))


class Tune:
    """A voice's pitch over one phrase: it falls or rises, and wanders."""

    def __init__(self, rng: np.random.Generator, middle: float, seconds: float) -> None:
        self.rng, self.seconds = rng, seconds
        self.middle = middle * float(np.exp(rng.uniform(-0.28, 0.28)))
        self.spread, self.fall = rng.uniform(0.02, 0.22), rng.uniform(-0.25, 0.4)

    def at(self, moment: float) -> float:
        """Hertz at that second."""
        bend = self.fall * (0.5 - moment / self.seconds)
        return self.middle * float(np.exp(self.rng.normal(0, self.spread) + bend))


def arrange(rng: np.random.Generator, speaker: Speaker, said: list[Sound]) -> Line | None:
    """Choose the speaker's sounds, drag and hurry them, and lay a tune; None where diphones are missing."""
    has, quiet = joints(speaker.group), speaker.silence
    said = glided(speaker.table, said)
    pace = float(np.exp(rng.normal(0, 0.05)))
    choice = {name: int(rng.choice([0, 0, 0, 1, 1, 2])) for name, _ in said}
    apart = float(rng.uniform(0.02, 0.09)) if rng.random() < 0.35 else 0.0  # words said one by one
    tune = Tune(rng, speaker.pitch, sum(s for _, s in said) + 0.1)
    line, at = Line([(quiet, LEAD, 0)], []), LEAD
    open_word = False
    for place, (name, seconds) in enumerate(said):
        if name == "|":
            if open_word:
                return None  # a word without a sound
            open_word = True
            if apart and line.words:
                line.end(has, quiet, apart)
                at += apart
            continue
        if name == "_":
            line.end(has, quiet, max(seconds, 0.03))
            at += max(seconds, 0.03)
            continue
        following = next((n for n, _ in said[place + 1 :] if n not in "|_"), "")
        options = _options(speaker.table, name, following, choice[name])
        if name.endswith("'") and not speaker.glides:
            beside = said[place + 1][0] if place + 1 < len(said) else "_"
            options = [o for o in options if beside[0] in VOWELS or len(o) == 1] or options
        fitting, gap = _fitting(has, line.segments[-1][0], options, quiet)
        if fitting is None or not (open_word or line.words):
            return None
        if gap:
            line.end(has, quiet, GAP)
            at += GAP
        first = at
        seconds *= pace * float(np.exp(rng.normal(0, 0.12)))
        for one in fitting:
            length = max(seconds / len(fitting), 0.02)
            line.segments.append((one, length, tune.at(at) if name[0] in VOWELS else 0.0))
            at += length
        line.words.append((first, at)) if open_word else line.stretch(at)
        open_word = False
    line.end(has, quiet, LEAD)
    return None if open_word else line


def _fitting(
    has: frozenset[str], before: str, options: list[list[str]], quiet: str
) -> tuple[list[str] | None, bool]:
    """The first way to say a phone that can follow, if need be after a short silence."""
    for gap in (False, True):
        for option in options:
            names = [quiet if gap else before, *option]
            if option and all(f"{a}-{b}" in has for a, b in pairwise(names)):
                return option, gap
    return None, False


def _options(table: dict[str, str], name: str, following: str, first: int) -> list[list[str]]:
    """The ways to say a phone, the preferred one first."""
    if name in table:
        some = [o.split() for o in table[name].split("|")]
    elif name.endswith("'"):
        plain = _options(table, name[:-1], following, first)
        glide = table.get("j", "j").split("|")[0]
        soft = following[:1] in ("i", "e", "I", "E", "j")
        some = [[*o, glide] for o in plain]
        return plain + some if soft else some + plain
    else:
        some = [[name]]
    first = min(first, len(some) - 1)
    return [some[first], *some[:first], *some[first + 1 :]]


def speak(speaker: Speaker, lines: list[Line]) -> list[Spoken | None]:
    """Let festival say all lines; it goes on behind a line that it crashes on."""
    with tempfile.TemporaryDirectory() as folder:
        first = 0
        while first < len(lines):
            script = [speaker.setup or f"(voice_{speaker.voice})"]
            for number, line in enumerate(lines[first:], first):
                parts = " ".join(
                    f'("{name}" {seconds:.4f}'
                    + (f" ({seconds / 2:.4f} {hertz:.0f}))" if hertz else ")")
                    for name, seconds, hertz in line.segments
                )
                script.append(f"(set! u (utt.synth (Utterance Segments ({parts}))))")
                script.append(f'(utt.save.wave u "{folder}/{number}.wav" \'riff)')
            path = Path(folder, "all.scm")
            path.write_text("\n".join(script), encoding="utf-8")
            subprocess.run(["festival", "-b", str(path)], check=False, capture_output=True)
            done = [n for n in range(first, len(lines)) if Path(folder, f"{n}.wav").exists()]
            first = max(done, default=first) + (2 if done else 1)
        return [_result(Path(folder, f"{n}.wav"), line) for n, line in enumerate(lines)]


def _result(path: Path, line: Line) -> Spoken | None:
    if not path.exists() or path.stat().st_size < 1000:  # it crashed on this line
        return None
    audio, rate = soundfile.read(path, dtype="float32")
    expected = sum(seconds for _, seconds, _ in line.segments)
    if abs(len(audio) / rate - expected) > 0.15 or not len(audio):
        return None
    if not all(audio[int(a * rate) : int(b * rate)].any() for a, b in line.words):
        return None  # Donovan leaves out what is very short
    return Spoken(to_rate(audio, rate), line.words)
