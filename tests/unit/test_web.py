"""The page's files: both languages whole, small modules, nothing from other hosts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from whisper_api.api.system import package_folder

WEB = package_folder("web")
SCRIPTS = sorted(WEB.rglob("*.js"))
FILES = [*SCRIPTS, *sorted(WEB.rglob("*.css")), *sorted(WEB.rglob("*.html"))]
KEY = re.compile(r'^  (?:"([\w.]+)"|(\w+)):', re.MULTILINE)
USES = (r'\bt\("([\w.]+)"', r'data-t(?:-\w+)?="([\w.]+)"')
BUILT = (
    r"^(?:banner|debug\.stage|error|export|help|history|models|options|queue|record|status|theme"
    r"|unit|edit|save|studio|span|workers)\."
)
"""Families of which some keys are put together while the page runs."""


def keys(language: str) -> set[str]:
    text = (WEB / "i18n" / f"{language}.js").read_text("utf-8")
    return {quoted or plain for quoted, plain in KEY.findall(text)}


def test_both_languages_have_the_same_words() -> None:
    assert keys("en") == keys("ru")


def test_every_word_that_is_used_exists_and_none_is_idle() -> None:
    used = set()
    for path in FILES:
        for pattern in USES:
            used |= set(re.findall(pattern, path.read_text("utf-8")))
    assert used <= keys("en")
    idle = {key for key in keys("en") - used if not re.match(BUILT, key)}
    assert {key for key in idle if not mentioned(key)} == set()


def mentioned(key: str) -> bool:
    """Whether some script holds the key as a text of its own."""
    return any(f'"{key}"' in path.read_text("utf-8") for path in SCRIPTS if "i18n" not in str(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(WEB)))
def test_files_are_small_and_need_nobody_else(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") <= 400
    outside = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"'`]*", text)
    assert [link for link in outside if "www.w3.org" not in link] == []
    for part in re.findall(r'(?:from|import\() ?"(\./[^"]+)"', text):
        assert (path.parent / part).is_file(), part


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_ask_for_nothing_at_the_root_of_the_host(path: Path) -> None:
    text = path.read_text("utf-8")
    asked = re.findall(r"\b(?:fetch\(|addModule\(|open\(method, )([^),]*)", text)
    assert [what for what in asked if not what.startswith(("at(", '"${address}'))] == []
    assert re.findall(r"""(?:href|src)(?::|\s*=)\s*["`']/""", text) == []
