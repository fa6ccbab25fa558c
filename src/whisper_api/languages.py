"""The languages Whisper has tokens for: codes, English names, and every spelling callers use.

The order is Whisper's own: the token of the n-th language is the n-th id after
``<|startoftranscript|>`` (openai/whisper, ``tokenizer.py``). Cantonese is the last one; models
before large-v3 do not have it.
"""

from __future__ import annotations

from difflib import get_close_matches

from whisper_api.errors import InvalidOption

# Whisper's code, ISO 639-3 code, English name in lower case.
_TABLE = """
en eng english
zh zho chinese
de deu german
es spa spanish
ru rus russian
ko kor korean
fr fra french
ja jpn japanese
pt por portuguese
tr tur turkish
pl pol polish
ca cat catalan
nl nld dutch
ar ara arabic
sv swe swedish
it ita italian
id ind indonesian
hi hin hindi
fi fin finnish
vi vie vietnamese
he heb hebrew
uk ukr ukrainian
el ell greek
ms msa malay
cs ces czech
ro ron romanian
da dan danish
hu hun hungarian
ta tam tamil
no nor norwegian
th tha thai
ur urd urdu
hr hrv croatian
bg bul bulgarian
lt lit lithuanian
la lat latin
mi mri maori
ml mal malayalam
cy cym welsh
sk slk slovak
te tel telugu
fa fas persian
lv lav latvian
bn ben bengali
sr srp serbian
az aze azerbaijani
sl slv slovenian
kn kan kannada
et est estonian
mk mkd macedonian
br bre breton
eu eus basque
is isl icelandic
hy hye armenian
ne nep nepali
mn mon mongolian
bs bos bosnian
kk kaz kazakh
sq sqi albanian
sw swa swahili
gl glg galician
mr mar marathi
pa pan punjabi
si sin sinhala
km khm khmer
sn sna shona
yo yor yoruba
so som somali
af afr afrikaans
oc oci occitan
ka kat georgian
be bel belarusian
tg tgk tajik
sd snd sindhi
gu guj gujarati
am amh amharic
yi yid yiddish
lo lao lao
uz uzb uzbek
fo fao faroese
ht hat haitian creole
ps pus pashto
tk tuk turkmen
nn nno nynorsk
mt mlt maltese
sa san sanskrit
lb ltz luxembourgish
my mya myanmar
bo bod tibetan
tl tgl tagalog
mg mlg malagasy
as asm assamese
tt tat tatar
haw haw hawaiian
ln lin lingala
ha hau hausa
ba bak bashkir
jw jav javanese
su sun sundanese
yue yue cantonese
"""

_ROWS = [line.split(" ", 2) for line in _TABLE.split("\n") if line]

LANGUAGES: dict[str, str] = {code: name for code, _, name in _ROWS}
"""Whisper's code -> English name in lower case, in the order of Whisper's language tokens."""

ALIASES: dict[str, str] = {
    **{name: code for code, _, name in _ROWS},
    **{iso3: code for code, iso3, _ in _ROWS},
    "burmese": "my",
    "castilian": "es",
    "farsi": "fa",
    "filipino": "tl",
    "flemish": "nl",
    "haitian": "ht",
    "letzeburgesch": "lb",
    "mandarin": "zh",
    "moldavian": "ro",
    "moldovan": "ro",
    "panjabi": "pa",
    "pushto": "ps",
    "sinhalese": "si",
    "valencian": "ca",
    # Other codes of the same languages: ISO 639-1 where Whisper differs, retired and 639-2/B ones.
    "jv": "jw",
    "iw": "he",
    "in": "id",
    "ji": "yi",
    "nb": "no",
    "nob": "no",
    "fil": "tl",
    "cmn": "zh",
    "zh-yue": "yue",
    "fre": "fr",
    "ger": "de",
    "chi": "zh",
    "cze": "cs",
    "dut": "nl",
    "gre": "el",
    "per": "fa",
    "rum": "ro",
    "slo": "sk",
    "wel": "cy",
    "arm": "hy",
    "baq": "eu",
    "bur": "my",
    "geo": "ka",
    "ice": "is",
    "mac": "mk",
    "mao": "mi",
    "may": "ms",
    "tib": "bo",
    "alb": "sq",
}
"""Other spellings, in lower case -> Whisper's code."""

UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Languages written without spaces between words."""

_AUTO = frozenset({"", "auto", "detect", "none"})


def parse_language(text: str | None, *, param: str = "language") -> str | None:
    """Whisper's code for a code or English name; None where the speech decides.

    Takes ISO 639-1 and 639-3 codes, region and script suffixes (``pt-BR``, ``zh_Hans``), English
    names in any case, and ``auto``.

    Raises:
        InvalidOption: not a known language (code ``invalid_language_format``).
    """
    key = (text or "").strip().lower().replace("_", "-")
    if key in _AUTO:
        return None
    for spelling in (key, key.split("-", 1)[0]):
        if spelling in LANGUAGES:
            return spelling
        if spelling in ALIASES:
            return ALIASES[spelling]
    raise InvalidOption(
        f"Unknown language {_shown(text)}.{_hint(key)} Use an ISO 639-1 code such as 'en', an"
        " English name such as 'english', or 'auto'.",
        param=param,
        code="invalid_language_format",
    )


def english_name(code: str) -> str:
    """The English name, in lower case, of one of Whisper's codes; unknown codes come back."""
    return LANGUAGES.get(code, code)


def _shown(text: str | None) -> str:
    return repr((text or "")[:40])


def _hint(key: str) -> str:
    near = get_close_matches(key, [name for name in ALIASES if len(name) > 3], n=1, cutoff=0.75)
    return f" Did you mean {near[0]!r}?" if near else ""
