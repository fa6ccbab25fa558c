"""The README in both languages: same structure, same code, commands and settings that exist."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from whisper_api.cli import app
from whisper_api.config import load_settings

ROOT = Path(__file__).resolve().parents[2]
ENGLISH = (ROOT / "README.md").read_text("utf-8")
RUSSIAN = (ROOT / "README.ru.md").read_text("utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)\)|<(http[^>]+)>")


def blocks(text: str, kind: str = "") -> list[str]:
    """The code blocks of a page, or those of one kind."""
    return [body for name, body in FENCE.findall(text) if not kind or name == kind]


def test_both_languages_have_the_same_code() -> None:
    assert FENCE.findall(ENGLISH) == FENCE.findall(RUSSIAN)
    assert len(blocks(ENGLISH)) >= 7


def test_both_languages_have_the_same_structure() -> None:
    def outline(text: str) -> list[str]:
        without_code = FENCE.sub("```", text)
        return [
            line.split()[0] if line.startswith("#") else "```"
            for line in without_code.split("\n")
            if line.startswith(("#", "```"))
        ]

    assert outline(ENGLISH) == outline(RUSSIAN)


def test_both_languages_have_the_same_links() -> None:
    def links(text: str) -> list[str]:
        found = ["".join(link) for link in LINK.findall(text)]
        return [link for link in found if not link.startswith("README")]

    assert links(ENGLISH) == links(RUSSIAN)


def test_links_lead_somewhere() -> None:
    for text in (ENGLISH, RUSSIAN):
        for target, url in LINK.findall(text):
            assert url or (ROOT / target).is_file(), target


def test_inner_links_name_a_heading() -> None:
    for text in (ENGLISH, RUSSIAN):
        headings = {
            line.lstrip("# ").lower().replace(" ", "-")
            for line in text.split("\n")
            if line.startswith("#")
        }
        assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings


def test_the_settings_block_is_a_valid_file(tmp_path: Path) -> None:
    (block,) = blocks(ENGLISH, "json")
    path = tmp_path / "config.json"
    path.write_text(block)
    assert load_settings(path).notices == ()


def test_the_example_config_is_valid() -> None:
    settings = load_settings(ROOT / "config.example.json")
    assert settings.notices == ()
    assert settings == load_settings(), "the example shows the defaults"


def test_the_sample_says_what_the_readme_says() -> None:
    manifest = ROOT / "src" / "whisper_api" / "assets" / "MANIFEST.json"
    if not manifest.is_file():
        pytest.skip("the source tree is not here")
    text = json.loads(manifest.read_text("utf-8"))["sample"]["text"]
    assert f"`{text}`" in ENGLISH
    assert f"`{text}`" in RUSSIAN


def test_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    commands = {command.name for command in app.registered_commands}
    seen: set[str] = set()
    for line in "".join(blocks(ENGLISH, "bash") + blocks(ENGLISH, "console")).split("\n"):
        words = shlex.split(line)
        seen.update(word.rpartition("/")[2] for word in words[:1])
        if words[:1] == ["make"]:
            assert f"\n{words[1]}:" in makefile, line
            assert all(f"\n{word.split('=')[0]} ?=" in makefile for word in words[2:]), line
        if words and words[0].endswith("/whisper-api"):
            assert words[1] in commands, line
            text = CliRunner().invoke(app, [words[1], "--help"], env={"COLUMNS": "200"}).output
            assert all(word in text for word in words if word.startswith("--")), line
    assert {"make", "whisper-api"} <= seen
