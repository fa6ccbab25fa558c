"""Dates, times, phone numbers and spelled letters, in Russian with English of the same meaning."""

import numpy as np

EN_MONTHS = (
    "January February March April May June July August September October November December"
).split()
RU_MONTHS = (
    "января февраля марта апреля мая июня июля августа сентября октября ноября декабря"
).split()
EN_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
RU_DAYS = "понедельник вторник среда четверг пятница суббота воскресенье".split()
EN_ORDINALS = (
    "_ first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth"
).split()
RU_ORDINALS = (
    "_ первого второго третьего четвёртого пятого шестого седьмого восьмого девятого десятого "
    "одиннадцатого двенадцатого тринадцатого четырнадцатого пятнадцатого шестнадцатого "
    "семнадцатого восемнадцатого девятнадцатого"
).split()
RU_HALF = (
    "_ первого второго третьего четвёртого пятого шестого седьмого восьмого девятого десятого "
    "одиннадцатого двенадцатого"
).split()
EN_LETTER_SOUNDS = (
    "ay bee see dee ee eff gee aitch eye jay kay ell em en oh pee cue are ess tee you vee doubleyou ex why zee"
).split()
EN_LETTERS = "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z".split()
RU_LETTERS = "А Б В Г Д Е Ж З И К Л М Н О П Р С Т У Ф Х Ц Ч Ш Э Ю Я".split()
LATIN = "A B V G D E Zh Z I K L M N O P R S T U F Kh Ts Ch Sh E Yu Ya".split()
RU_LETTER_SOUNDS = (
    "а бэ вэ гэ дэ е жэ зэ и ка эль эм эн о пэ эр эс тэ у эф ха цэ че ша э ю я"
).split()


def ordinal(day: int, lang: str) -> str:
    """1..31 as an ordinal; in Russian the genitive, as dates have it."""
    table = EN_ORDINALS if lang == "en" else RU_ORDINALS
    if day < 20:
        return table[day]
    tens, ones = divmod(day, 10)
    if lang == "en":
        return (
            ("twentieth", "thirtieth")[tens - 2]
            if ones == 0
            else f"{('twenty', 'thirty')[tens - 2]} {table[ones]}"
        )
    return (
        ("двадцатого", "тридцатого")[tens - 2]
        if ones == 0
        else f"{('двадцать', 'тридцать')[tens - 2]} {table[ones]}"
    )


def date(rng: np.random.Generator) -> tuple[str, str]:
    """A date: (Russian, English)."""
    month, day = int(rng.integers(12)), int(rng.integers(1, 32))
    ru, en = f"{ordinal(day, 'ru')} {RU_MONTHS[month]}", f"{EN_MONTHS[month]} {ordinal(day, 'en')}"
    kind = int(rng.integers(6))
    if kind == 0:
        return f"{ru}.", f"{en}."
    if kind == 1:
        return f"Сегодня {ru}.", f"Today is {en}."
    if kind == 2:
        week = int(rng.integers(7))
        return f"{RU_DAYS[week]}, {ru}.", f"{EN_DAYS[week]}, {en}."
    if kind == 3:
        year = int(rng.integers(20, 30))
        ones = year - 20
        ru_year = "двадцатого" if ones == 0 else f"двадцать {RU_ORDINALS[ones]}"
        en_year = "twenty twenty" + (f" {_en_one(ones)}" if ones else "")
        return f"{ru} две тысячи {ru_year} года.", f"{en}, {en_year}."
    if kind == 4:
        week = int(rng.integers(7))
        return f"Сегодня {RU_DAYS[week]}.", f"Today is {EN_DAYS[week]}."
    return f"Мой день рождения {ru}.", f"My birthday is {en}."


def _en_one(n: int) -> str:
    return "_ one two three four five six seven eight nine".split()[n]


def clock(rng: np.random.Generator, number: object) -> tuple[str, str]:
    """A time of day after a preposition: ("в семь часов", "at seven")."""
    say = number  # (value, language) -> words
    hour = int(rng.integers(1, 13))
    ru, en = say(hour, "ru"), say(hour, "en")  # type: ignore[operator]
    kind = int(rng.integers(6))
    if kind == 0:
        part = int(rng.integers(3))
        return (
            f"в {ru} {('утра', 'вечера', 'ночи')[part]}",
            f"at {en} {('in the morning', 'in the evening', 'at night')[part]}",
        )
    if kind == 1:
        return f"в половине {RU_HALF[hour % 12 + 1]}", f"at half past {en}"
    if kind in (2, 3):
        minute = int(
            rng.choice([5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, int(rng.integers(11, 60))])
        )
        return (
            f"в {ru} {say(minute, 'ru')}",  # type: ignore[operator]
            f"at {en} {say(minute, 'en')}" if minute >= 10 else f"at {en} oh {say(minute, 'en')}",  # type: ignore[operator]
        )
    ending = "час" if hour == 1 else "часа" if hour < 5 else "часов"
    return (f"в {ending}" if hour == 1 else f"в {ru} {ending}"), f"at {en}"


def time_phrase(rng: np.random.Generator, number: object) -> tuple[str, str]:
    """A sentence that tells a time."""
    ru, en = clock(rng, number)
    kind = int(rng.integers(3))
    if kind == 0 and not ru.startswith("в половине"):
        return f"Сейчас {ru[2:]}.", f"It is {en[3:]}."
    return (f"{ru}.", f"{en}.") if kind == 1 else (f"Завтра {ru}.", f"Tomorrow {en}.")


def phone(rng: np.random.Generator, number: object) -> tuple[tuple[str, str], tuple[str, str]]:
    """A telephone number: the Russian way with its translation, and the English way (twice)."""
    say = number
    groups = [
        [int(v) for v in rng.integers(0, 10, size)]
        for size in ((3, 4), (3, 3, 4))[int(rng.random() < 0.4)]
    ]
    en = ", ".join(" ".join(say(d, "en") for d in g) for g in groups)  # type: ignore[operator]
    parts = [int(rng.integers(100, 1000)), int(rng.integers(10, 100)), int(rng.integers(10, 100))]
    ru = ", ".join(say(p, "ru") for p in parts)  # type: ignore[operator]
    ru_en = ", ".join(say(p, "en") for p in parts)  # type: ignore[operator]
    if rng.random() < 0.5:
        return (f"Мой номер {ru}.", f"My number is {ru_en}."), (
            f"My number is {en}.",
            f"My number is {en}.",
        )
    return (f"{ru}.", f"{ru_en}."), (f"{en}.", f"{en}.")
