"""The page's cookie for players is lent anew before it ends."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from whisper_api.api.session import LASTS_S
from whisper_api.api.system import package_folder

STUBS = {
    "package.json": '{"type": "module"}',
    "api.js": "export const request = async (path) => void asked.push([path, Date.now()]);",
    "place.js": "export const at = (path) => path;",
    "prefs.js": "export const key = { get: () => given };",
    "play.js": """
        Object.assign(globalThis, { asked: [], given: "one" });
        const { openable } = await import("./media.js");
        for (const [hours, key] of JSON.parse(process.argv[2])) {
          Date.now = () => hours * 3600e3;
          given = key;
          await openable("/v1/history/tr_1/audio");
        }
        console.log(JSON.stringify(asked));
    """,
}


def lent_at(folder: Path, *openings: tuple[float, str]) -> list[float]:
    """The hours of ``openings`` (hour and key) at which the cookie was asked for."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    for name, text in STUBS.items():
        (folder / name).write_text(text, "utf-8")
    shutil.copy(package_folder("web") / "media.js", folder)
    command = [node, str(folder / "play.js"), json.dumps(openings)]
    asked = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert {path for path, _ in asked} <= {"/v1/session"}
    return [ms / 3600e3 for _, ms in asked]


def test_the_cookie_is_lent_again_after_half_of_its_life(tmp_path: Path) -> None:
    half = LASTS_S / 3600 / 2
    hours = [100, 101, 100 + half - 0.1, 100 + half + 0.1, 100 + half + 1]
    openings = [(hour, "one") for hour in hours]
    assert lent_at(tmp_path, *openings) == pytest.approx([100, 100 + half + 0.1])


def test_another_key_gets_another_cookie(tmp_path: Path) -> None:
    assert lent_at(tmp_path, (1, "one"), (2, "two"), (3, "two"), (4, "")) == [1, 2]
