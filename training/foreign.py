"""Digits spelt for other languages' rules, so that those languages' voices say them with an accent."""

ENGLISH_DIGITS = {
    "de": "siero wann tuh sri fohr faif ssicks ssewen äit nein",
    "fr": "zirow ouanne tou tri faur faïve sixe sévenne eïte naïne",
    "es": "sírou uan tu zri for faiv siks seven éit nain",
    "it": "zirou uan tu tri for faiv six seven eit nain",
    "pl": "zirou łan tu tri for fajw siks sewen ejt najn",
    "ru": "зи́роу уан ту сри фо файв сикс сэвен эйт найн",
    "nl": "ziero wan toe trie foor faaif siks sewen eet nain",
    "pt": "zírou uan tu tri fór faiv siks séven eit nain",
    "cs": "zírou uan tú srí fór fajv siks sevn ejt najn",
    "hu": "zíró uan tú szrí fór fájv sziksz szeven éjt nájn",
    "ro": "zirou uan tu tri for faiv sics seven eit nain",
    "fi": "siirou uan tuu srii foor faiv siks seven eit nain",
    "sv": "siro oan to tri får fajv sicks sewen ejt najn",
    "da": "siro wan tu tri for fajv siks seven ejt najn",
    "tr": "ziro van tu tri for fayv siks sevın eyt nayn",
    "el": "ζίροου ουάν του θρι φορ φάιβ σιξ σέβεν έιτ νάιν",
    "hr": "zirou uan tu tri for fajv siks seven ejt najn",
    "id": "zirou wan tu tri for faiv siks seven eit nain",
    "hi": "ज़ीरो वन टू थ्री फोर फाइव सिक्स सेवन एट नाइन",
}

# The same by English speakers of other places than a synthesizer's own, for English voices.
ENGLISH_ACCENTS = {
    "american south": "zeero wun too three fower fahv siks sevun ate nahn",
    "london": "zeero wun tew free faw foive sicks sevn ite noine",
    "australia": "zeeroh wan tew three foh foiv six sevin ite noin",
    "ireland": "zeero won too tree fore foyve six seven ate noyne",
    "scotland": "zeero wan tew thrie fower fyve sicks seevin ett nyne",
    "west africa": "zero wan too tree foe fahv seeks seven ett nahn",
    "latin america": "seero wahn too threeh for fibe seeks seben eight nine",
    "france": "zayro wun too zree for five seeks seven ayt nayn",
    "germany": "zerro wan too sree for fife zix zeven ate nine",
    "india": "zeero vun too tree four five six sewen ate nyne",
}

# And as Ukrainian, Kyrgyz and Esperanto read it.
ENGLISH_NEIGHBOURS = {
    "uk": "зіроу уан ту срі фор файв сікс севен ейт найн",
    "ky": "зироу уан ту сри фор файв сикс севен ейт найн",
    "eo": "ziroŭ ŭan tu sri for fajv siks seven ejt najn",
}

RUSSIAN_DIGITS = {
    "uk": "ноль адін два трі чєтирє пять шєсть сємь восємь дєвять",
    "ky": "ноль адин два три читыре пять шесть семь восемь девять",
    "eo": "nol adin dva tri ĉetire pjat ŝest sjem vosjem djevjat",
    "bg": "нол адин два три четире пят шест сем восем девят",
    "pl": "nol adin dwa tri czetyrie piać sześć siem wosiem diewiać",
    "de": "noll adinn dwa tri tschityre pjat schest sjem wossem djewjat",
    "en-us": "nole adeen dvah tree chetirry pyat shest syem vossyem dyevyat",
}
